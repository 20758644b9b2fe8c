# pyright: reportUnknownMemberType=false, reportPrivateUsage=false
# Dagster's client leaves parts of its own signatures unknown, and has no public way to send any other query.
"""Webserver and daemon as they run in production: launched through GraphQL, queued, executed, and by the schedule."""

from collections.abc import Generator
from typing import Any

import dagster as dg
import pytest
from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError
from end_to_end_helpers import EXPIRED, KEPT, Platform, eventually
from servers import ENDED, servers
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.pool import NullPool

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

_EVERY_MINUTE = {"cron": "* * * * *"}
_AUTOMATIC = """
SELECT executed_by, outcome, sum(records_deleted)::int FROM cleanup_audit WHERE cleanup_type = 'automatic'
GROUP BY run_id, executed_by, outcome ORDER BY min(id)
"""


def _finish(client: DagsterGraphQLClient, config: dict[str, Any]) -> tuple[str, dg.DagsterRunStatus]:
    run_id = client.submit_job_execution("cleanup", run_config=config)
    eventually(f"the end of run {run_id}", lambda: client.get_run_status(run_id) in ENDED, seconds=120)
    return run_id, client.get_run_status(run_id)


@pytest.fixture(scope="module")
def engine(postgres_server_url: URL) -> Generator[Engine]:
    """A database for our own tables and, as our dagster.yaml makes it, for Dagster's instance."""
    administration = create_engine(postgres_server_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with administration.connect() as conn:
        conn.execute(text("CREATE DATABASE production"))
    engine = open_engine(postgres_server_url.set(database="production"))
    upgrade(engine)
    yield engine
    engine.dispose()
    with administration.connect() as conn:
        conn.execute(text("DROP DATABASE production WITH (FORCE)"))


@pytest.fixture(scope="module")
def platform(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform on Postgres, whose schedule fires every minute once it is started."""
    platform = Platform(tmp_path_factory.mktemp("production"))
    platform.take_dagster_yaml()
    platform.configure(schedule=_EVERY_MINUTE)
    url = engine.url
    platform.extra = {
        "CLEANUP_DATABASE_URL": url.render_as_string(hide_password=False),
        "PGHOST": str(url.query["host"]),  # a socket's directory, which the host of a URL cannot be
        "DAGSTER_POSTGRES_HOST": "",
        "DAGSTER_POSTGRES_PORT": "5432",
        "DAGSTER_POSTGRES_USER": url.username or "",
        "DAGSTER_POSTGRES_PASSWORD": "",
        "DAGSTER_POSTGRES_DB": url.database or "",
    }
    return platform


@pytest.fixture(scope="module")
def client(platform: Platform) -> Generator[DagsterGraphQLClient]:
    """Dagster's webserver and daemon, started once: that takes most of this module's time."""
    with servers(platform) as client:
        yield client


def test_the_job_is_launched_from_the_ui(platform: Platform, client: DagsterGraphQLClient, engine: Engine) -> None:
    with pytest.raises(DagsterGraphQLClientError, match="RunConfigValidationInvalid"):
        client.submit_job_execution("cleanup", run_config={"dry_run": "no"})

    dry, status = _finish(client, {})
    assert status is dg.DagsterRunStatus.SUCCESS
    assert platform.files == EXPIRED | KEPT

    live, status = _finish(client, {"dry_run": False, "type": "manual"})
    assert status is dg.DagsterRunStatus.SUCCESS
    assert platform.files == KEPT
    assert _ask(engine, "SELECT DISTINCT run_id, cleanup_type, outcome FROM cleanup_audit") == [
        (live, "manual", "done")
    ]
    assert _ask(engine, "SELECT run_id FROM cleanup_runs WHERE dry_run") == [(dry,)]

    platform.refill()
    platform.configure(schedule=_EVERY_MINUTE, limits={"max_files": 1})
    _, status = _finish(client, {"dry_run": False})
    assert status is dg.DagsterRunStatus.FAILURE
    assert platform.files == EXPIRED | KEPT


def test_in_production_the_schedule_runs_it_on_postgres(
    platform: Platform, client: DagsterGraphQLClient, engine: Engine
) -> None:
    platform.configure(schedule=_EVERY_MINUTE)
    platform.refill()
    assert _ask(engine, _AUTOMATIC) == []
    selector = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "cleanup_dagster",
        "scheduleName": "cleanup_daily",
    }
    begun = client._execute(_START, {"selector": selector})
    assert begun["startSchedule"] == {"__typename": "ScheduleStateResult"}
    eventually("a run of the schedule", lambda: _ask(engine, _AUTOMATIC), seconds=120)
    assert platform.files == KEPT
    assert _ask(engine, _AUTOMATIC)[0] == ("schedule cleanup_daily", "done", 3)
    assert _ask(engine, "SELECT count(*) >= 4 FROM runs") == [(True,)]


def _ask(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as conn:
        return [tuple(row) for row in conn.execute(text(query))]
