"""What one run planned, promised and did in one target. Nothing goes before the promise, its intent, is committed."""

from datetime import datetime

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from cleanup_dagster.database.moments import ns_or_none
from cleanup_dagster.database.runs import RunStatus
from cleanup_dagster.database.tables import cleanup_audit, cleanup_run_targets, cleanup_runs
from cleanup_dagster.retention.models import Tally
from cleanup_dagster.retention.times import from_ns, to_ns

_AUDIT = cleanup_audit.c
_RUNS = cleanup_runs.c
_TARGETS = cleanup_run_targets.c


class Intent(Struct, frozen=True):
    """A committed promise: the `rows` receipts in `manifest`, a file with this sha256, were about to be carried out."""

    run_id: str
    target: str
    root: str
    manifest: str
    sha256: str
    rows: int
    intent_ns: int
    backup_directory: str | None
    finished_ns: int | None


class KeptBackups(Struct, frozen=True):
    """Backups of one target of one run that still lie in `directory`. `manifest` names each of them."""

    run_id: str
    target: str
    root: str
    directory: str
    manifest: str
    sha256: str
    rows: int
    files: int
    bytes: int
    host: str
    state_id: str
    run_started_ns: int
    finished_ns: int


class TargetRecord(Struct, frozen=True):
    """What a live run planned and did in one target. `finished_ns` is None while nobody has settled it."""

    target: str
    root: str
    scanned_files: int
    expired_files: int
    expired_bytes: int
    deleted_files: int
    freed_bytes: int
    backup_files: int
    backup_bytes: int
    finished_ns: int | None


def record_plan(conn: Connection, run_id: str, target: str, root: str, scanned: Tally, expired: Tally) -> bool:
    """Write what the run means to do in a target, in place of an earlier plan of the same run.

    False when the run has already committed its intent there; then nothing has changed.
    """
    conn.execute(delete(cleanup_run_targets).where(_is(run_id, target), _TARGETS.intent_at.is_(None)))
    if conn.execute(select(_TARGETS.run_id).where(_is(run_id, target))).first() is not None:
        return False
    conn.execute(
        insert(cleanup_run_targets).values(
            run_id=run_id,
            target=target,
            root=root,
            scanned_files=scanned.files,
            scanned_bytes=scanned.bytes,
            expired_files=expired.files,
            expired_bytes=expired.bytes,
        )
    )
    return True


def commit_intent(
    conn: Connection,
    run_id: str,
    target: str,
    *,
    manifest: str,
    sha256: str,
    rows: int,
    backup_directory: str | None,
    backup_files: int,
    backup_bytes: int,
    now_ns: int,
) -> bool:
    """Promise to carry out the `rows` receipts of `manifest`. Only after True and the commit may anything be taken.

    False, with nothing changed, when the run is dry, has ended or was fenced, planned nothing here, or has already
    promised (after a lost connection, `intents` tells whether an earlier attempt went through).
    """
    # Locked, so that fencing the run and this promise cannot both succeed at the same moment.
    run = select(_RUNS.status, _RUNS.dry_run).where(_RUNS.run_id == run_id).with_for_update(read=True)
    row = conn.execute(run).one_or_none()
    if row is None or row.dry_run or row.status != RunStatus.RUNNING.value:
        return False
    promise = (
        update(cleanup_run_targets)
        .where(_is(run_id, target), _TARGETS.intent_at.is_(None))
        .values(
            receipts_manifest=manifest,
            receipts_sha256=sha256,
            receipts_rows=rows,
            intent_at=from_ns(now_ns),
            backup_directory=backup_directory,
            backup_files=backup_files,
            backup_bytes=backup_bytes,
        )
    )
    return conn.execute(promise).rowcount == 1


def finish_target(conn: Connection, run_id: str, target: str, deleted: Tally, now_ns: int) -> bool:
    """Write what went, once every receipt is accounted for; False when that was already written.

    Works for an interrupted run too: recovery ends its targets.
    """
    done = (
        update(cleanup_run_targets)
        .where(_is(run_id, target), _TARGETS.finished_at.is_(None))
        .values(deleted_files=deleted.files, freed_bytes=deleted.bytes, finished_at=from_ns(now_ns))
    )
    return conn.execute(done).rowcount == 1


