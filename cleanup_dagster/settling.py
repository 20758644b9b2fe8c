"""Settling one target of a run that broke off, from its receipts and from what is in place, in quarantine or gone.

The receipts are believed when their sha256 is the one the database committed. They are looked for in the state
directory, then in the replica beside the copies, so that losing either directory loses no file.
"""

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import chain, islice
from pathlib import Path

from msgspec import Struct, structs

from cleanup_dagster.backups.files import BackupError, open_file_backups, replica_of, why_away
from cleanup_dagster.backups.manifest import (
    Header,
    Kind,
    ManifestError,
    ManifestRef,
    read_header,
    read_manifest,
    read_segment,
    segments_of,
    verify_manifest,
    write_manifest,
)
from cleanup_dagster.backups.packed import remove_archives
from cleanup_dagster.collectors.deletion import Totals, Vouch, discard_backups, recover
from cleanup_dagster.database.run_targets import Intent
from cleanup_dagster.filesystem.place import is_same_filesystem, place_of
from cleanup_dagster.filesystem.quarantine import Quarantine, left_quarantines, reopen_quarantine
from cleanup_dagster.filesystem.tree import Directories, RootError, RootMissingError, open_root
from cleanup_dagster.handles import Counts, counts_of, merge
from cleanup_dagster.installation import Installation
from cleanup_dagster.retention.holds import HoldMatcher
from cleanup_dagster.retention.models import Outcome, Receipt
from cleanup_dagster.state import StateDirectory


class Settled(Struct, frozen=True):
    """What became of one target: the outcomes it had written and those found now. `problem` needs somebody.

    With its receipts lost nobody can say what became of it, nor which copies are its: they stay for ever.
    """

    counts: dict[str, Counts] = {}
    open_checks: tuple[str, ...] = ()
    problem: str = ""
    receipts_lost: bool = False


def settle_target(state: StateDirectory, intent: Intent, holds: HoldMatcher, now_ns: int) -> Settled:
    """Settle one target whose intent was committed. Idempotent.

    Raises:
        RootError: its root cannot be opened, or is another filesystem than it was (not mounted, for example).
        OSError: the disk fails.
    """
    manifest = find_receipts(state, intent)
    if manifest is None:
        return _without_receipts(intent)
    written = Totals()
    own = state.own_outcomes(intent.run_id, intent.target)
    in_doubt = [_written(outcomes, manifest, written) for outcomes in own]
    if in_doubt and None not in in_doubt:
        doubtful = chain.from_iterable(filter(None, in_doubt))
    else:
        doubtful = read_manifest(manifest, Receipt)
    try:
        found = _settle(state, intent, doubtful, manifest, holds, now_ns)
    except RootMissingError:
        return Settled(counts_of(written.by_state), problem=f"{intent.root} is gone with what was left in it")
    counts = merge(counts_of(written.by_state), counts_of(found.by_state))
    return Settled(counts, tuple(sorted({*written.open_checks, *found.open_checks})))


def _written(outcomes: Path, receipts: Path, totals: Totals) -> Iterator[Receipt] | None:
    """Add up what one process wrote, and return which receipts it may have carried out besides; None is any.

    That is a batch at most: its outcomes were there before its first file was taken, and are durable after each batch.
    """
    settled = 0
    for outcome in read_manifest(outcomes, Outcome, torn=True):
        totals.add(outcome)
        settled += 1
    try:
        header = read_header(outcomes)
    except ManifestError:  # damaged: then any of the receipts may have been carried out
        return None
    return islice(read_manifest(receipts, Receipt, header.part), settled, settled + header.batch)


def _settle(
    state: StateDirectory,
    intent: Intent,
    doubtful: Iterator[Receipt],
    manifest: Path,
    holds: HoldMatcher,
    now_ns: int,
) -> Totals:
    header = Header(Kind.OUTCOMES, intent.run_id, intent.target, intent.root, now_ns)
    slots = slots_of(intent)
    with open_root(Path(intent.root)) as root:
        _require_same_filesystem(state, intent, manifest, root)
        with (
            closing(Directories(root)) as directories,
            _quarantines_of(intent, root) as quarantines,
            _vouching(intent) as vouch,
            write_manifest(state.next_recovery(intent.run_id, intent.target), header) as recovered,
        ):
            receipts = _with_device(doubtful, directories.device)
            found = recover(receipts, directories, quarantines, slots, holds, recovered, vouch)
            if left := {number for quarantine in quarantines for number in quarantine.numbers(slots)}:
                # Outcomes that were damaged, or could not go back at the time, leave files of other batches here.
                everything = _with_device(read_manifest(manifest, Receipt), directories.device)
                more = (receipt for receipt in everything if receipt.number in left)
                found.merge(recover(more, directories, quarantines, slots, holds, recovered, vouch))
            recovered.close()
    return found


