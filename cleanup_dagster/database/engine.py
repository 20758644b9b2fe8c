"""Engines for both databases: durable, in UTC, with errors that a person can act upon and without a password."""

import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Dialect, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.pool import NullPool

from cleanup_dagster.database.errors import DatabaseNotReady, DatabaseUnavailable
from cleanup_dagster.database.problems import (
    BUSY_SECONDS,
    CONNECT_SECONDS,
    connect_problem,
    may_pass,
    postgres_problem,
    sqlite_problem,
)
from cleanup_dagster.database.urls import read_url

_READ_ONLY = "cleanup_read_only"

_SQLITE_SETUP = (
    # EXTRA is FULL plus an fsync of the directory when the journal goes: without that, a power cut right after
    # a commit can bring the journal back and undo the commit, and a committed intent must stay committed.
    "PRAGMA synchronous = EXTRA",
    "PRAGMA fullfsync = ON",  # the same promise on macOS, where fsync alone stops at the disk's cache
    "PRAGMA foreign_keys = ON",
    "PRAGMA recursive_triggers = ON",  # otherwise REPLACE deletes an audit row without asking its trigger
    "SELECT count(*) FROM sqlite_master",  # a file that is no database shows itself here and not in mid-run
)

_POSTGRES_SETUP = (
    "SET TIME ZONE 'UTC'",
    # A commit that the server has not made durable is no intent; a stricter setting of the server stays.
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
)


def open_engine(url: str | URL) -> Engine:
    """Return an engine for `url`. Nothing is connected or created yet; a missing SQLite file stays missing.

    Raises DatabaseUnavailable for a URL that cannot be used; every connection made later raises it for a database that
    cannot. A transaction of `engine.begin()` on SQLite takes the write lock at once (waiting up to 10 s).
    """
    target = read_url(url)
    if target.get_backend_name() == "sqlite":
        # No pool: a file that was replaced or removed under a daemon must be noticed, not written to for ever.
        engine = create_engine(target, poolclass=NullPool)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        engine = create_engine(target, pool_pre_ping=True)
    event.listen(engine, "do_connect", _connector(target))
    event.listen(engine, "handle_error", _translator(target), retval=True)
    return engine


@contextmanager
def reading(engine: Engine) -> Generator[Connection]:
    """Yield a connection that cannot change anything: the database itself refuses. It takes no write lock."""
    with engine.connect() as conn:
        options: dict[str, Any] = (
            {"postgresql_readonly": True} if engine.dialect.name == "postgresql" else {_READ_ONLY: True}
        )
        yield conn.execution_options(**options)


def sqlite_file(engine: Engine) -> str | None:
    """Return the path of the engine's SQLite file, or None when it is a Postgres engine."""
    return engine.url.database if engine.dialect.name == "sqlite" else None


def create_sqlite_file(path: str) -> None:
    """Create an empty database file with mode 0600 unless something is there. Its directory must exist.

    An existing file is not even opened: closing it would drop the locks this process holds on it through SQLite.
    Raises DatabaseUnavailable when the file cannot be made.
    """
    problem = None
    try:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        problem = error.strerror
    if problem is not None:
        raise DatabaseUnavailable(f"the SQLite file {path} cannot be created: {problem}; check its directory")


def _connector(url: URL) -> Any:
    def connect(dialect: Dialect, _record: Any, cargs: tuple[Any, ...], cparams: dict[str, Any]) -> DBAPIConnection:
        try:
            return _connect_sqlite(url) if dialect.name == "sqlite" else _connect_postgres(dialect, cargs, cparams)
        except dialect.loaded_dbapi.Error as error:
            problem, passing = connect_problem(url, error), may_pass(url, error)
        # Raised out here, so that not even the hidden context of the exception carries the driver's error.
        raise (DatabaseNotReady if passing else DatabaseUnavailable)(problem)

    return connect


def _connect_sqlite(url: URL) -> Any:
    # mode=rw: SQLite must never create a file on its own, with whatever mode the umask gives.
    uri = f"file:{quote(os.fsencode(str(url.database)))}?mode=rw"
    # No isolation level: transactions begin in `_begin_sqlite` and nowhere else, whatever sqlite3's version would do.
    raw = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        for statement in _SQLITE_SETUP:
            raw.execute(statement).close()
    except BaseException:
        raw.close()
        raise
    return raw


def _connect_postgres(dialect: Dialect, cargs: tuple[Any, ...], cparams: dict[str, Any]) -> Any:
    # Here, because who has no Postgres imports no driver.
    from cleanup_dagster.database.calendar import take_every_year
    from cleanup_dagster.database.patience import PatientConnection

    defaults: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "cleanup_dagster",
        "connection_factory": PatientConnection,
        # A server that vanished without a word is noticed in about a minute instead of in two hours.
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
    }
    raw: Any = dialect.connect(*cargs, **(defaults | cparams))
    take_every_year(raw)
    try:
        with raw.cursor() as cursor:
            for statement in _POSTGRES_SETUP:
                cursor.execute(statement)
        raw.commit()
    except BaseException:
        raw.close()
        raise
    return raw


def _begin_sqlite(conn: Connection) -> None:
    read_only = bool(conn.get_execution_options().get(_READ_ONLY, False))
    conn.exec_driver_sql(f"PRAGMA query_only = {int(read_only)}")
    # IMMEDIATE: two transactions that both read and then write would otherwise deadlock, and one be thrown out.
    conn.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _translator(url: URL) -> Any:
    def translate(context: ExceptionContext) -> BaseException | None:
        if context.is_pre_ping:
            return None  # the pool reconnects by itself; failing that, the connector speaks
        error = context.original_exception
        if not isinstance(error, context.dialect.loaded_dbapi.Error):
            return None
        sqlite = url.get_backend_name() == "sqlite"
        problem = sqlite_problem(url, error) if sqlite else postgres_problem(url, error, context.is_disconnect)
        return None if problem is None else DatabaseUnavailable(problem)

    return translate
