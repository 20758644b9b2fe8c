"""The tables, once for SQLite and Postgres. `migrations/` creates them; a test holds the two descriptions together."""

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

from cleanup_dagster.database.moments import stored_moment

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

_NOW = text("CURRENT_TIMESTAMP")
_ZERO = text("0")
_EMPTY = text("''")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: aware in, aware UTC out; naive UTC text on SQLite, `timestamptz` on Postgres.

    Binding a naive datetime raises ValueError. Text that a person wrote into SQLite is read as ISO 8601, UTC unless it
    says otherwise; what is no moment at all raises ValueError.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return text for SQLite, whose columns know no time, and the zoned timestamp elsewhere."""
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Return `value` as the database stores it. Raises ValueError for a naive datetime."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} names no time zone; the database stores moments, so give one, e.g. UTC")
        moment = value.astimezone(timezone.utc)
        # A fixed width keeps the order of the texts the order of the moments.
        return moment.replace(tzinfo=None).isoformat(" ", "microseconds") if dialect.name == "sqlite" else moment

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - the base's signature
        """Return the stored moment in UTC. Raises ValueError for text that is none."""
        return None if value is None else stored_moment(value)


metadata = MetaData()

#: Edited by people with plain SQL, therefore without CHECK: `policies` judges each row when it is read.
cleanup_policies = Table(
    "cleanup_policies",
    metadata,
    Column("data_type", Text, primary_key=True),
    Column("retention_days", Integer),
    Column("enabled", Boolean),
    Column("keep_last", Integer, nullable=False, server_default=_ZERO),
    Column("description", Text, nullable=False, server_default=_EMPTY),
    Column("created_at", UtcDateTime, nullable=False, server_default=_NOW),
    Column("updated_at", UtcDateTime, nullable=False, server_default=_NOW),
)

#: Insert-only: triggers refuse anything else. `run_id` is NULL only in rows older than this package.
cleanup_audit = Table(
    "cleanup_audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("data_type", Text, nullable=False),
    Column("cleanup_type", Text, nullable=False),
    Column("records_deleted", Integer, nullable=False, server_default=_ZERO),
    Column("space_freed_bytes", BigInteger, nullable=False, server_default=_ZERO),
    Column("executed_at", UtcDateTime, nullable=False, server_default=_NOW),
    Column("executed_by", Text, nullable=False, server_default=_EMPTY),
    Column("run_id", Text),
    Column("outcome", Text, nullable=False, server_default=text("'done'")),
    Column("records_failed", Integer, nullable=False, server_default=_ZERO),
    Column("records_skipped", Integer, nullable=False, server_default=_ZERO),
    Column("backup_bytes", BigInteger, nullable=False, server_default=_ZERO),
    Column("open_check", Text, nullable=False, server_default=_EMPTY),
    Column("manifest", Text, nullable=False, server_default=_EMPTY),
    Column("message", Text, nullable=False, server_default=_EMPTY),
    Index("cleanup_audit_run_data_type", "run_id", "data_type", unique=True),
    sqlite_autoincrement=True,
)

cleanup_runs = Table(
    "cleanup_runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("cleanup_type", Text, nullable=False),
    Column("dry_run", Boolean, nullable=False),
    Column("status", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("state_id", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("heartbeat_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("executed_by", Text, nullable=False),
    Column("plan_of", Text),
    Column("scanned_files", BigInteger, nullable=False, server_default=_ZERO),
    Column("expired_files", BigInteger, nullable=False, server_default=_ZERO),
    Column("expired_bytes", BigInteger, nullable=False, server_default=_ZERO),
    Column("deleted_files", BigInteger, nullable=False, server_default=_ZERO),
    Column("freed_bytes", BigInteger, nullable=False, server_default=_ZERO),
    Column("failed_files", BigInteger, nullable=False, server_default=_ZERO),
    Column("message", Text, nullable=False, server_default=_EMPTY),
)

cleanup_run_targets = Table(
    "cleanup_run_targets",
    metadata,
    Column("run_id", Text, ForeignKey("cleanup_runs.run_id"), primary_key=True),
    Column("target", Text, primary_key=True),
    Column("root", Text, nullable=False),
    Column("scanned_files", BigInteger, nullable=False),
    Column("scanned_bytes", BigInteger, nullable=False),
    Column("expired_files", BigInteger, nullable=False),
    Column("expired_bytes", BigInteger, nullable=False),
    Column("deleted_files", BigInteger, nullable=False, server_default=_ZERO),
    Column("freed_bytes", BigInteger, nullable=False, server_default=_ZERO),
    Column("receipts_manifest", Text),
    Column("receipts_sha256", Text),
    Column("receipts_rows", BigInteger),
    Column("intent_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("backup_directory", Text),
    Column("backup_files", BigInteger, nullable=False, server_default=_ZERO),
    Column("backup_bytes", BigInteger, nullable=False, server_default=_ZERO),
    Column("backups_pruned_at", UtcDateTime),
)

cleanup_holds = Table(
    "cleanup_holds",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("pattern", Text, nullable=False),
    Column("data_type", Text),
    Column("pipeline", Text),
    Column("reason", Text, nullable=False, server_default=_EMPTY),
    Column("placed_by", Text, nullable=False, server_default=_EMPTY),
    Column("placed_at", UtcDateTime, nullable=False, server_default=_NOW),
    Column("until", UtcDateTime),
    sqlite_autoincrement=True,
)

cleanup_policy_changes = Table(
    "cleanup_policy_changes",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("data_type", Text, nullable=False),
    Column("changed_by", Text, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    Column("action", Text, nullable=False),
    Column("old", Text),
    Column("new", Text),
    sqlite_autoincrement=True,
)

cleanup_installation = Table(
    "cleanup_installation",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", UtcDateTime, nullable=False, server_default=_NOW),
)


def insert_new(conn: Connection, table: Table) -> "postgresql.Insert | sqlite.Insert":
    """Return an INSERT into `table` that leaves a row alone whose unique key is already there."""
    # Imported here: the other dialect, asyncio drivers included, costs a twentieth of a second at every start.
    if conn.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table).on_conflict_do_nothing()
