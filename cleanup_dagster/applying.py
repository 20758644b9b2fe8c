"""Carrying out a plan: one target's backup with its committed intent, then its deletion, each under the live lock."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from msgspec import structs

from cleanup_dagster.backups.files import BackupError, open_file_backups, replica_of
from cleanup_dagster.backups.manifest import (
    WHOLE,
    Header,
    Kind,
    ManifestError,
    ManifestRef,
    Part,
    join_segments,
    segment_of,
    verify_manifest,
    write_manifest,
)
from cleanup_dagster.backups.packed import remove_archives
from cleanup_dagster.carrying import BackUpTask, Copied, DeleteTask, back_up_part, delete_part
from cleanup_dagster.collectors import deletion
from cleanup_dagster.collectors.deletion import CurrentHolds, Totals
from cleanup_dagster.database import run_targets
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.errors import DatabaseUnavailable
from cleanup_dagster.database.run_targets import Intent
from cleanup_dagster.filesystem.place import place_of
from cleanup_dagster.filesystem.quarantine import open_quarantine
from cleanup_dagster.filesystem.tree import open_root
from cleanup_dagster.handles import BackedUp, Counts, Deleted, Plan, counts_of, merge, total
from cleanup_dagster.installation import Installation, Progress, RunRefusedError
from cleanup_dagster.retention.holds import HoldMatcher
from cleanup_dagster.retention.models import Tally
from cleanup_dagster.run_history.settling import settle_runs
from cleanup_dagster.run_history.store import is_runs_root
from cleanup_dagster.settling import Settled, discard_target, settle_target, slots_of
from cleanup_dagster.workers import WORTH_WORKERS, Job, results_of, run_shards

HEARTBEAT_SECONDS = 2.0  # a commit per batch would cost 15 us a file on SQLite


def back_up_target(installation: Installation, plan: Plan, progress: Progress) -> BackedUp:
    """Back up what a plan deletes, and commit the intent to delete it.

    Raises BackupError, ManifestError, RootError, UnsafeDirectoryError, OSError, DatabaseUnavailable or RunRefusedError;
    then no intent is committed, and the caller removes the copies again.
    """
    if plan.manifest is None:
        raise RunRefusedError(f"{plan.target} has no plan to back up")
    installation.require_live(plan.run)
    verify_manifest(plan.manifest)
    run_id, state = plan.run.request.run_id, installation.state
    request = plan.run.request
    directory = "" if request.skip_backup else str(installation.backup_directory(request))
    with open_root(Path(plan.root)) as root:
        header = structs.replace(header_of(installation, plan, Kind.RECEIPTS, directory), place=place_of(root))
    task = BackUpTask(
        plan.manifest,
        run_id,
        plan.target,
        plan.root,
        directory,
        installation.writes_archives(request, plan.target),
        state.receipts(run_id, plan.target),
        header,
        state.skipped(run_id, plan.target),
        header_of(installation, plan, Kind.OUTCOMES),
        WHOLE,
    )
    alive = with_heartbeat(installation, plan, progress)
    with ExitStack() as stack:
        # The parts' copies are swept here, too: one of them may have been killed.
        kept = stack.enter_context(open_file_backups(Path(directory), run_id)) if directory else None
        parts = _parts(installation, plan.deletable.files)
        done = back_up_part(task, alive) if len(parts) == 1 else _back_up_in_parts(installation, task, parts, alive)
        if kept is not None and done.copied:
            kept.keep_replica(task.receipts, plan.target)
        elif kept is not None:
            remove_archives(kept, run_id, plan.target)
    if not done.copied:
        return BackedUp(plan, None, done.copied, done.counts)
    commit_intent(installation, plan, done.receipts, total(done.copied.values()), directory)
    return BackedUp(plan, done.receipts, done.copied, done.counts)


def _parts(installation: Installation, files: int) -> list[Part]:
    """Return the parts that are carried out side by side: one, unless there are enough files to pay for more."""
    of = installation.settings.workers if files >= WORTH_WORKERS else 1
    return [Part(number, of) for number in range(of)]


def _back_up_in_parts(
    installation: Installation, task: BackUpTask, parts: Sequence[Part], progress: Progress
) -> Copied:
    with (
        write_manifest(task.receipts, task.receipts_header) as receipts,
        write_manifest(task.skipped, task.skipped_header) as skipped,
    ):
        receipts.sync()  # before the first copy: where its segments are not joined, they are found by it
        jobs = [
            Job(
                "back_up",
                structs.replace(
                    task,
                    receipts=segment_of(task.receipts, part.number),
                    receipts_header=None,
                    skipped=segment_of(task.skipped, part.number),
                    skipped_header=None,
                    part=part,
                ),
            )
            for part in parts
        ]
        ended = run_shards(jobs, progress, partial(progress, 0), installation.kept_open)
        done = results_of(ended, Copied)
        copied, counts = dict[str, Tally](), dict[str, Counts]()
        for one in done:
            counts = merge(counts, one.counts)
            for data_type, tally in one.copied.items():
                copied[data_type] = copied.get(data_type, Tally()).plus(tally.files, tally.bytes)
        return Copied(
            join_segments(receipts, [one.receipts for one in done]),
            join_segments(skipped, [one.skipped for one in done]),
            copied,
            counts,
        )


def commit_intent(installation: Installation, plan: Plan, receipts: ManifestRef, copied: Tally, directory: str) -> None:
    """Promise the deletion. A lost connection leaves it open whether the commit went through; asking again tells."""
    run_id = plan.run.request.run_id
    try:
        with installation.database.begin() as conn:
            committed = run_targets.commit_intent(
                conn,
                run_id,
                plan.target,
                manifest=receipts.path,
                sha256=receipts.sha256,
                rows=receipts.rows,
                backup_directory=directory or None,
                backup_files=copied.files if directory else 0,
                backup_bytes=copied.bytes if directory else 0,
                now_ns=installation.clock(),
            )
    except DatabaseUnavailable:
        with reading(installation.database) as conn:
            intent = run_targets.intent_of(conn, run_id, plan.target)
        committed = intent is not None and intent.sha256 == receipts.sha256
    if not committed:
        raise RunRefusedError(f"run {run_id} was ended from outside, so its intent was not taken")


def withdraw(installation: Installation, plan: Plan) -> None:
    """Remove the copies of a target whose backup failed. Raises unless it is known that no intent was committed."""
    run_id = plan.run.request.run_id
    with reading(installation.database) as conn:
        promised = run_targets.intent_of(conn, run_id, plan.target)
    if promised is not None:
        raise ManifestError(f"the intent of {plan.target} is in the database")
    discard_target(installation, run_id, plan.target)


def settle_now(installation: Installation, plan: Plan) -> Settled:
    """Account for a deletion that broke off in this run. Raises as `settle_target` does, and DatabaseUnavailable."""
    with reading(installation.database) as conn:
        intent = run_targets.intent_of(conn, plan.run.request.run_id, plan.target)
    if intent is None:
        return Settled({})
    now_ns = installation.clock()
    if is_runs_root(plan.root):
        with installation.run_store() as store:
            return settle_runs(installation.state, intent, store, now_ns)
    return settle_target(installation.state, intent, installation.holds(plan.root, now_ns), now_ns)


def committed_intent(installation: Installation, plan: Plan, receipts: ManifestRef) -> Intent:
    """Return the promise to carry out `receipts`, under the live lock: without it nothing may be taken.

    Raises RunRefusedError when the database does not know these receipts, ManifestError when they are not the bytes
    that were promised, else as `Installation.require_live` does.
    """
    installation.require_live(plan.run)
    with reading(installation.database) as conn:
        intent = run_targets.intent_of(conn, plan.run.request.run_id, plan.target)
    if intent is None or intent.sha256 != receipts.sha256:
        raise RunRefusedError(f"the intent of {plan.target} is not the one in the database; nothing of it was deleted")
    verify_manifest(receipts)
    return intent


def delete_target(installation: Installation, backed_up: BackedUp, progress: Progress) -> Deleted:
    """Delete what the committed receipts name.

    Raises BackupError, ManifestError, RootError, OSError, DatabaseUnavailable or RunRefusedError; then what was in hand
    is finished or put back, and recovery accounts for the rest.
    """
    plan, receipts = backed_up.plan, backed_up.receipts
    if receipts is None:
        return Deleted(plan, backed_up.copied, backed_up.counts)
    intent = committed_intent(installation, plan, receipts)
    run_id, state = plan.run.request.run_id, installation.state
    alive = with_heartbeat(installation, plan, progress)

    def current_holds() -> HoldMatcher:
        require_backups(intent)
        return installation.holds(plan.root, plan.run.now_ns)

    with ExitStack() as stack:
        root = stack.enter_context(open_root(Path(plan.root)))
        parts = _parts(installation, receipts.rows)
        quarantines = [stack.enter_context(open_quarantine(root, part.number)) for part in parts]
        tasks = [
            DeleteTask(
                receipts.path,
                plan.root,
                (quarantine.fd, quarantine.name),
                slots_of(intent),
                state.outcomes(run_id, plan.target, part),
                structs.replace(header_of(installation, plan, Kind.OUTCOMES), part=part, batch=deletion.BATCH),
                current_holds(),
                installation.target(plan.target).remove_empty_dirs,
            )
            for part, quarantine in zip(parts, quarantines, strict=True)
        ]
        if len(tasks) == 1:
            totals = delete_part(tasks[0], current_holds, alive)
        else:
            totals = _delete_in_parts(installation, tasks, current_holds, alive)
    return Deleted(
        plan,
        backed_up.copied,
        merge(backed_up.counts, counts_of(totals.by_state)),
        tuple(sorted(totals.open_checks)),
        totals.directories_removed,
    )


def require_backups(intent: Intent) -> None:
    """Raise BackupError unless the copies' directory still is where it was: a disk may be unmounted in mid-run."""
    directory = intent.backup_directory
    if directory and not replica_of(Path(directory), intent.run_id, intent.target).is_file():
        raise BackupError(f"the copies in {directory} are not there any more, so no further deletion is started")


