"""Finishing what runs that died had begun: the first thing the next live run does, under the lock of live runs.

A target without a committed intent lost nothing: its copies are removed again. A target with one is settled. A run that
only the manifests know (the database was lost, or is an older copy) is settled from them alone, and one that only the
database knows (the state directory was lost) from the replicas of its receipts.
"""

import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from msgspec import structs

from cleanup_dagster.backups.files import BackupError, open_file_backups, replica_of
from cleanup_dagster.backups.manifest import Header, ManifestError, hash_manifest, read_header, read_manifest
from cleanup_dagster.backups.restore import sweep
from cleanup_dagster.database import audit, run_targets
from cleanup_dagster.database.audit import AuditRow
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.holds import load_holds
from cleanup_dagster.database.run_targets import Intent
from cleanup_dagster.database.runs import (
    RunRecord,
    RunStatus,
    RunTotals,
    finish_run,
    get_run,
    unfinished_live_runs,
)
from cleanup_dagster.filesystem.names import to_text
from cleanup_dagster.filesystem.private import UnsafeDirectoryError
from cleanup_dagster.filesystem.tree import RootError, open_root
from cleanup_dagster.handles import Counts, Request, merge, total
from cleanup_dagster.installation import Installation, RunRefusedError
from cleanup_dagster.retention.holds import HoldMatcher
from cleanup_dagster.retention.models import CleanupType, Hold, Receipt, Tally
from cleanup_dagster.run_history.settling import settle_runs
from cleanup_dagster.run_history.store import RunStoreError, is_runs_root
from cleanup_dagster.settling import Settled, discard_target, find_receipts, settle_target

_MET = (BackupError, ManifestError, OSError, RootError, RunStoreError, UnsafeDirectoryError)


def recover_all(installation: Installation) -> Iterator[str]:
    """Settle every run that died here, and yield a sentence about each. Needs the lock.

    Runs of another host are left alone: their files and manifests are not here to judge by.
    Raises RunRefusedError when a run cannot be settled; nothing else may be deleted before it is.
    """
    yield from _discard_leftovers(installation)
    with reading(installation.database) as conn:
        unfinished = unfinished_live_runs(conn)
        active_holds = load_holds(conn)
    for run in [*unfinished, *_unknown_runs(installation)]:
        try:
            if _is_ours(installation, run):
                yield _recover_run(installation, run, active_holds)
        except (*_MET, ValueError) as error:  # a ValueError is a name in the database that leads elsewhere
            raise RunRefusedError(
                f"run {run.run_id} was interrupted and cannot be settled: {error}; "
                "nothing more is deleted until that is mended"
            ) from None


def _discard_leftovers(installation: Installation) -> Iterator[str]:
    """Remove the copies of runs that were settled while their backup directory was away, should it be back."""
    for run_id in installation.state.unended_runs():
        with reading(installation.database) as conn:
            run = get_run(conn, run_id)
            promised = {intent.target for intent in run_targets.intents(conn, run_id)}
        if run is None or run.status is RunStatus.RUNNING:
            continue
        problems = [
            problem
            for target in map(read_target, installation.state.all_receipts(run_id))
            if target not in promised and not installation.state.all_outcomes(run_id, target)
            if (problem := _discard(installation, run_id, target))
        ]
        if not problems:
            installation.state.mark_ended(run_id)
        yield from (f"run {run_id} had been interrupted and is settled, but {problem}" for problem in problems)


def _discard(installation: Installation, run_id: str, target: str) -> str:
    """Remove the copies of a target that never promised anything; say why, if they have to wait.

    That blocks nothing: no file was deleted on their account, and the next run looks after a directory of its own.
    """
    try:
        discard_target(installation, run_id, target)
    except (BackupError, OSError, UnsafeDirectoryError) as error:
        return f"its copies of {target} stay until a later run can remove them: {error}"
    return ""


