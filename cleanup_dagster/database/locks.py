"""One live run at a time, across hosts: a lock that the server itself releases when its holder dies."""

from collections.abc import Generator
from contextlib import contextmanager, suppress

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from cleanup_dagster.database.errors import DatabaseUnavailable

#: "cleanupd" in ASCII, and for migrations "cleanupu". Postgres keeps advisory locks apart per database.
RUN_LOCK_KEY = int.from_bytes(b"cleanupd", "big")
UPGRADE_LOCK_KEY = int.from_bytes(b"cleanupu", "big")

# How pg_locks shows a lock whose key is one 64-bit number.
_HELD = text(
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND ((classid::bigint << 32) | objid::bigint) = :key AND objsubid = 1"
)


class AdvisoryLock:
    """The outcome of asking for the lock: true when acquired (always on SQLite, where flock is the authority)."""

    def __init__(self, acquired: bool, conn: Connection | None = None) -> None:
        self.acquired = acquired
        self._conn = conn

    def __bool__(self) -> bool:
        return self.acquired

    def still_held(self) -> bool:
        """Ask the server whether this connection lives and holds the lock; False whenever there is doubt.

        Not thread-safe. True on SQLite while acquired.
        """
        if not self.acquired or self._conn is None:
            return self.acquired
        try:
            return bool(self._conn.execute(_HELD, {"key": RUN_LOCK_KEY}).scalar_one())
        except (SQLAlchemyError, DatabaseUnavailable):
            return False


@contextmanager
def advisory_lock(engine: Engine) -> Generator[AdvisoryLock]:
    """Try to take the run lock, without waiting, and hold it on a connection of its own until the block ends.

    A connection pooler in transaction mode would break the promise: connect to Postgres itself.
    Raises DatabaseUnavailable when the database cannot be reached.
    """
    if engine.dialect.name != "postgresql":
        yield AdvisoryLock(acquired=True)
        return
    # AUTOCOMMIT: an open transaction would hold back vacuum for as long as the run takes.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        # Detached, it is closed and not pooled afterwards: whatever happens, the lock cannot outlive the block.
        conn.detach()
        acquired = conn.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": RUN_LOCK_KEY}).scalar_one()
        try:
            yield AdvisoryLock(bool(acquired), conn)
        finally:
            if acquired:
                with suppress(SQLAlchemyError, DatabaseUnavailable):
                    conn.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": RUN_LOCK_KEY})
