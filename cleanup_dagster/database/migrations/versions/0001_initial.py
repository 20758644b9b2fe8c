"""The first schema. It adopts `cleanup_policies` and `cleanup_audit` of the platform's first script where they exist.

Written out rather than taken from `tables`, because a revision must keep meaning what it meant when it was released.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from cleanup_dagster.database.errors import UPGRADE, SchemaMismatch

revision = "0001_initial"
down_revision = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")
_NOW = sa.text("CURRENT_TIMESTAMP")

_SQLITE_TRIGGERS = (
    """CREATE TRIGGER IF NOT EXISTS cleanup_audit_no_update BEFORE UPDATE ON cleanup_audit
    BEGIN SELECT RAISE(ABORT, 'cleanup_audit is insert-only: UPDATE refused'); END""",
    """CREATE TRIGGER IF NOT EXISTS cleanup_audit_no_delete BEFORE DELETE ON cleanup_audit
    BEGIN SELECT RAISE(ABORT, 'cleanup_audit is insert-only: DELETE refused'); END""",
    # REPLACE deletes without the trigger above on a connection that has not set recursive_triggers.
    """CREATE TRIGGER IF NOT EXISTS cleanup_audit_no_replace BEFORE INSERT ON cleanup_audit
    WHEN EXISTS (
        SELECT 1 FROM cleanup_audit WHERE id = NEW.id OR (run_id = NEW.run_id AND data_type = NEW.data_type)
    )
    BEGIN SELECT RAISE(ABORT, 'cleanup_audit is insert-only: this row is already there'); END""",
)

_POSTGRES_TRIGGERS = (
    """CREATE OR REPLACE FUNCTION cleanup_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'cleanup_audit is insert-only: % refused', TG_OP; END $$""",
    "DROP TRIGGER IF EXISTS cleanup_audit_no_change ON cleanup_audit",
    """CREATE TRIGGER cleanup_audit_no_change BEFORE UPDATE OR DELETE ON cleanup_audit
    FOR EACH ROW EXECUTE FUNCTION cleanup_audit_refuse()""",
    "DROP TRIGGER IF EXISTS cleanup_audit_no_truncate ON cleanup_audit",
    """CREATE TRIGGER cleanup_audit_no_truncate BEFORE TRUNCATE ON cleanup_audit
    FOR EACH STATEMENT EXECUTE FUNCTION cleanup_audit_refuse()""",
    # ALWAYS: `SET session_replication_role = replica` must not switch them off.
    "ALTER TABLE cleanup_audit ENABLE ALWAYS TRIGGER cleanup_audit_no_change",
    "ALTER TABLE cleanup_audit ENABLE ALWAYS TRIGGER cleanup_audit_no_truncate",
)


def upgrade() -> None:
    """Create or adopt every table. Raises SchemaMismatch for an existing table that cannot be adopted."""
    _policies()
    _audit()
    _runs()
    _run_targets()
    _holds()
    _policy_changes()
    _create(
        "cleanup_installation",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("created_at", _MOMENT, nullable=False, server_default=_NOW),
    )
    sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in _SQLITE_TRIGGERS if sqlite else _POSTGRES_TRIGGERS:
        op.execute(statement)


def _policies() -> None:
    _create(
        "cleanup_policies",
        sa.Column("data_type", sa.Text(), primary_key=True),
        sa.Column("retention_days", sa.Integer()),
        sa.Column("enabled", sa.Boolean()),
        _count("keep_last", sa.Integer()),
        _words("description"),
        sa.Column("created_at", _MOMENT, nullable=False, server_default=_NOW),
        sa.Column("updated_at", _MOMENT, nullable=False, server_default=_NOW),
        ours=("keep_last",),
    )


def _audit() -> None:
    _create(
        "cleanup_audit",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("data_type", sa.Text(), nullable=False),
        sa.Column("cleanup_type", sa.Text(), nullable=False),
        _count("records_deleted", sa.Integer()),
        _count("space_freed_bytes"),
        sa.Column("executed_at", _MOMENT, nullable=False, server_default=_NOW),
        _words("executed_by"),
        sa.Column("run_id", sa.Text()),
        _words("outcome", "'done'"),
        _count("records_failed", sa.Integer()),
        _count("records_skipped", sa.Integer()),
        _count("backup_bytes"),
        _words("open_check"),
        _words("manifest"),
        _words("message"),
        ours=(
            "run_id",
            "outcome",
            "records_failed",
            "records_skipped",
            "backup_bytes",
            "open_check",
            "manifest",
            "message",
        ),
    )
    op.create_index(
        "cleanup_audit_run_data_type", "cleanup_audit", ["run_id", "data_type"], unique=True, if_not_exists=True
    )


def _runs() -> None:
    _create(
        "cleanup_runs",
        sa.Column("run_id", sa.Text(), primary_key=True),
        sa.Column("cleanup_type", sa.Text(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("state_id", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", _MOMENT, nullable=False),
        sa.Column("heartbeat_at", _MOMENT, nullable=False),
        sa.Column("finished_at", _MOMENT),
        sa.Column("executed_by", sa.Text(), nullable=False),
        sa.Column("plan_of", sa.Text()),
        _count("scanned_files"),
        _count("expired_files"),
        _count("expired_bytes"),
        _count("deleted_files"),
        _count("freed_bytes"),
        _count("failed_files"),
        _words("message"),
    )


def _run_targets() -> None:
    _create(
        "cleanup_run_targets",
        sa.Column("run_id", sa.Text(), sa.ForeignKey("cleanup_runs.run_id"), primary_key=True),
        sa.Column("target", sa.Text(), primary_key=True),
        sa.Column("root", sa.Text(), nullable=False),
        sa.Column("scanned_files", sa.BigInteger(), nullable=False),
        sa.Column("scanned_bytes", sa.BigInteger(), nullable=False),
        sa.Column("expired_files", sa.BigInteger(), nullable=False),
        sa.Column("expired_bytes", sa.BigInteger(), nullable=False),
        _count("deleted_files"),
        _count("freed_bytes"),
        sa.Column("receipts_manifest", sa.Text()),
        sa.Column("receipts_sha256", sa.Text()),
        sa.Column("receipts_rows", sa.BigInteger()),
        sa.Column("intent_at", _MOMENT),
        sa.Column("finished_at", _MOMENT),
        sa.Column("backup_directory", sa.Text()),
        _count("backup_files"),
        _count("backup_bytes"),
        sa.Column("backups_pruned_at", _MOMENT),
    )


def _holds() -> None:
    _create(
        "cleanup_holds",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("pattern", sa.Text(), nullable=False),
        sa.Column("data_type", sa.Text()),
        sa.Column("pipeline", sa.Text()),
        _words("reason"),
        _words("placed_by"),
        sa.Column("placed_at", _MOMENT, nullable=False, server_default=_NOW),
        sa.Column("until", _MOMENT),
    )


def _policy_changes() -> None:
    _create(
        "cleanup_policy_changes",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("data_type", sa.Text(), nullable=False),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.Column("changed_at", _MOMENT, nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("old", sa.Text()),
        sa.Column("new", sa.Text()),
    )


def _count(name: str, kind: sa.types.TypeEngine[int] | None = None) -> sa.Column[Any]:
    return sa.Column(name, kind or sa.BigInteger(), nullable=False, server_default=sa.text("0"))


def _words(name: str, default: str = "''") -> sa.Column[Any]:
    return sa.Column(name, sa.Text(), nullable=False, server_default=sa.text(default))


def _create(name: str, *columns: sa.Column[Any], ours: tuple[str, ...] = ()) -> None:
    """Create the table, or add the columns `ours` to the one that is there and has the others."""
    inspector = sa.inspect(op.get_bind())
    if not inspector.has_table(name):
        op.create_table(name, *columns, sqlite_autoincrement=True)
        return
    present = {column["name"] for column in inspector.get_columns(name)}
    missing = [column for column in columns if column.name not in present]
    foreign = [column.name for column in missing if column.name not in ours]
    key = [column.name for column in columns if column.primary_key]
    if foreign or inspector.get_pk_constraint(name)["constrained_columns"] != key:
        wrong = f"lacks the column {foreign[0]}" if foreign else f"has a primary key other than ({', '.join(key)})"
        raise SchemaMismatch(f"the existing table {name} {wrong}; rename the table, then run `{UPGRADE}` again")
    for column in missing:
        op.add_column(name, column)
