"""Finishing what a run that died had begun: the first thing the next live run does, under the lock of live runs.

A target without a committed intent lost nothing: its copies are removed again. A target with one is settled from its
receipts, which the database vouches for by their sha256, and from what is in place, in quarantine or gone.
"""

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from msgspec import Struct

from cleanup_dagster.backups.files import BackupError, open_file_backups
from cleanup_dagster.backups.manifest import (
    Header,
    Kind,
    ManifestError,
    ManifestRef,
    read_header,
    read_manifest,
    verify_manifest,
    write_manifest,
)
from cleanup_dagster.collectors.deletion import Totals, discard_backups, recover
from cleanup_dagster.database import audit, run_targets
from cleanup_dagster.database.audit import AuditRow
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.holds import load_holds
from cleanup_dagster.database.run_targets import Intent
from cleanup_dagster.database.runs import RunRecord, RunStatus, RunTotals, finish_run, unfinished_live_runs
from cleanup_dagster.filesystem.private import UnsafeDirectoryError
from cleanup_dagster.filesystem.quarantine import Quarantine, left_quarantines, reopen_quarantine
from cleanup_dagster.filesystem.tree import Directories, RootError, open_root
from cleanup_dagster.handles import Counts, merge, total
from cleanup_dagster.installation import Installation, RunRefusedError
from cleanup_dagster.retention.holds import HoldMatcher
from cleanup_dagster.retention.models import Hold, Outcome, Receipt, State, Tally
from cleanup_dagster.state import StateDirectory


def recover_all(installation: Installation) -> Iterator[str]:
    """Settle every run of this state directory that died, and yield a sentence about each. Needs the lock.

    Runs of another state directory are left alone: their files and manifests are not here to judge by.
    Raises RunRefusedError when a run cannot be settled; nothing else may be deleted before it is.
    """
    with reading(installation.database) as conn:
        dead = [run for run in unfinished_live_runs(conn) if run.state_id == installation.state.id]
        active_holds = load_holds(conn)
    for run in dead:
        try:
            yield _recover_run(installation, run, active_holds)
        except (BackupError, ManifestError, OSError, RootError, UnsafeDirectoryError) as error:
            raise RunRefusedError(
                f"run {run.run_id} was interrupted and cannot be settled: {error}; "
                "nothing more is deleted until that is mended"
            ) from None


class Settled(Struct, frozen=True):
    """What became of one interrupted target: the outcomes it had written and those found now, together."""

    counts: dict[str, Counts]
    open_checks: tuple[str, ...] = ()


def _recover_run(installation: Installation, run: RunRecord, active_holds: list[Hold]) -> str:
    now_ns = installation.clock()
    with reading(installation.database) as conn:
        intents = {intent.target: intent for intent in run_targets.intents(conn, run.run_id)}
        planned = run_targets.targets_of(conn, run.run_id)
    settled: dict[str, Settled] = {}
    for target in planned:
        intent = intents.get(target)
        if intent is None:
            discard_target(installation, run.run_id, target)
        elif intent.finished_ns is None:
            holds = HoldMatcher(active_holds, intent.root, now_ns)
            settled[target] = settle_target(installation.state, intent, holds, now_ns)
    _write_audit(installation, run, settled, now_ns)
    deleted = total(counts.deleted for one in settled.values() for counts in one.counts.values())
    return f"run {run.run_id} had been interrupted; it is settled now, with {deleted.files:,} files deleted"


