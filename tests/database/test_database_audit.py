import sqlite3
import threading

import pytest
from database_helpers import NOW, ask, run_sql
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from cleanup_dagster.database.audit import AuditRow, AuditTotals, append, history, totals
from cleanup_dagster.database.engine import reading


def row(run_id: str, data_type: str = "dbt_logs", *, outcome: str = "done", at: int = NOW, files: int = 3) -> AuditRow:
    return AuditRow(
        run_id=run_id,
        data_type=data_type,
        cleanup_type="automatic",
        outcome=outcome,
        executed_ns=at,
        executed_by="schedule",
        records_deleted=files,
        space_freed_bytes=files * 2**40,
        records_failed=1,
        records_skipped=2,
        backup_bytes=2**40,
        open_check="lease",
        manifest="/state/manifests/x.jsonl.zst",
        message="all well",
    )


def write(engine: Engine, *rows: AuditRow) -> int:
    with engine.begin() as conn:
        return append(conn, rows)


def read(engine: Engine, limit: int = 100) -> list[AuditRow]:
    with reading(engine) as conn:
        return history(conn, limit)


def test_what_is_written_is_read_newest_first(engine: Engine) -> None:
    first, second, third = row("a"), row("b", at=NOW + 2_000), row("b", "temp_files", at=NOW + 1_000)
    assert write(engine, first, second, third) == 3
    assert read(engine) == [second, third, first]
    assert read(engine, 1) == [second]


def test_appending_again_adds_only_what_is_missing(engine: Engine) -> None:
    write(engine, row("a"))
    assert write(engine, row("a", files=99), row("a", "temp_files")) == 1
    assert [(found.data_type, found.records_deleted) for found in read(engine)] == [("temp_files", 3), ("dbt_logs", 3)]
    assert write(engine, row("a", files=99), row("a", "temp_files")) == 0


def test_two_appends_at_the_same_moment_write_one_row(postgres_engine: Engine) -> None:
    added: list[int] = []
    with postgres_engine.begin() as conn:
        added.append(append(conn, [row("a")]))
        rival = threading.Thread(target=lambda: added.append(write(postgres_engine, row("a", files=99))))
        rival.start()
        rival.join(0.3)  # it waits for our commit at the unique index
        assert rival.is_alive()
    rival.join(10)
    assert added == [1, 0]
    assert [found.records_deleted for found in read(postgres_engine)] == [3]


UPSERT = (
    "INSERT INTO cleanup_audit (run_id, data_type, cleanup_type) VALUES ('a', 'dbt_logs', 'manual')"
    " ON CONFLICT (run_id, data_type) DO UPDATE SET records_deleted = 0"
)
CHANGES = [
    "UPDATE cleanup_audit SET records_deleted = 0",
    "UPDATE cleanup_audit SET message = message",
    "DELETE FROM cleanup_audit",
    "DELETE FROM cleanup_audit WHERE run_id = 'a'",
]
POSTGRES_CHANGES = [
    *CHANGES,
    "TRUNCATE cleanup_audit",
    "TRUNCATE cleanup_audit CASCADE",
    "SET LOCAL session_replication_role = replica; DELETE FROM cleanup_audit",
    "SET LOCAL session_replication_role = replica; TRUNCATE cleanup_audit",
    UPSERT,
]
SQLITE_CHANGES = [
    *CHANGES,
    "REPLACE INTO cleanup_audit (id, data_type, cleanup_type) VALUES (1, 'dbt_logs', 'manual')",
    "INSERT OR REPLACE INTO cleanup_audit (run_id, data_type, cleanup_type) VALUES ('a', 'dbt_logs', 'manual')",
    "INSERT OR REPLACE INTO cleanup_audit SELECT * FROM cleanup_audit",
    "INSERT OR IGNORE INTO cleanup_audit (id, data_type, cleanup_type) VALUES (1, 'dbt_logs', 'manual')",
    "UPDATE OR REPLACE cleanup_audit SET id = 1",
    UPSERT,
]


@pytest.mark.parametrize("statement", POSTGRES_CHANGES)
def test_postgres_refuses_every_change(postgres_engine: Engine, statement: str) -> None:
    write(postgres_engine, row("a"), row("b"))
    with pytest.raises(DBAPIError, match="insert-only"):
        run_sql(postgres_engine, *statement.split("; "))
    assert read(postgres_engine) == [row("b"), row("a")]


@pytest.mark.parametrize("statement", SQLITE_CHANGES)
def test_sqlite_refuses_every_change(sqlite_engine: Engine, statement: str) -> None:
    write(sqlite_engine, row("a"), row("b"))
    with pytest.raises(DBAPIError, match="insert-only"):
        run_sql(sqlite_engine, statement)
    assert read(sqlite_engine) == [row("b"), row("a")]


@pytest.mark.parametrize("statement", SQLITE_CHANGES)
def test_sqlite_refuses_it_to_a_stranger_without_our_pragmas(sqlite_engine: Engine, statement: str) -> None:
    write(sqlite_engine, row("a"), row("b"))
    stranger = sqlite3.connect(str(sqlite_engine.url.database))
    assert stranger.execute("PRAGMA recursive_triggers").fetchone() == (0,)
    with pytest.raises(sqlite3.IntegrityError, match="insert-only"):
        stranger.execute(statement)
    stranger.commit()
    stranger.close()
    assert read(sqlite_engine) == [row("b"), row("a")]


def test_a_plain_hand_written_insert_is_allowed(engine: Engine) -> None:
    run_sql(engine, "INSERT INTO cleanup_audit (data_type, cleanup_type) VALUES ('dbt_logs', 'manual')")
    run_sql(engine, "INSERT INTO cleanup_audit (data_type, cleanup_type) VALUES ('dbt_logs', 'manual')")
    assert [(found.run_id, found.outcome) for found in read(engine)] == [("", "done"), ("", "done")]


def test_totals_sum_everything_and_date_the_last_that_was_not_refused(engine: Engine) -> None:
    write(
        engine,
        row("a", at=NOW, files=2),
        row("b", at=NOW + 5_000, files=3),
        row("c", at=NOW + 9_000, files=0, outcome="refused"),
        row("c", "temp_files", at=NOW + 9_000, files=0, outcome="refused"),
    )
    with reading(engine) as conn:
        assert totals(conn) == {
            "dbt_logs": AuditTotals(NOW + 5_000, 5, 5 * 2**40, 3),
            "temp_files": AuditTotals(None, 0, 0, 1),
        }


def test_totals_of_nothing_are_nothing(engine: Engine) -> None:
    with reading(engine) as conn:
        assert totals(conn) == {}
        assert conn.execute(text("SELECT count(*) FROM cleanup_audit")).scalar_one() == 0


def test_ids_are_never_given_twice(sqlite_engine: Engine) -> None:
    write(sqlite_engine, row("a"))
    assert "AUTOINCREMENT" in ask(sqlite_engine, "SELECT sql FROM sqlite_master WHERE name = 'cleanup_audit'")[0][0]