def _delete_in_parts(
    installation: Installation, tasks: Sequence[DeleteTask], current_holds: CurrentHolds, progress: Progress
) -> Totals:
    """Delete in worker processes, which hear of the holds as they are now, and no longer of them when that is over."""

    def tick() -> HoldMatcher:
        progress(0)
        return current_holds()

    jobs = [Job("delete", task) for task in tasks]
    inherited = (*installation.kept_open, *(task.quarantine[0] for task in tasks))
    totals = Totals()
    for part in results_of(run_shards(jobs, progress, tick, inherited), Totals):
        totals.merge(part)
    return totals


def header_of(installation: Installation, plan: Plan, kind: Kind, directory: str = "") -> Header:
    """Return the header of one of a plan's manifests."""
    request = plan.run.request
    return Header(
        kind,
        request.run_id,
        plan.target,
        plan.root,
        installation.clock(),
        directory,
        request.cleanup_type.value,
        request.executed_by,
    )


def with_heartbeat(installation: Installation, plan: Plan, progress: Progress) -> Progress:
    """Return `progress` with a sign of life beside it every few seconds, which raises when the run may not go on."""
    due = time.monotonic() + HEARTBEAT_SECONDS

    def report(count: int) -> None:
        nonlocal due
        progress(count)
        if time.monotonic() >= due:
            installation.sign_of_life(plan.run)
            due = time.monotonic() + HEARTBEAT_SECONDS

    return report
