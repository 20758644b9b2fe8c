"""The audit: one row per live run and data type, written once and never changed."""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, Row, and_, exists, func, literal, select

from cleanup_dagster.database.moments import ns_or_none
from cleanup_dagster.database.tables import cleanup_audit, insert_new
from cleanup_dagster.retention.times import from_ns

_AUDIT = cleanup_audit.c
#: An outcome that took nothing away, by design or by a guardrail.
REFUSED = "refused"


class AuditRow(Struct, frozen=True):
    """What one run did to one data type. `outcome` is done, failed, refused or recovered; sizes are bytes.

    Rows older than this package have an empty `run_id`.
    """

    run_id: str
    data_type: str
    cleanup_type: str
    outcome: str
    executed_ns: int
    executed_by: str
    records_deleted: int = 0
    space_freed_bytes: int = 0
    records_failed: int = 0
    records_skipped: int = 0
    backup_bytes: int = 0
    open_check: str = ""
    manifest: str = ""
    message: str = ""


class AuditTotals(Struct, frozen=True):
    """All cleanups of one data type together. `last_cleanup_ns` is the latest that was not refused, if any."""

    last_cleanup_ns: int | None
    total_cleaned: int
    space_saved: int
    failed: int = 0


def append(conn: Connection, rows: Iterable[AuditRow]) -> int:
    """Write the rows whose run and data type are not there yet, leave the others alone, and return how many are new."""
    return sum(_append(conn, row) for row in rows)


def history(
    conn: Connection, limit: int | None, *, of_run: str | None = None, since_ns: int | None = None
) -> list[AuditRow]:
    """Return the latest `limit` rows (None: all), newest first, of one run or from a moment on when that is given."""
    latest = select(cleanup_audit).order_by(_AUDIT.executed_at.desc(), _AUDIT.id.desc()).limit(limit)
    if of_run is not None:
        latest = latest.where(_AUDIT.run_id == of_run)
    if since_ns is not None:
        latest = latest.where(_AUDIT.executed_at >= from_ns(since_ns))
    return [_row(row) for row in conn.execute(latest)]


def _row(row: Row[Any]) -> AuditRow:
    return AuditRow(
        run_id=row.run_id or "",
        data_type=row.data_type,
        cleanup_type=row.cleanup_type,
        outcome=row.outcome,
        executed_ns=ns_or_none(row.executed_at) or 0,
        executed_by=row.executed_by or "",
        records_deleted=row.records_deleted or 0,
        space_freed_bytes=row.space_freed_bytes or 0,
        records_failed=row.records_failed,
        records_skipped=row.records_skipped,
        backup_bytes=row.backup_bytes,
        open_check=row.open_check,
        manifest=row.manifest,
        message=row.message,
    )


def totals(conn: Connection) -> dict[str, AuditTotals]:
    """Return the totals by data type, for the data types that have any row."""
    summed = select(
        _AUDIT.data_type,
        func.max(_AUDIT.executed_at).filter(_AUDIT.outcome != REFUSED).label("last"),
        func.sum(_AUDIT.records_deleted).label("files"),
        func.sum(_AUDIT.space_freed_bytes).label("bytes"),
        func.sum(_AUDIT.records_failed).label("failed"),
    ).group_by(_AUDIT.data_type)
    # Postgres sums bigints into a Decimal.
    return {
        row.data_type: AuditTotals(ns_or_none(row.last), int(row.files or 0), int(row.bytes or 0), int(row.failed or 0))
        for row in conn.execute(summed)
    }


def _append(conn: Connection, row: AuditRow) -> int:
    values = {
        _AUDIT.run_id: row.run_id,
        _AUDIT.data_type: row.data_type,
        _AUDIT.cleanup_type: row.cleanup_type,
        _AUDIT.outcome: row.outcome,
        _AUDIT.executed_at: from_ns(row.executed_ns),
        _AUDIT.executed_by: row.executed_by,
        _AUDIT.records_deleted: row.records_deleted,
        _AUDIT.space_freed_bytes: row.space_freed_bytes,
        _AUDIT.records_failed: row.records_failed,
        _AUDIT.records_skipped: row.records_skipped,
        _AUDIT.backup_bytes: row.backup_bytes,
        _AUDIT.open_check: row.open_check,
        _AUDIT.manifest: row.manifest,
        _AUDIT.message: row.message,
    }
    # The WHERE comes before ON CONFLICT because SQLite's trigger against REPLACE fires before the conflict is seen;
    # ON CONFLICT covers two Postgres transactions that both find nothing.
    there = exists().where(and_(_AUDIT.run_id == row.run_id, _AUDIT.data_type == row.data_type))
    fresh = select(*[literal(value, col.type) for col, value in values.items()]).where(~there)
    return conn.execute(insert_new(conn, cleanup_audit).from_select(list(values), fresh)).rowcount
