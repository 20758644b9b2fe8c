import time

import pytest
from database_helpers import ask, python, run_sql
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.pool import NullPool

from cleanup_dagster.database.engine import open_engine
from cleanup_dagster.database.errors import DatabaseUnavailable
from cleanup_dagster.database.locks import advisory_lock

HOLD = """
import sys
from cleanup_dagster.database.engine import open_engine
from cleanup_dagster.database.locks import advisory_lock
with advisory_lock(open_engine(sys.argv[1])) as lock:
    print(bool(lock), flush=True)
    sys.stdin.read()
"""
HOLDER = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'"


def test_one_holder_at_a_time(postgres_engine: Engine) -> None:
    with advisory_lock(postgres_engine) as first, advisory_lock(postgres_engine) as second:
        assert first
        assert first.still_held()
        assert not second
        assert not second.still_held()
    with advisory_lock(postgres_engine) as third:
        assert third


def test_an_error_inside_releases_too(postgres_engine: Engine) -> None:
    with pytest.raises(RuntimeError), advisory_lock(postgres_engine):
        raise RuntimeError
    with advisory_lock(postgres_engine) as lock:
        assert lock


def test_a_loser_does_not_release_the_winners_lock(postgres_engine: Engine) -> None:
    with advisory_lock(postgres_engine) as winner:
        with advisory_lock(postgres_engine) as loser:
            assert not loser
        assert winner.still_held()
        with advisory_lock(postgres_engine) as other:
            assert not other


def test_a_killed_holder_holds_nothing(postgres_engine: Engine, postgres_url: URL) -> None:
    holder = python(HOLD, postgres_url.render_as_string(hide_password=False))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    with advisory_lock(postgres_engine) as lock:
        assert not lock
    holder.kill()
    holder.communicate()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with advisory_lock(postgres_engine) as lock:
            if lock:
                return
        time.sleep(0.02)
    pytest.fail("the server kept the lock of a dead process")


def test_a_holder_whose_connection_died_learns_it(postgres_engine: Engine, postgres_url: URL) -> None:
    admin = create_engine(postgres_url.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with advisory_lock(postgres_engine) as lock:
        ((pid,),) = ask(postgres_engine, HOLDER)
        assert lock.still_held()
        run_sql(admin, f"SELECT pg_terminate_backend({pid}, 5000)")
        with advisory_lock(postgres_engine) as successor:
            assert successor
            assert not lock.still_held()
            assert not lock.still_held()  # nor does a connection made anew answer for the old one


def test_a_lock_taken_away_on_a_living_connection_is_noticed(postgres_engine: Engine) -> None:
    with advisory_lock(postgres_engine) as lock:
        conn = lock._conn  # pyright: ignore[reportPrivateUsage]
        assert conn is not None
        conn.execute(text("SELECT pg_advisory_unlock_all()"))
        assert not lock.still_held()


def test_the_connection_that_held_the_lock_is_closed_and_not_pooled(postgres_engine: Engine) -> None:
    with advisory_lock(postgres_engine) as lock:
        assert lock
        ((pid,),) = ask(postgres_engine, HOLDER)
    deadline = time.monotonic() + 10
    while (pid,) in ask(postgres_engine, "SELECT pid FROM pg_stat_activity"):
        assert time.monotonic() < deadline, "the server still has the holder's connection"
        time.sleep(0.02)


def test_the_holder_keeps_no_transaction_open(postgres_engine: Engine) -> None:
    with advisory_lock(postgres_engine) as lock:
        assert lock.still_held()
        idle = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
        assert ask(postgres_engine, idle) == []


def test_sqlite_leaves_locking_to_flock(sqlite_engine: Engine) -> None:
    with advisory_lock(sqlite_engine) as first, advisory_lock(sqlite_engine) as second:
        assert first
        assert second
        assert first.still_held()


def test_no_server_no_lock(postgres_url: URL) -> None:
    with pytest.raises(DatabaseUnavailable), advisory_lock(open_engine(postgres_url.set(database="nowhere"))):
        pytest.fail("nothing may run without the lock")
