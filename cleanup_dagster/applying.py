"""Carrying out a plan: one target's backup with its committed intent, then its deletion, each under the live lock."""

import time
from contextlib import ExitStack, closing
from pathlib import Path

from msgspec import structs

from cleanup_dagster.backups.files import BackupError, open_file_backups, replica_of
from cleanup_dagster.backups.manifest import (
    Header,
    Kind,
    ManifestError,
    ManifestRef,
    read_manifest,
    verify_manifest,
    write_manifest,
)
from cleanup_dagster.backups.packed import ArchiveBackups, archive_name
from cleanup_dagster.backups.store import Store
from cleanup_dagster.collectors.deletion import Totals, back_up, delete
from cleanup_dagster.database import run_targets
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.errors import DatabaseUnavailable
from cleanup_dagster.database.holds import load_holds
from cleanup_dagster.database.run_targets import Intent
from cleanup_dagster.filesystem.names import to_text
from cleanup_dagster.filesystem.place import place_of
from cleanup_dagster.filesystem.quarantine import open_quarantine
from cleanup_dagster.filesystem.tree import Directories, open_root
from cleanup_dagster.handles import BackedUp, Deleted, Plan, merge, total
from cleanup_dagster.installation import Installation, Progress, RunRefusedError
from cleanup_dagster.retention.holds import HoldMatcher
from cleanup_dagster.retention.models import Receipt, Tally, Verdict
from cleanup_dagster.settling import Settled, counts_of, discard_target, settle_target, slots_of

_HEARTBEAT_SECONDS = 2.0  # a commit per batch would cost 15 us a file on SQLite


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
    with ExitStack() as stack:
        root = stack.enter_context(open_root(Path(plan.root)))
        directories = stack.enter_context(closing(Directories(root)))
        # First the store: receipts that were begun without one would have to be settled by opening it after all.
        kept = stack.enter_context(open_file_backups(Path(directory), run_id)) if directory else None
        store: Store | None = kept
        if kept is not None and installation.writes_archives(request, plan.target):
            store = stack.enter_context(closing(ArchiveBackups(kept, run_id, plan.target)))
        header = structs.replace(_header(installation, plan, Kind.RECEIPTS, directory), place=place_of(root))
        receipts = stack.enter_context(write_manifest(state.receipts(run_id, plan.target), header))
        header = _header(installation, plan, Kind.OUTCOMES)
        skipped = stack.enter_context(write_manifest(state.skipped(run_id, plan.target), header))
        verdicts = read_manifest(Path(plan.manifest.path), Verdict)
        alive = _with_heartbeat(installation, plan, progress)
        copied, totals = back_up(verdicts, directories, store, receipts, skipped, alive)
        skipped.close()
        reference = receipts.close()
        if kept is not None and copied:
            kept.keep_replica(Path(reference.path), plan.target)
        elif kept is not None:
            kept.remove(archive_name(run_id, plan.target))
    if not copied:
        return BackedUp(plan, None, copied, counts_of(totals))
    _commit_intent(installation, plan, reference, total(copied.values()), directory)
    return BackedUp(plan, reference, copied, counts_of(totals))


def _commit_intent(
    installation: Installation, plan: Plan, receipts: ManifestRef, copied: Tally, directory: str
) -> None:
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
            found = [i for i in run_targets.intents(conn, run_id) if i.target == plan.target]
        committed = bool(found) and found[0].sha256 == receipts.sha256
    if not committed:
        raise RunRefusedError(f"run {run_id} was ended from outside, so its intent was not taken")


def withdraw(installation: Installation, plan: Plan) -> None:
    """Remove the copies of a target whose backup failed. Raises unless it is known that no intent was committed."""
    run_id = plan.run.request.run_id
    with reading(installation.database) as conn:
        promised = [i for i in run_targets.intents(conn, run_id) if i.target == plan.target]
    if promised:
        raise ManifestError(f"the intent of {plan.target} is in the database")
    discard_target(installation, run_id, plan.target)


def settle_now(installation: Installation, plan: Plan) -> Settled:
    """Account for a deletion that broke off in this run. Raises as `settle_target` does, and DatabaseUnavailable."""
    with reading(installation.database) as conn:
        found = [i for i in run_targets.intents(conn, plan.run.request.run_id) if i.target == plan.target]
        active_holds = load_holds(conn)
    if not found:
        return Settled({})
    now_ns = installation.clock()
    return settle_target(installation.state, found[0], HoldMatcher(active_holds, to_text(plan.root), now_ns), now_ns)


def delete_target(installation: Installation, backed_up: BackedUp, progress: Progress) -> Deleted:
    """Delete what the committed receipts name.

    Raises BackupError, ManifestError, RootError, OSError, DatabaseUnavailable or RunRefusedError; then what was in hand
    is finished or put back, and recovery accounts for the rest.
    """
    plan, receipts = backed_up.plan, backed_up.receipts
    if receipts is None:
        return Deleted(plan, backed_up.copied, backed_up.counts)
    installation.require_live(plan.run)
    run_id, state = plan.run.request.run_id, installation.state
    with reading(installation.database) as conn:
        intent = next((i for i in run_targets.intents(conn, run_id) if i.target == plan.target), None)
    if intent is None or intent.sha256 != receipts.sha256:
        raise RunRefusedError(f"the intent of {plan.target} is not the one in the database; nothing of it was deleted")
    verify_manifest(receipts)
    totals = Totals()
    alive = _with_heartbeat(installation, plan, progress)

    def current_holds() -> HoldMatcher:
        _require_backups(intent)
        with reading(installation.database) as conn:
            return HoldMatcher(load_holds(conn), to_text(plan.root), plan.run.now_ns)

    with ExitStack() as stack:
        root = stack.enter_context(open_root(Path(plan.root)))
        directories = stack.enter_context(closing(Directories(root)))
        quarantine = stack.enter_context(open_quarantine(root))
        header = _header(installation, plan, Kind.OUTCOMES)
        outcomes = stack.enter_context(write_manifest(state.outcomes(run_id, plan.target), header))
        delete(
            read_manifest(Path(receipts.path), Receipt),
            directories,
            quarantine,
            slots_of(intent),
            current_holds,
            outcomes,
            totals,
            alive,
            remove_empty_directories=installation.target(plan.target).remove_empty_dirs,
        )
        outcomes.close()
    return Deleted(
        plan,
        backed_up.copied,
        merge(backed_up.counts, counts_of(totals)),
        tuple(sorted(totals.open_checks)),
        totals.directories_removed,
    )


def _require_backups(intent: Intent) -> None:
    """Raise BackupError unless the copies' directory still is where it was: a disk may be unmounted in mid-run."""
    directory = intent.backup_directory
    if directory and not replica_of(Path(directory), intent.run_id, intent.target).is_file():
        raise BackupError(f"the copies in {directory} are not there any more, so no further deletion is started")


def _header(installation: Installation, plan: Plan, kind: Kind, directory: str = "") -> Header:
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


def _with_heartbeat(installation: Installation, plan: Plan, progress: Progress) -> Progress:
    due = time.monotonic() + _HEARTBEAT_SECONDS

    def report(count: int) -> None:
        nonlocal due
        progress(count)
        if time.monotonic() >= due:
            installation.sign_of_life(plan.run)
            due = time.monotonic() + _HEARTBEAT_SECONDS

    return report