def intents(conn: Connection, run_id: str) -> list[Intent]:
    """Return the run's committed intents by target, finished ones (`finished_ns`) too."""
    promised = select(cleanup_run_targets).where(_TARGETS.run_id == run_id, _TARGETS.intent_at.is_not(None))
    return [
        Intent(
            run_id=row.run_id,
            target=row.target,
            root=row.root,
            manifest=row.receipts_manifest,
            sha256=row.receipts_sha256,
            rows=row.receipts_rows,
            intent_ns=to_ns(row.intent_at),
            backup_directory=row.backup_directory,
            finished_ns=ns_or_none(row.finished_at),
        )
        for row in conn.execute(promised.order_by(_TARGETS.target))
    ]


def intent_of(conn: Connection, run_id: str, target: str) -> Intent | None:
    """Return the run's committed intent in one target, finished or not; None where it promised nothing."""
    return next((intent for intent in intents(conn, run_id) if intent.target == target), None)


def list_targets(conn: Connection, run_id: str) -> list[TargetRecord]:
    """Return what a live run planned and did, target by target."""
    rows = conn.execute(select(cleanup_run_targets).where(_TARGETS.run_id == run_id).order_by(_TARGETS.target))
    return [
        TargetRecord(
            target=row.target,
            root=row.root,
            scanned_files=row.scanned_files,
            expired_files=row.expired_files,
            expired_bytes=row.expired_bytes,
            deleted_files=row.deleted_files,
            freed_bytes=row.freed_bytes,
            backup_files=row.backup_files,
            backup_bytes=row.backup_bytes,
            finished_ns=ns_or_none(row.finished_at),
        )
        for row in rows
    ]


def targets_of(conn: Connection, run_id: str) -> list[str]:
    """Return the targets that a live run has planned, with or without an intent."""
    planned = select(_TARGETS.target).where(_TARGETS.run_id == run_id).order_by(_TARGETS.target)
    return list(conn.execute(planned).scalars())


def unpruned_backups(conn: Connection, before: datetime) -> list[KeptBackups]:
    """Return the backups of runs that started before `before` (aware), oldest first.

    Those of a running run, and of a target that nobody has finished, are left out: recovery may still need them.
    """
    kept = (
        select(cleanup_run_targets, _RUNS.started_at, _RUNS.host, _RUNS.state_id)
        .join(cleanup_runs, _RUNS.run_id == _TARGETS.run_id)
        .where(
            _RUNS.started_at < before,
            _RUNS.status != RunStatus.RUNNING.value,
            _TARGETS.finished_at.is_not(None),
            _TARGETS.backup_directory.is_not(None),
            _TARGETS.receipts_manifest.is_not(None),
            _TARGETS.backup_files > 0,
            _TARGETS.backups_pruned_at.is_(None),
        )
        .order_by(_RUNS.started_at, _RUNS.run_id, _TARGETS.target)
    )
    return [
        KeptBackups(
            run_id=row.run_id,
            target=row.target,
            root=row.root,
            directory=row.backup_directory,
            manifest=row.receipts_manifest,
            sha256=row.receipts_sha256,
            rows=row.receipts_rows,
            files=row.backup_files,
            bytes=row.backup_bytes,
            host=row.host,
            state_id=row.state_id,
            run_started_ns=to_ns(row.started_at),
            finished_ns=to_ns(row.finished_at),
        )
        for row in conn.execute(kept)
    ]


def held_bytes(conn: Connection, state_id: str) -> dict[str, int]:
    """Return by data type how many bytes of deleted files the backups of one state directory still hold."""
    kept = (
        select(_TARGETS.run_id)
        .join(cleanup_runs, _RUNS.run_id == _TARGETS.run_id)
        .where(_RUNS.state_id == state_id, _TARGETS.backup_files > 0, _TARGETS.backups_pruned_at.is_(None))
    )
    sums = (
        select(_AUDIT.data_type, func.sum(_AUDIT.backup_bytes))
        .where(_AUDIT.run_id.in_(kept), _AUDIT.backup_bytes > 0)
        .group_by(_AUDIT.data_type)
    )
    return {data_type: int(held) for data_type, held in conn.execute(sums)}


def mark_pruned(conn: Connection, run_id: str, target: str, now_ns: int) -> bool:
    """Note that the target's backups are gone; False when that was noted before, or there is no such row."""
    pruned = (
        update(cleanup_run_targets)
        .where(_is(run_id, target), _TARGETS.backups_pruned_at.is_(None))
        .values(backups_pruned_at=from_ns(now_ns))
    )
    return conn.execute(pruned).rowcount == 1


def _is(run_id: str, target: str) -> ColumnElement[bool]:
    return (_TARGETS.run_id == run_id) & (_TARGETS.target == target)
