"""A Postgres that hangs: its process stopped, or waiting for a lock that somebody forgot to let go."""

import signal
import time
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import URL, Connection, Engine, text

from cleanup_dagster.database import patience
from cleanup_dagster.database.engine import open_engine, reading
from cleanup_dagster.database.errors import DatabaseUnavailable


@pytest.fixture
def engine(postgres_url: URL, monkeypatch: pytest.MonkeyPatch) -> Generator[Engine]:
    monkeypatch.setattr(patience, "ANSWER_SECONDS", 1.0)
    engine = open_engine(postgres_url)
    yield engine
    engine.dispose()


def backend_of(conn: Connection) -> psutil.Process:
    return psutil.Process(conn.execute(text("SELECT pg_backend_pid()")).scalar_one())


@pytest.mark.parametrize("step", ["execute", "commit", "rollback"])
def test_a_backend_that_is_stopped_ends_in_an_error(engine: Engine, step: str) -> None:
    began = 0.0

    def hang() -> None:
        nonlocal began
        with engine.connect() as conn:
            stopped.append(backend_of(conn))
            conn.execute(text("CREATE TABLE t (a int)"))
            stopped[0].send_signal(signal.SIGSTOP)
            began = time.monotonic()
            conn.execute(text("SELECT 1")) if step == "execute" else getattr(conn, step)()

    stopped: list[psutil.Process] = []
    try:
        with pytest.raises(DatabaseUnavailable, match=r"did not answer: timed out: no answer within 1 seconds; look"):
            hang()
        assert 0.9 < time.monotonic() - began < 20
        with reading(engine) as conn:  # the server itself is well
            assert backend_of(conn).pid != stopped[0].pid
    finally:
        stopped[0].send_signal(signal.SIGCONT)


def test_a_pooled_connection_whose_backend_stopped_is_replaced(engine: Engine) -> None:
    with engine.connect() as conn:
        stopped = backend_of(conn)
    stopped.send_signal(signal.SIGSTOP)
    try:
        with reading(engine) as conn:
            assert backend_of(conn).pid != stopped.pid
    finally:
        stopped.send_signal(signal.SIGCONT)


def test_a_lock_that_nobody_lets_go_ends_in_an_error(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(text("CREATE TABLE t (a int)"))
    with engine.begin() as forgotten:
        forgotten.execute(text("LOCK TABLE t"))
        with pytest.raises(DatabaseUnavailable, match="somebody keeps a lock on the tables"), engine.begin() as conn:
            conn.execute(text("INSERT INTO t VALUES (1)"))
    with reading(engine) as conn:
        assert conn.execute(text("SELECT count(*) FROM t")).scalar_one() == 0


def test_what_answers_in_time_leaves_no_thread_and_no_descriptor(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(text("SELECT 1"))
        before = len(list(Path("/proc/self/fd").iterdir())), psutil.Process().num_threads()
        for _ in range(50):
            conn.execute(text("SELECT 1"))
        time.sleep(0.1)
        assert (len(list(Path("/proc/self/fd").iterdir())), psutil.Process().num_threads()) <= before