@contextmanager
def _vouching(intent: Intent) -> Generator[Vouch]:
    """Yield what tells whether a receipt's backup is still sound. Without its directory none is."""
    if intent.backup_directory is None:  # the run was told to skip backups
        yield lambda _: None
    elif not Path(intent.backup_directory).is_dir():
        yield lambda _: f"{intent.backup_directory} is not there"
    else:
        with open_file_backups(Path(intent.backup_directory), intent.run_id) as store:
            yield store.problem


def _require_same_filesystem(state: StateDirectory, intent: Intent, manifest: Path, root: int) -> None:
    """Raise RootError when nobody can tell that the root is on the filesystem that was cleaned.

    On another one every file would be gone, and be called deleted. A device number may change with a reboot, so it is
    not asked alone; where the filesystem says nothing else, a person has to.
    """
    then = read_header(manifest).place
    answer = state.same_filesystem(intent.run_id, intent.target)
    if answer.exists() or (then is not None and is_same_filesystem(then, place_of(root))):
        return
    raise RootError(
        f"{intent.root} is on another filesystem than it was; mount the one that was cleaned, or, should it be that "
        f"very one, say so: touch {answer}"
    )


def _with_device(receipts: Iterator[Receipt], device: int) -> Iterator[Receipt]:
    """Yield receipts with the device's number of today."""
    for receipt in receipts:
        identity = receipt.identity
        if identity.dev == device:
            yield receipt
        else:
            yield structs.replace(receipt, identity=structs.replace(identity, dev=device))


def find_receipts(state: StateDirectory, intent: Intent) -> Path | None:
    """Return the recorded receipts of an intent, from the state directory or their replica, or None.

    Wherever else the database says that they are, somebody may have put them there who can write it.
    Raises ValueError for names that lead elsewhere.
    """
    places = [state.kept_receipts(intent.run_id, intent.target)]
    if intent.backup_directory:
        places.append(replica_of(Path(intent.backup_directory), intent.run_id, intent.target))
    for place in places:
        try:
            verify_manifest(ManifestRef(str(place), intent.sha256, intent.rows))
        except ManifestError:
            continue
        return place
    return None


def _without_receipts(intent: Intent) -> Settled:
    left = ""
    try:
        with open_root(Path(intent.root)) as root, _quarantines_of(intent, root) as quarantines:
            if quarantines:
                places = " and ".join(f"{intent.root}/{quarantine.name}" for quarantine in quarantines)
                left = f"; whole files of it are left in {places}, move them back by hand"
    except RootMissingError:
        left = f"; {intent.root} is gone, too"
    return Settled(
        receipts_lost=True,
        problem=f"the receipts of {intent.target} are lost, so which of its files went cannot be told; "
        f"their copies stay in {intent.backup_directory or 'no backup'}{left}",
    )


def slots_of(intent: Intent) -> str:
    """Return the prefix of a target's names in the quarantine: unique to a run and target."""
    return f"{intent.run_id}.{intent.target}"


@contextmanager
def _quarantines_of(intent: Intent, root: int) -> Generator[list[Quarantine]]:
    """Open the quarantines that hold this target's files, none when nothing of it is left."""
    with ExitStack() as stack:
        ours = [stack.enter_context(reopen_quarantine(root, name)) for name in left_quarantines(root)]
        yield [quarantine for quarantine in ours if quarantine is not None and quarantine.numbers(slots_of(intent))]


def discard_target(installation: Installation, run_id: str, target: str) -> None:
    """Remove the copies of a target that never committed its intent, and its receipts: it deleted nothing.

    Raises BackupError, UnsafeDirectoryError or OSError when the backup directory is away or cannot be used: the
    receipts stay until then, because nothing else knows which copies are to go.
    """
    receipts = installation.state.receipts(run_id, target)
    if not receipts.exists():
        return
    try:
        written = Path(read_header(receipts).backup_directory)
        directories = [written] if written.is_absolute() else []  # none when the run made no backups
    except ManifestError:  # the power went before the header was on the disk
        usual, *others = installation.settings.backup_directories
        directories = [usual, *filter(Path.is_dir, others)]
    for directory in directories:
        _discard_copies(directory, receipts, run_id, target)
    for manifest in (*segments_of(receipts), receipts):  # last the one without which nobody would look for the others
        manifest.unlink()


def _discard_copies(directory: Path, manifest: Path, run_id: str, target: str) -> None:
    def receipts() -> Iterator[Receipt]:
        yield from read_manifest(manifest, Receipt, torn=True)
        for segment in segments_of(manifest):
            yield from read_segment(segment, Receipt)

    away = why_away(directory)
    if away and any(receipt.backup for receipt in receipts()):
        raise BackupError(
            f"the backup directory {directory} {away}; mount it again, or, were the copies removed on purpose, "
            f"remove {manifest}"
        )
    if not directory.is_dir():
        return
    with open_file_backups(directory, run_id) as store:  # sweeps what was staged when it closes
        discard_backups(receipts(), store)
        remove_archives(store, run_id, target)  # also when no receipt of it was written yet
        store.remove_replica(target)