def _is_ours(installation: Installation, run: RunRecord) -> bool:
    """Tell whether an unfinished run is this host's to settle.

    It is when this state directory has its manifests. When the state directory was lost, the host's name and a replica
    of the receipts, which only the host with the copies has, say so together.
    """
    if run.state_id == installation.state.id:
        return True
    if run.host != socket.gethostname():
        return False
    with reading(installation.database) as conn:
        intents = run_targets.intents(conn, run.run_id)
    return bool(intents) and all(find_receipts(installation.state, intent) is not None for intent in intents)


def _unknown_runs(installation: Installation) -> Iterator[RunRecord]:
    """Yield the runs whose manifests are here, which never ended, and which the database does not know."""
    for run_id in installation.state.unended_runs():
        with reading(installation.database) as conn:
            if get_run(conn, run_id) is not None:
                continue
        yield _reconstructed(installation, run_id)


def _reconstructed(installation: Installation, run_id: str) -> RunRecord:
    headers: list[Header] = []
    for path in installation.state.all_receipts(run_id):
        with suppress(ManifestError):  # the power went before the header was on the disk
            headers.append(read_header(path))
    started_ns = min((header.made_at_ns for header in headers), default=installation.clock())
    cleanup_type = CleanupType(headers[0].cleanup_type or "manual") if headers else CleanupType.MANUAL
    executed_by = headers[0].executed_by if headers else ""
    installation.reserve(Request(run_id, cleanup_type, False, executed_by), started_ns)
    with reading(installation.database) as conn:
        run = get_run(conn, run_id)
    assert run is not None, "it was reserved just now"  # noqa: S101
    return run


def _intents(installation: Installation, run: RunRecord) -> dict[str, Intent]:
    with reading(installation.database) as conn:
        intents = {intent.target: intent for intent in run_targets.intents(conn, run.run_id)}
        planned = run_targets.targets_of(conn, run.run_id)
    for path in installation.state.all_receipts(run.run_id):
        target = read_target(path)
        # Outcomes are begun only after the intent was committed: with them, a database without it is an older copy.
        promised = bool(installation.state.all_outcomes(run.run_id, target))
        if target not in intents and (promised or target not in planned):
            intent = _intent_of(installation, run, path, promised=promised)
            if intent is not None:
                intents[target] = intent
    return intents


def _intent_of(installation: Installation, run: RunRecord, receipts: Path, *, promised: bool) -> Intent | None:
    """Return the intent that the database lost, from the receipts or their replica, and write it there again.

    None when the receipts are cut off, so that no intent was ever committed. With `promised` they are damaged instead,
    and an intent is returned whose receipts count as lost, so that no copy goes.
    """
    target = read_target(receipts)
    places = installation.settings.backup_directories
    for path in (receipts, *(replica_of(place, run.run_id, target) for place in places)):
        try:
            header, sums = read_header(path), Tally()
            for receipt in read_manifest(path, Receipt):
                sums = sums.plus(1, receipt.identity.size)
        except ManifestError:
            continue
        _write_intent(installation, header, path, sums)
        with reading(installation.database) as conn:
            return next(i for i in run_targets.intents(conn, run.run_id) if i.target == target)
    if not promised:
        return None
    header = read_header(installation.state.all_outcomes(run.run_id, target)[0])
    directory = str(installation.settings.backup.directory)
    return Intent(run.run_id, target, header.root, str(receipts), "", 0, header.made_at_ns, directory, None)


def _write_intent(installation: Installation, header: Header, receipts: Path, sums: Tally) -> None:
    with installation.database.begin() as conn:
        run_targets.record_plan(conn, header.run_id, header.target, header.root, sums, sums)
        run_targets.commit_intent(
            conn,
            header.run_id,
            header.target,
            manifest=str(receipts),
            sha256=hash_manifest(receipts),
            rows=sums.files,
            backup_directory=header.backup_directory or None,
            backup_files=sums.files if header.backup_directory else 0,
            backup_bytes=sums.bytes if header.backup_directory else 0,
            now_ns=header.made_at_ns,
        )


