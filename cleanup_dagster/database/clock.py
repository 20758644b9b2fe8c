"""The database's clock, the second opinion on the host's."""

from sqlalchemy import Connection, func, select

from cleanup_dagster.retention.times import to_ns


def database_now_ns(conn: Connection) -> int | None:
    """Return the Postgres server's time; None on SQLite, whose clock is the host's and would agree with any mistake."""
    if conn.dialect.name != "postgresql":
        return None
    return to_ns(conn.execute(select(func.clock_timestamp())).scalar_one())
