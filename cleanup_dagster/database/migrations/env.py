"""Alembic's entry: runs the revisions inside the transaction that `schema.upgrade` has opened and locked."""

from alembic import context

from cleanup_dagster.database.schema import VERSION_TABLE
from cleanup_dagster.database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # Dagster's own migrations use the default name, and the two may share a database.
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
