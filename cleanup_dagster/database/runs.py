"""The runs: reserved before anything happens, kept warm by heartbeats, ended once by whoever gets there first."""

from enum import Enum
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import Connection, Row, func, select, update

from cleanup_dagster.database.moments import ns_or_none
from cleanup_dagster.database.tables import cleanup_run_targets, cleanup_runs, insert_new
from cleanup_dagster.retention.models import CleanupType
from cleanup_dagster.retention.times import from_ns, to_ns

_RUNS = cleanup_runs.c
_TARGETS = cleanup_run_targets.c


class RunStatus(str, Enum):
    """Where a run stands. `interrupted` is said by its successor, which found it dead."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    INTERRUPTED = "interrupted"


class RunTotals(Struct, frozen=True):
    """What a run did over all its targets: `expired` is what the plan wanted gone, `deleted` what went; in bytes."""

    scanned_files: int = 0
    expired_files: int = 0
    expired_bytes: int = 0
    deleted_files: int = 0
    freed_bytes: int = 0
    failed_files: int = 0


class RunRecord(Struct, frozen=True):
    """One row of `cleanup_runs`. `plan_of` is the dry run whose reviewed plan this one applies.

    `state_id` is the state directory that has the run's manifests. Recovery belongs to whoever has it: a host's name
    changes with every new container.
    """

    run_id: str
    cleanup_type: CleanupType
    dry_run: bool
    status: RunStatus
    host: str
    state_id: str
    pid: int
    started_ns: int
    heartbeat_ns: int
    executed_by: str
    finished_ns: int | None
    plan_of: str | None
    totals: RunTotals
    message: str


class LiveHistory(Struct, frozen=True):
    """Whether live cleanups succeed: when the first of them started and the latest success ended, in ns.

    `automatic` says that a schedule or sensor has started one; `latest` is the one that ended last, however it ended.
    """

    first_started_ns: int | None
    last_success_ns: int | None
    automatic: bool
    latest: RunRecord | None


def reserve_run(
    conn: Connection,
    *,
    run_id: str,
    cleanup_type: CleanupType,
    dry_run: bool,
    host: str,
    state_id: str,
    pid: int,
    executed_by: str,
    now_ns: int,
    plan_of: str | None = None,
) -> bool:
    """Write the row of a run that starts now; False when the id is taken, and then nothing has changed."""
    row = insert_new(conn, cleanup_runs).values(
        run_id=run_id,
        cleanup_type=cleanup_type.value,
        dry_run=dry_run,
        status=RunStatus.RUNNING.value,
        host=host,
        state_id=state_id,
        pid=pid,
        started_at=from_ns(now_ns),
        heartbeat_at=from_ns(now_ns),
        executed_by=executed_by,
        plan_of=plan_of,
    )
    return conn.execute(row).rowcount == 1


def heartbeat(conn: Connection, run_id: str, now_ns: int) -> bool:
    """Say that the run lives; False when it no longer counts as running, and then its holder must stop."""
    return _while_running(conn, run_id, {"heartbeat_at": from_ns(now_ns)})


def finish_run(
    conn: Connection, run_id: str, status: RunStatus, message: str, totals: RunTotals | None, now_ns: int
) -> bool:
    """End a running run; False when it had already ended, and then nothing has changed.

    Fencing a dead one is the same step with status `interrupted`. None for `totals` leaves the figures. Raises
    ValueError for the status `running`.
    """
    if status is RunStatus.RUNNING:
        raise ValueError("a run cannot end in the status 'running'")
    figures: dict[str, int] = {} if totals is None else asdict(totals)
    ending = {"status": status.value, "message": message, "finished_at": from_ns(now_ns)}
    return _while_running(conn, run_id, {**ending, **figures})


def get_run(conn: Connection, run_id: str) -> RunRecord | None:
    """Return one run, or None when there is none of that id."""
    row = conn.execute(select(cleanup_runs).where(_RUNS.run_id == run_id)).one_or_none()
    return None if row is None else _record(row)


def find_runs(conn: Connection, prefix: str = "", limit: int | None = None, offset: int = 0) -> list[RunRecord]:
    """Return the runs whose id begins with `prefix`, newest first, dry ones and restores too."""
    found = select(cleanup_runs).order_by(_RUNS.started_at.desc(), _RUNS.run_id).limit(limit).offset(offset)
    if prefix:
        found = found.where(_RUNS.run_id.startswith(prefix, autoescape=True))
    return [_record(row) for row in conn.execute(found)]


def count_runs(conn: Connection) -> dict[tuple[CleanupType, bool, RunStatus], int]:
    """Return how many runs there are by type, by whether they were dry, and by status."""
    kinds = (_RUNS.cleanup_type, _RUNS.dry_run, _RUNS.status)
    counted = select(*kinds, func.count()).group_by(*kinds)
    return {
        (CleanupType(kind), dry_run, RunStatus(status)): number
        for kind, dry_run, status, number in conn.execute(counted)
    }


def unfinished_live_runs(conn: Connection) -> list[RunRecord]:
    """Return the live runs that never ended, oldest first: the one at work, and those that died."""
    alive = select(cleanup_runs).where(_RUNS.status == RunStatus.RUNNING.value, _RUNS.dry_run.is_(False))
    return [_record(row) for row in conn.execute(alive.order_by(_RUNS.started_at, _RUNS.run_id))]


def live_history(conn: Connection) -> LiveHistory:
    """Return what the live cleanups so far say; restores are none."""
    live = _RUNS.dry_run.is_(False) & (_RUNS.cleanup_type != CleanupType.RESTORE.value)
    first = select(func.min(_RUNS.started_at)).where(live)
    success = select(func.max(_RUNS.finished_at)).where(live, _RUNS.status == RunStatus.DONE.value)
    automatic = select(_RUNS.run_id).where(live, _RUNS.cleanup_type == CleanupType.AUTOMATIC.value).limit(1)
    latest = select(cleanup_runs).where(live, _RUNS.finished_at.is_not(None)).order_by(_RUNS.finished_at.desc())
    row = conn.execute(latest.limit(1)).one_or_none()
    return LiveHistory(
        ns_or_none(conn.execute(first).scalar_one()),
        ns_or_none(conn.execute(success).scalar_one()),
        conn.execute(automatic).first() is not None,
        None if row is None else _record(row),
    )


def last_run_started(conn: Connection, excluding: str | None = None) -> int | None:
    """Return when the latest run started (ns), dry or live, leaving out the run id `excluding`; None without any."""
    latest = select(func.max(_RUNS.started_at))
    if excluding is not None:
        latest = latest.where(_RUNS.run_id != excluding)
    return ns_or_none(conn.execute(latest).scalar_one())


def recent_deletions(conn: Connection, target: str, root: str, limit: int = 7) -> list[int]:
    """Return how many files the target's latest live runs deleted below `root`, newest first.

    Only runs that ended by themselves and deleted something: a broken-off count or a quiet day says nothing of growth.
    """
    latest = (
        select(_TARGETS.deleted_files)
        .join(cleanup_runs, _RUNS.run_id == _TARGETS.run_id)
        .where(
            _TARGETS.target == target,
            _TARGETS.root == root,
            _TARGETS.deleted_files > 0,
            _RUNS.dry_run.is_(False),
            _RUNS.status.in_([RunStatus.DONE.value, RunStatus.FAILED.value]),
        )
        .order_by(_RUNS.started_at.desc(), _RUNS.run_id.desc())
        .limit(limit)
    )
    return list(conn.execute(latest).scalars())


def _while_running(conn: Connection, run_id: str, values: dict[str, Any]) -> bool:
    running = (_RUNS.run_id == run_id) & (_RUNS.status == RunStatus.RUNNING.value)
    return conn.execute(update(cleanup_runs).where(running).values(**values)).rowcount == 1


def _record(row: Row[Any]) -> RunRecord:
    return RunRecord(
        run_id=row.run_id,
        cleanup_type=CleanupType(row.cleanup_type),
        dry_run=row.dry_run,
        status=RunStatus(row.status),
        host=row.host,
        state_id=row.state_id,
        pid=row.pid,
        started_ns=to_ns(row.started_at),
        heartbeat_ns=to_ns(row.heartbeat_at),
        executed_by=row.executed_by,
        finished_ns=ns_or_none(row.finished_at),
        plan_of=row.plan_of,
        totals=RunTotals(
            scanned_files=row.scanned_files,
            expired_files=row.expired_files,
            expired_bytes=row.expired_bytes,
            deleted_files=row.deleted_files,
            freed_bytes=row.freed_bytes,
            failed_files=row.failed_files,
        ),
        message=row.message,
    )
