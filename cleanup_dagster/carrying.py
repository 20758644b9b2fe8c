"""Carrying out one part of a plan: backing it up, and deleting what its receipts name.

A part is everything, or what one of several worker processes takes: every n-th frame of the plan, and later of the
receipts. Each worker has an archive, receipts, a quarantine and outcomes of its own. Nothing here knows the database:
what has to be asked there is asked by the process that started the run.
"""

from contextlib import ExitStack, closing
from pathlib import Path

from msgspec import Struct

from cleanup_dagster.backups.files import FileBackups, open_file_backups
from cleanup_dagster.backups.manifest import Header, ManifestRef, Part, read_manifest, write_manifest
from cleanup_dagster.backups.packed import ArchiveBackups
from cleanup_dagster.backups.store import Store
from cleanup_dagster.collectors.deletion import CurrentHolds, Progress, Totals, back_up, delete
from cleanup_dagster.filesystem.quarantine import Quarantine
from cleanup_dagster.filesystem.tree import Directories, open_root
from cleanup_dagster.handles import Counts, counts_of
from cleanup_dagster.retention.holds import HoldMatcher
from cleanup_dagster.retention.models import Receipt, Tally, Verdict


class BackUpTask(Struct, frozen=True):
    """What to back up, where to, and where its receipts go. Headers are those of the whole manifests.

    Without a `directory` the run was told to skip backups. `archive` says that the target's format is that.
    """

    plan: ManifestRef
    run_id: str
    target: str
    root: str
    directory: str
    archive: bool
    receipts: Path
    receipts_header: Header | None
    skipped: Path
    skipped_header: Header | None
    part: Part


class Copied(Struct, frozen=True):
    """What one part backed up, by data type, and what it left out and why."""

    receipts: ManifestRef
    skipped: ManifestRef
    copied: dict[str, Tally]
    counts: dict[str, Counts]


class DeleteTask(Struct, frozen=True):
    """What to delete, by which receipts, and where the outcomes go. `quarantine` is an open descriptor and its name."""

    receipts: str
    root: str
    quarantine: tuple[int, str]
    slots: str
    outcomes: Path
    header: Header
    holds: HoldMatcher
    remove_empty_directories: bool


def back_up_part(task: BackUpTask, progress: Progress) -> Copied:
    """Back up one part of a plan. Raises as `back_up` does; then nothing of the target may be deleted."""
    with ExitStack() as stack:
        directories = stack.enter_context(closing(Directories(stack.enter_context(open_root(Path(task.root))))))
        # First the store: receipts that were begun without one would have to be settled by opening it after all.
        store = _open_store(stack, task)
        receipts = stack.enter_context(write_manifest(task.receipts, task.receipts_header, by_path=True))
        skipped = stack.enter_context(write_manifest(task.skipped, task.skipped_header))
        verdicts = read_manifest(Path(task.plan.path), Verdict, task.part)
        copied, totals = back_up(verdicts, directories, store, receipts, skipped, progress, task.part)
        return Copied(receipts.close(), skipped.close(), copied, counts_of(totals.by_state))


def _open_store(stack: ExitStack, task: BackUpTask) -> Store | None:
    if not task.directory:
        return None
    store: FileBackups = stack.enter_context(open_file_backups(Path(task.directory), task.run_id, task.part))
    if not task.archive:
        return store
    return stack.enter_context(closing(ArchiveBackups(store, task.run_id, task.target, task.part)))


def delete_part(task: DeleteTask, current_holds: CurrentHolds, progress: Progress) -> Totals:
    """Delete what one part of the committed receipts names. Raises as `delete` does."""
    totals = Totals()
    with ExitStack() as stack:
        directories = stack.enter_context(closing(Directories(stack.enter_context(open_root(Path(task.root))))))
        outcomes = stack.enter_context(write_manifest(task.outcomes, task.header))
        outcomes.sync()  # from now on recovery knows that this part may have been begun
        delete(
            read_manifest(Path(task.receipts), Receipt, task.header.part),
            directories,
            Quarantine(*task.quarantine),
            task.slots,
            current_holds,
            outcomes,
            totals,
            progress,
            remove_empty_directories=task.remove_empty_directories,
            batch_files=task.header.batch,  # which is how recovery knows it, whatever its own version thinks
        )
        outcomes.close()
    return totals
