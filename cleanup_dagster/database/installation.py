"""Which installation this database belongs to; the state directory carries the same id."""

from sqlalchemy import Connection, select

from cleanup_dagster.database.errors import SchemaMismatch
from cleanup_dagster.database.tables import cleanup_installation


def installation_id(conn: Connection) -> str:
    """Return the id made when the schema was first created. Raises SchemaMismatch unless there is exactly one."""
    found = list(conn.execute(select(cleanup_installation.c.id)).scalars())
    if len(found) != 1:
        raise SchemaMismatch(
            f"cleanup_installation holds {len(found)} rows where exactly one belongs; restore it from a copy"
        )
    return found[0]