def _write_audit(installation: Installation, run: RunRecord, settled: dict[str, Settled], now_ns: int) -> None:
    """Audit an interrupted run and end it, in one transaction: both are there or neither."""
    merged: dict[str, Counts] = {}
    for one in settled.values():
        merged = merge(merged, one.counts)
    checks = ", ".join(sorted({check for one in settled.values() for check in one.open_checks}))
    rows = [
        AuditRow(
            run_id=run.run_id,
            data_type=data_type,
            cleanup_type=run.cleanup_type.value,
            outcome="recovered",
            executed_ns=now_ns,
            executed_by=run.executed_by,
            records_deleted=counts.deleted.files,
            space_freed_bytes=counts.deleted.bytes,
            records_failed=counts.failed.files,
            records_skipped=counts.skipped.files,
            open_check=checks,
            manifest=str(installation.state.manifests(run.run_id)),
            message="the run was interrupted, and the next one settled it",
        )
        for data_type, counts in merged.items()
    ]
    deleted = total(counts.deleted for counts in merged.values())
    failed = total(counts.failed for counts in merged.values())
    sums = RunTotals(deleted_files=deleted.files, freed_bytes=deleted.bytes, failed_files=failed.files)
    with installation.database.begin() as conn:
        for target, one in settled.items():
            gone = total(counts.deleted for counts in one.counts.values())
            run_targets.finish_target(conn, run.run_id, target, gone, now_ns)
        audit.append(conn, rows)
        finish_run(conn, run.run_id, RunStatus.INTERRUPTED, "interrupted; the next run settled it", sums, now_ns)


def settle_target(state: StateDirectory, intent: Intent, holds: HoldMatcher, now_ns: int) -> Settled:
    """Settle one target whose intent was committed. Idempotent.

    Raises:
        ManifestError: its receipts are gone or not the recorded ones.
        RootError: its root cannot be opened.
        OSError: the disk fails.
    """
    manifest = Path(intent.manifest)
    verify_manifest(ManifestRef(intent.manifest, intent.sha256, intent.rows))
    totals = Totals()
    outcomes = state.outcomes(intent.run_id, intent.target)
    settled = 0
    for outcome in _written(outcomes):
        totals.add(outcome)
        settled += 1
    header = Header(Kind.OUTCOMES, intent.run_id, intent.target, intent.root, now_ns)
    with (
        open_root(Path(intent.root)) as root,
        closing(Directories(root)) as directories,
        _quarantine_of(intent, root) as quarantine,
        write_manifest(state.next_recovery(intent.run_id, intent.target), header) as recovered,
    ):
        receipts = read_manifest(manifest, Receipt)
        found = recover(receipts, settled, directories, quarantine, slots_of(intent), holds, recovered)
        recovered.close()
    counts = merge(counts_of(totals), counts_of(found))
    return Settled(counts, tuple(sorted({*totals.open_checks, *found.open_checks})))


def slots_of(intent: Intent) -> str:
    """Return the prefix of a target's names in the quarantine: unique to a run and target."""
    return f"{intent.run_id}.{intent.target}"


@contextmanager
def _quarantine_of(intent: Intent, root: int) -> Generator[Quarantine | None]:
    """Open the quarantine that holds this target's files, or yield None when nothing of it is left."""
    for name in left_quarantines(root):
        with reopen_quarantine(root, name) as quarantine:
            if quarantine is not None and quarantine.holds(slots_of(intent)):
                yield quarantine
                return
    yield None


def discard_target(installation: Installation, run_id: str, target: str) -> None:
    """Remove the copies of a target that never committed its intent, and its receipts: it deleted nothing.

    Raises BackupError, UnsafeDirectoryError or OSError when the backup directory cannot be used.
    """
    receipts = installation.state.receipts(run_id, target)
    if not receipts.exists():
        return
    try:
        directory = read_header(receipts).backup_directory
    except ManifestError:  # the power went before the header was on the disk
        directory = str(installation.settings.backup.directory)
    if directory and Path(directory).is_dir():
        with open_file_backups(Path(directory), run_id) as store:  # sweeps what was staged when it closes
            discard_backups(read_manifest(receipts, Receipt, torn=True), store)
    receipts.unlink()


def counts_of(totals: Totals) -> dict[str, Counts]:
    """Return totals by data type."""
    states: dict[str, dict[State, Tally]] = {}
    for (data_type, state), tally in totals.by_state.items():
        states.setdefault(data_type, {})[state] = tally
    return {data_type: Counts(by_state) for data_type, by_state in states.items()}


def _written(outcomes: Path) -> Iterator[Outcome]:
    return read_manifest(outcomes, Outcome, torn=True) if outcomes.exists() else iter(())
