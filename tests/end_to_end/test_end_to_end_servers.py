# pyright: reportUnknownMemberType=false, reportPrivateUsage=false
# Dagster's client leaves parts of its own signatures unknown, and has no public way to send any other query.
"""Webserver and daemon as they run in production: launched through GraphQL, queued, executed, and by the schedule."""

import shutil
from typing import Any

import dagster as dg
import pytest
from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError
from end_to_end_helpers import EXPIRED, KEPT, PROJECT, Platform, eventually
from servers import ENDED, servers
from sqlalchemy import URL, Engine, text

from cleanup_dagster.database.engine import open_engine
from cleanup_dagster.database.schema import upgrade

_START = """
mutation Start($selector: ScheduleSelector!) {
  startSchedule(scheduleSelector: $selector) {
    __typename
    ... on PythonError { message }
  }
}
"""


def _finish(client: DagsterGraphQLClient, config: dict[str, Any]) -> tuple[str, dg.DagsterRunStatus]:
    run_id = client.submit_job_execution("cleanup", run_config=config)
    eventually(f"the end of run {run_id}", lambda: client.get_run_status(run_id) in ENDED, seconds=120)
    return run_id, client.get_run_status(run_id)


def test_the_job_is_launched_from_the_ui(platform: Platform) -> None:
    with servers(platform) as client:
        with pytest.raises(DagsterGraphQLClientError, match="RunConfigValidationInvalid"):
            client.submit_job_execution("cleanup", run_config={"dry_run": "no"})

        dry, status = _finish(client, {})
        assert status is dg.DagsterRunStatus.SUCCESS
        assert platform.files == EXPIRED | KEPT

        live, status = _finish(client, {"dry_run": False, "type": "manual"})
        assert status is dg.DagsterRunStatus.SUCCESS
        assert platform.files == KEPT
        assert platform.ask("SELECT DISTINCT run_id, cleanup_type, outcome FROM cleanup_audit") == [
            (live, "manual", "done")
        ]
        assert platform.ask("SELECT run_id FROM cleanup_runs WHERE dry_run") == [(dry,)]

        platform.refill()
        platform.configure(limits={"max_files": 1})
        _, status = _finish(client, {"dry_run": False})
        assert status is dg.DagsterRunStatus.FAILURE
        assert platform.files == EXPIRED | KEPT


def test_in_production_the_schedule_runs_it_on_postgres(platform: Platform, postgres_url: URL) -> None:
    """Dagster's instance, as our dagster.yaml makes it, and our own tables share one database."""
    shutil.copy(PROJECT / "dagster.yaml", platform.dagster_home)
    platform.configure(schedule={"cron": "* * * * *"})
    platform.extra = {
        "CLEANUP_DATABASE_URL": postgres_url.render_as_string(hide_password=False),
        "PGHOST": str(postgres_url.query["host"]),  # a socket's directory, which the host of a URL cannot be
        "DAGSTER_POSTGRES_HOST": "",
        "DAGSTER_POSTGRES_PORT": "5432",
        "DAGSTER_POSTGRES_USER": postgres_url.username or "",
        "DAGSTER_POSTGRES_PASSWORD": "",
        "DAGSTER_POSTGRES_DB": postgres_url.database or "",
    }
    engine = open_engine(postgres_url)
    upgrade(engine)
    try:
        with servers(platform) as client:
            assert _audit(engine) == []
            selector = {
                "repositoryName": "__repository__",
                "repositoryLocationName": "cleanup_dagster",
                "scheduleName": "cleanup_daily",
            }
            begun = client._execute(_START, {"selector": selector})
            assert begun["startSchedule"] == {"__typename": "ScheduleStateResult"}
            eventually("a run of the schedule", lambda: _audit(engine), seconds=120)
        assert platform.files == KEPT
        assert _audit(engine)[:1] == [("automatic", "schedule cleanup_daily", "done", 3)]
        assert _count(engine, "SELECT count(*) FROM runs") >= 1
    finally:
        engine.dispose()


def _audit(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as conn:
        rows = conn.execute(
            text(
                "SELECT cleanup_type, executed_by, outcome, sum(records_deleted) FROM cleanup_audit"
                " GROUP BY run_id, cleanup_type, executed_by, outcome ORDER BY min(id)"
            )
        )
        return [tuple(row) for row in rows]


def _count(engine: Engine, query: str) -> int:
    with engine.connect() as conn:
        return conn.execute(text(query)).scalar_one()