def _recover_run(installation: Installation, run: RunRecord, active_holds: list[Hold]) -> str:
    now_ns = installation.clock()
    intents = _intents(installation, run)
    with reading(installation.database) as conn:
        planned = run_targets.targets_of(conn, run.run_id)
    in_state = [read_target(path) for path in installation.state.all_receipts(run.run_id)]
    settled: dict[str, Settled] = {}
    waiting: list[str] = []
    for target in sorted({*planned, *in_state, *intents}):
        intent = intents.get(target)
        if intent is None:
            waiting += filter(None, [_discard(installation, run.run_id, target)])
        elif intent.finished_ns is None and is_runs_root(intent.root):
            with installation.run_store() as store:
                settled[target] = settle_runs(installation.state, intent, store, now_ns)
        elif intent.finished_ns is None:
            holds = HoldMatcher(active_holds, to_text(intent.root), now_ns)
            settled[target] = settle_target(installation.state, intent, holds, now_ns)
    _sweep_staged(installation, run, intents.values())
    if run.cleanup_type is CleanupType.RESTORE:
        _sweep_unfinished(installation)
    _write_audit(installation, run, settled, now_ns)
    if not waiting:
        installation.state.mark_ended(run.run_id)
    deleted = total(counts.deleted for one in settled.values() for counts in one.counts.values())
    problems = "".join(f"; {problem}" for problem in [*(one.problem for one in settled.values()), *waiting] if problem)
    return f"run {run.run_id} had been interrupted; it is settled, with {deleted.files:,} files deleted{problems}"


def _sweep_staged(installation: Installation, run: RunRecord, intents: Iterable[Intent]) -> None:
    """Remove the copies that got no name: nothing was deleted on their account, and no manifest tells of them."""
    places = {Path(intent.backup_directory) for intent in intents if intent.backup_directory}
    for directory in sorted({*installation.settings.backup_directories, *places}):
        # One that cannot be used now costs room, no file: the run's own backup will say what is wrong with it.
        with suppress(OSError, UnsafeDirectoryError):
            if directory.is_dir():
                with open_file_backups(directory, run.run_id):
                    pass  # sweeps when it closes


def _sweep_unfinished(installation: Installation) -> None:
    for target in installation.settings.targets:
        with suppress(OSError, RootError), open_root(target.root) as root:
            sweep(root)


def read_target(receipts: Path) -> str:
    """Return the target whose receipts a file holds, by its name."""
    return receipts.name.removesuffix(".receipts.jsonl.zst")


def _write_audit(installation: Installation, run: RunRecord, settled: dict[str, Settled], now_ns: int) -> None:
    """Audit an interrupted run and end it, in one transaction: both are there or neither."""
    merged: dict[str, Counts] = {}
    for one in settled.values():
        merged = merge(merged, one.counts)
    deleted = total(counts.deleted for counts in merged.values())
    failed = total(counts.failed for counts in merged.values())
    sums = RunTotals(deleted_files=deleted.files, freed_bytes=deleted.bytes, failed_files=failed.files)
    problems = [one.problem for one in settled.values() if one.problem]
    message = "; ".join(["the run was interrupted, and the next one settled it", *problems])
    checks = ", ".join(sorted({check for one in settled.values() for check in one.open_checks}))
    blank = AuditRow(
        run_id=run.run_id,
        data_type="",
        cleanup_type=run.cleanup_type.value,
        outcome="recovered",
        executed_ns=now_ns,
        executed_by=run.executed_by,
        open_check=checks,
        manifest=str(installation.state.manifests(run.run_id)),
        message=message,
    )
    with installation.database.begin() as conn:
        for target, one in settled.items():
            if one.receipts_lost:  # without them its backups can neither be listed nor pruned
                continue
            gone = total(counts.deleted for counts in one.counts.values())
            run_targets.finish_target(conn, run.run_id, target, gone, now_ns)
        audit.append(conn, [_row(blank, data_type, counts) for data_type, counts in merged.items()])
        finish_run(conn, run.run_id, RunStatus.INTERRUPTED, message, sums, now_ns)


def _row(blank: AuditRow, data_type: str, counts: Counts) -> AuditRow:
    deleted: Tally = counts.deleted
    return structs.replace(
        blank,
        data_type=data_type,
        records_deleted=deleted.files,
        space_freed_bytes=deleted.bytes,
        records_failed=counts.failed.files,
        records_skipped=counts.skipped.files,
    )
