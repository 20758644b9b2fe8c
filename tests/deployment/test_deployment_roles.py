"""The roles of docs/security.md on a real Postgres: each can do its work, and nothing that is another's."""

import json
import os
import re
import time
from collections.abc import Generator
from pathlib import Path

import psycopg2
import psycopg2.errors
import pytest
from deployment_compose import PROJECT
from sqlalchemy import URL, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from cleanup_dagster.bootstrap import open_service
from cleanup_dagster.database.engine import open_engine
from cleanup_dagster.database.schema import VERSION_TABLE, upgrade
from cleanup_dagster.database.tables import metadata
from cleanup_dagster.handles import Request, RestoreRequest
from cleanup_dagster.retention.models import CleanupType
from cleanup_dagster.settings import load_settings

_ROLES = ("cleanup_owner", "cleanup_worker", "cleanup_operator", "cleanup_reader")
_PAGE = (PROJECT / "docs" / "security.md").read_text(encoding="utf-8")
_MAKE, _GRANT, _READ = re.findall(r"^```sql\n(.*?)^```", _PAGE, re.MULTILINE | re.DOTALL)


def _execute(url: URL, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as conn:
        conn.exec_driver_sql(statement)


@pytest.fixture
def server(postgres_server_url: URL) -> Generator[URL]:
    """The server, whose roles are gone at the end, when the database with what they own is."""
    yield postgres_server_url
    for role in _ROLES:
        _execute(postgres_server_url, f"DROP ROLE IF EXISTS {role}")


@pytest.fixture
def database(server: URL, postgres_url: URL) -> URL:
    """A database that was set up as the page says."""
    del server
    _execute(postgres_url, _MAKE)
    engine = open_engine(postgres_url.set(username="cleanup_owner"))
    upgrade(engine)
    engine.dispose()
    _execute(postgres_url.set(username="cleanup_owner"), _GRANT)
    return postgres_url


@pytest.fixture
def environ(database: URL, tmp_path: Path) -> dict[str, str]:
    """The environment of a platform with one expired operation, as the worker has it."""
    root = tmp_path / "operations"
    root.mkdir()
    path = root / "operation_1.json"
    path.write_text('{"status": "failed"}', encoding="utf-8")
    moment = time.time() - 20 * 86_400
    os.utime(path, (moment, moment))
    config = tmp_path / "cleanup.yaml"
    targets = [{"name": "operations", "kind": "operations", "root": str(root)}]
    config.write_text(json.dumps({"targets": targets}), encoding="utf-8")
    return {
        "CLEANUP_CONFIG": str(config),
        "CLEANUP_STATE_DIR": str(tmp_path / "state"),
        "CLEANUP_BACKUP_DIR": str(tmp_path / "backups"),
        "CLEANUP_DATABASE_URL": _as(database, "cleanup_worker").render_as_string(hide_password=False),
    }


def _as(database: URL, role: str) -> URL:
    return database.set(username=role)


def _refused(database: URL, role: str, *statements: str) -> None:
    engine = create_engine(_as(database, role), poolclass=NullPool)
    for statement in statements:
        with engine.connect() as conn, pytest.raises(DBAPIError) as caught:
            conn.execute(text(statement))
        assert isinstance(caught.value.orig, psycopg2.errors.InsufficientPrivilege), f"{role}: {statement}"


def test_the_worker_cleans_audits_and_restores(environ: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "operations" / "operation_1.json"
    with open_service(load_settings(environ)) as service:
        run = service.begin(Request("run-1", CleanupType.AUTOMATIC, dry_run=False, executed_by="schedule"))
        checked = service.check(run, [service.scan(run, name) for name in run.targets])
        deleted = [service.delete(service.back_up(plan)) for plan in checked.plans]
        report = service.audit(checked, deleted)
        assert not report.problems
        assert not path.exists()
        service.prune(run)
        service.restore(RestoreRequest("run-2", "run-1", executed_by="anna", dry_run=False))
    assert path.exists()


def test_a_restore_of_the_worker_that_finds_nothing_ends_as_any_other(environ: dict[str, str], tmp_path: Path) -> None:
    with open_service(load_settings(environ)) as service:
        run = service.begin(Request("run-1", CleanupType.AUTOMATIC, dry_run=False, executed_by="schedule"))
        checked = service.check(run, [service.scan(run, name) for name in run.targets])
        service.audit(checked, [service.delete(service.back_up(plan)) for plan in checked.plans])
        missing = (str(tmp_path / "operations" / "operation_2.json"),)
        report = service.restore(RestoreRequest("run-2", "run-1", executed_by="anna", paths=missing, dry_run=False))
        assert report.problems == ("nothing of the run is selected",)
        assert [(record.run_id, record.finished_ns is None) for record in service.records.runs(1)] == [("run-2", False)]
        assert service.records.holds() == []


def test_the_worker_can_only_add_to_the_audit_and_change_no_policy(database: URL) -> None:
    _refused(
        database,
        "cleanup_worker",
        "UPDATE cleanup_audit SET records_deleted = 0",
        "DELETE FROM cleanup_audit",
        "TRUNCATE cleanup_audit",
        "UPDATE cleanup_policies SET retention_days = 1",
        "DELETE FROM cleanup_holds",
        "DELETE FROM cleanup_policy_changes",
        "DROP TABLE cleanup_audit",
        "CREATE TABLE cleanup_more (id int)",
    )


def test_the_operator_changes_policies_and_holds_and_nothing_else(database: URL, environ: dict[str, str]) -> None:
    environ["CLEANUP_DATABASE_URL"] = _as(database, "cleanup_operator").render_as_string(hide_password=False)
    with open_service(load_settings(environ)) as service:
        scan = service.begin(Request("scan-1", CleanupType.MANUAL, dry_run=True, executed_by="anna"))
        checked = service.check(scan, [service.scan(scan, name) for name in scan.targets])
        assert checked.plans[0].deletable.files == 1
        assert not service.audit(checked, []).problems
        service.records.change_policies(["dbt_logs"], "anna", retention_days=14)
        service.records.reset_policies("anna")
        assert service.records.release(service.records.hold("/srv/**", "audit", "anna"))
    _refused(
        database,
        "cleanup_operator",
        "INSERT INTO cleanup_audit (data_type) VALUES ('x')",
        "DELETE FROM cleanup_runs",
        "INSERT INTO cleanup_run_targets (run_id) VALUES ('x')",
        "DELETE FROM cleanup_policies",
        "UPDATE cleanup_policy_changes SET changed_by = 'nobody'",
    )


def test_the_reader_reads(database: URL) -> None:
    _execute(_as(database, "cleanup_reader"), _READ)
    _refused(database, "cleanup_reader", "DELETE FROM cleanup_holds", "UPDATE cleanup_policies SET enabled = false")


def test_the_grants_name_every_table(database: URL) -> None:
    for table in (*metadata.tables, VERSION_TABLE):
        for role in _ROLES[1:]:
            _execute(_as(database, role), f"SELECT count(*) FROM {table}")  # noqa: S608 names of our own
