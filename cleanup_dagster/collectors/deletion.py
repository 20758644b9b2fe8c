"""The deletion protocol: at every instant the bytes are at the original name, in quarantine, or in a durable copy.

    back_up   open without following -> same identity? -> claimed by nobody? -> copy, hash -> still the same identity?
              batch: fsync and read back every copy -> receipts fsynced -> copies get their names
    (intent)  the caller commits the sha256 of the finished receipts to the database; without it nothing below may run
    delete    open -> claimed by nobody? -> same identity? -> rename into the quarantine -> is it what was opened, and
              still claimed by nobody else? -> unlink, else put back
              batch: fsync quarantine and directories -> outcomes fsynced

A batch is the unit of durability: after a crash only the receipts of one batch are in doubt; `recover` settles them.
"""

import contextlib
import errno
import itertools
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec import Struct

from cleanup_dagster.backups.files import FileBackups
from cleanup_dagster.backups.manifest import WHOLE, ManifestWriter, Part, batches
from cleanup_dagster.backups.source import SourceError
from cleanup_dagster.backups.staged import Staged
from cleanup_dagster.backups.store import Store
from cleanup_dagster.filesystem.busy import BusyError, OpenCheck, claim, still_claimed
from cleanup_dagster.filesystem.identity import OPEN_FILE, difference, hash_open
from cleanup_dagster.filesystem.names import split, to_os
from cleanup_dagster.filesystem.quarantine import ConflictError, Quarantine
from cleanup_dagster.filesystem.tree import Directories
from cleanup_dagster.retention.holds import HoldMatcher
from cleanup_dagster.retention.models import Outcome, Receipt, State, Tally, Verdict

#: Files per batch of deletions, and so the most that each process leaves in doubt after a crash. Each batch costs some
#: fsyncs, for which the other workers wait, too: two of them took 29 to 36 us a file with 1,024, and 26 with 4,096.
BATCH = 8_192
#: A batch ends after so many seconds, however few its files: on a slow disk, too, holds are asked for, and it is heard
#: that the run is to stop.
BATCH_SECONDS = 0.5

_LEASED = "another process has a lease on it, as file servers take for their clients"
#: What opening says when something else has the name: a symlink or socket a file's, a file or symlink a directory's.
_REPLACED = frozenset({errno.ELOOP, errno.ENOTDIR, errno.ENXIO})


_NOTHING = Tally()
_NO_COPY = Staged("", 0)


class Totals:
    """What became of the items so far: files and bytes by data type and state, and which open-file checks vouched."""

    def __init__(self) -> None:
        self.by_state: dict[tuple[str, State], Tally] = {}
        self.open_checks: Counter[str] = Counter()
        self.directories_removed = 0

    def add(self, outcome: Outcome) -> None:
        """Count one outcome."""
        key = (outcome.data_type, outcome.state)
        tally = self.by_state.get(key, _NOTHING)
        self.by_state[key] = Tally(tally.files + 1, tally.bytes + outcome.size)
        if outcome.open_check:
            self.open_checks[outcome.open_check] += 1

    def merge(self, other: "Totals") -> None:
        """Count what another counted, too."""
        for key, tally in other.by_state.items():
            self.by_state[key] = self.by_state.get(key, Tally()).plus(tally.files, tally.bytes)
        self.open_checks += other.open_checks
        self.directories_removed += other.directories_removed


Progress = Callable[[int], None]
#: Asked before each batch of deletions: the holds as they are now. Raises when deleting must not go on.
CurrentHolds = Callable[[], HoldMatcher]
#: Says what is wrong with a receipt's backup, or None: it may have been lost since the run died.
Vouch = Callable[[Receipt], "str | None"]


class Copying(Struct, frozen=True):
    """One file on its way into the store."""

    verdict: Verdict
    staged: Staged
    open_check: OpenCheck


def back_up(
    verdicts: Iterable[Verdict],
    directories: Directories,
    store: Store | None,
    receipts: ManifestWriter,
    skipped: ManifestWriter,
    progress: Progress,
    part: Part = WHOLE,
) -> tuple[dict[str, Tally], Totals]:
    """Back up what the verdicts delete, and return what was copied, by data type, and what was left out and why.

    The receipts' numbers are those of the `part`, so that no two processes give the same. Without a `store` (emergency
    with skip_backup) the receipts say so by an empty place.

    Raises BackupError when the store cannot be relied on, OSError when a manifest cannot be written: in both cases
    nothing may be deleted.
    """
    copied: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    totals = Totals()
    number = itertools.count(part.number, part.of)
    size = BATCH if store is None else store.batch_files
    for batch in batches((v for v in verdicts if v.delete), size):
        copying: list[Copying] = []
        for verdict in batch:
            result = _copy_one(verdict, directories, store)
            if isinstance(result, Outcome):
                skipped.write(result)
                totals.add(result)
            else:
                copying.append(result)
        for receipt in _commit_batch(copying, store, receipts, number):
            sums = copied[receipt.data_type]
            sums[0] += 1
            sums[1] += receipt.identity.size
        progress(len(batch))
    if store is not None:
        store.finish()
    return {data_type: Tally(files, size) for data_type, (files, size) in copied.items()}, totals


def _copy_one(verdict: Verdict, directories: Directories, store: Store | None) -> Copying | Outcome:
    candidate = verdict.candidate
    directory, name = split(candidate.path)
    try:
        fd = os.open(to_os(name), OPEN_FILE, dir_fd=directories.open(directory))
    except FileNotFoundError:
        return _outcome(verdict, State.GONE, "it was gone before it could be backed up")
    except PermissionError as error:
        return _outcome(verdict, State.NOT_OWNER, f"it cannot be read: {error.strerror}")
    except BlockingIOError:
        return _outcome(verdict, State.BUSY, _LEASED)
    except OSError as error:
        state = State.DRIFTED if error.errno in _REPLACED else State.FAILED
        return _outcome(verdict, state, f"it cannot be opened: {error.strerror or error}")
    try:
        return _copy_open(verdict, fd, directories, store)
    except BusyError as error:
        return _outcome(verdict, State.BUSY, str(error))
    finally:
        os.close(fd)


def _copy_open(verdict: Verdict, fd: int, directories: Directories, store: Store | None) -> Copying | Outcome:
    candidate = verdict.candidate
    identity = candidate.identity
    changed = difference(identity, os.fstat(fd), candidate.changed_ns)
    if changed is not None:
        return _outcome(verdict, State.DRIFTED, changed)
    if directories.is_covered(fd):
        return _outcome(verdict, State.DRIFTED, "something is mounted over it now")
    open_check = claim(fd)
    if store is None:
        return Copying(verdict, _NO_COPY, open_check)
    try:
        staged = store.stage(fd, identity, candidate.path)
    except SourceError as error:
        return _outcome(verdict, State.FAILED, f"it cannot be read: {error}")
    changed = difference(identity, os.fstat(fd), candidate.changed_ns)
    if changed is None and staged.size != identity.size:
        changed = f"{staged.size} bytes could be read of {identity.size}"
    if changed is not None:
        store.discard(staged)
        return _outcome(verdict, State.DRIFTED, changed)
    return Copying(verdict, staged, open_check)


def _commit_batch(
    copying: list[Copying], store: Store | None, receipts: ManifestWriter, number: Iterator[int]
) -> list[Receipt]:
    staged = [item.staged for item in copying]
    if store is not None:
        store.make_durable(staged)
    taken: set[str] = set()  # by this batch, whose copies have no names yet
    written: list[Receipt] = []
    for item in copying:
        candidate, copy = item.verdict.candidate, item.staged
        place = store.choose_place(candidate.path, taken) if store is not None else ""
        receipt = Receipt(
            next(number),
            candidate.path,
            candidate.identity,
            candidate.data_type,
            copy.sha256,
            place,
            item.open_check.value,
            candidate.pipeline,
            copy.inode,
            copy.frame,
            candidate.changed_ns,
        )
        receipts.write(receipt)
        written.append(receipt)
    receipts.sync()  # first the entry, then the name: a name without an entry would never be pruned
    if store is not None:
        store.publish(zip(staged, (receipt.backup for receipt in written), strict=True))
    return written


def delete(
    receipts: Iterable[Receipt],
    directories: Directories,
    quarantine: Quarantine,
    slots: str,
    current_holds: CurrentHolds,
    outcomes: ManifestWriter,
    totals: Totals,
    progress: Progress,
    *,
    remove_empty_directories: bool = False,
    batch_files: int = 0,
) -> None:
    """Delete what the committed receipts name, in batches of at most `batch_files` (default: BATCH).

    What becomes of it is counted into `totals`; `slots` prefixes the quarantine's names, so that recovery can tell
    whose they are. Raises whatever `current_holds` raises, between two batches, and OSError when the disk fails;
    `totals` then hold what is known to be done.
    """
    left = iter(receipts)
    for first in left:
        holds = current_holds()
        directories.close()  # one that was moved out of the root meanwhile, to rescue what is in it, must not be found
        done: list[Outcome] = []
        try:
            for receipt in _batch(first, left, batch_files or BATCH):
                done.append(_delete_one(receipt, directories, quarantine, slots, holds))  # noqa: PERF401 the list must survive an interrupt
        finally:
            touched = {split(outcome.path)[0] for outcome in done if outcome.state is State.DELETED}
            _settle(done, touched, directories, quarantine, outcomes)
            for outcome in done:
                totals.add(outcome)
        if remove_empty_directories:
            totals.directories_removed += sum(_remove_if_empty(path, directories) for path in touched)
        progress(len(done))


def _batch(first: Receipt, left: Iterator[Receipt], files: int) -> Iterator[Receipt]:
    """Yield `first` and what follows it, up to a batch."""
    until = time.monotonic() + BATCH_SECONDS
    for number, receipt in enumerate(itertools.chain((first,), left), start=1):
        yield receipt
        if number == files or time.monotonic() > until:
            return


def slot_name(slots: str, number: int) -> str:
    """Return the quarantine's name for one receipt of a run's target."""
    return f"{slots}.{number}"


def _delete_one(
    receipt: Receipt, directories: Directories, quarantine: Quarantine, slots: str, holds: HoldMatcher
) -> Outcome:
    hold = holds.first_match(receipt.path, receipt.data_type, receipt.pipeline)
    if hold is not None:
        return _ended(receipt, State.HELD, f"hold {hold.id}: {hold.reason}")
    path, name = split(receipt.path)
    name = to_os(name)
    try:
        directory = directories.open(path)
        fd = os.open(name, OPEN_FILE, dir_fd=directory)
    except FileNotFoundError:
        return _ended(receipt, State.GONE, "it was gone before it could be deleted")
    except PermissionError as error:
        return _ended(receipt, State.NOT_OWNER, f"it cannot be read any more: {error.strerror}")
    except BlockingIOError:
        return _ended(receipt, State.BUSY, _LEASED)
    except OSError as error:
        return _ended(receipt, _state_of(error), f"it cannot be opened: {error.strerror or error}")
    try:
        return _take_and_remove(receipt, fd, directory, name, quarantine, slot_name(slots, receipt.number))
    finally:
        os.close(fd)


def _state_of(error: OSError) -> State:
    return State.DRIFTED if error.errno in _REPLACED else State.FAILED


def _take_and_remove(
    receipt: Receipt, fd: int, directory: int, name: str, quarantine: Quarantine, slot: str
) -> Outcome:
    try:
        open_check = claim(fd)  # before it is moved: what somebody uses keeps its name
        changed = difference(receipt.identity, os.fstat(fd), receipt.changed_ns)
        if changed is not None:
            return _ended(receipt, State.DRIFTED, changed)
        quarantine.take(directory, name, slot)
    except BusyError as error:
        return _ended(receipt, State.BUSY, str(error))
    except FileNotFoundError:
        return _ended(receipt, State.GONE, "it was gone before it could be deleted")
    except PermissionError as error:
        return _ended(receipt, State.NOT_OWNER, f"it cannot be moved: {error.strerror}")
    except OSError as error:
        return _ended(receipt, _state_of(error), f"it cannot be moved: {error.strerror or error}")
    try:
        _remove(receipt, fd, open_check, quarantine, slot)
    except (_DriftError, BusyError, OSError) as problem:
        return _put_back(receipt, directory, name, quarantine, slot, problem)
    return _ended(receipt, State.DELETED, "", open_check.value)


class _DriftError(Exception):
    """What the quarantine took is not what was judged."""


def _remove(receipt: Receipt, fd: int, open_check: OpenCheck, quarantine: Quarantine, slot: str) -> None:
    """Remove what the quarantine took, should it be the claimed file `fd` as it was judged; else raise, and leave it.

    Nobody else can open its name in here, and while the claim lasts nobody can begin to write: what is the same now
    stays the same.
    """
    changed = difference(receipt.identity, os.stat(slot, dir_fd=quarantine.fd, follow_symlinks=False))
    if changed is not None:
        raise _DriftError(changed)
    if open_check is OpenCheck.LEASE and not still_claimed(fd):
        raise BusyError("another process is opening it for writing")
    quarantine.remove(slot)


def _put_back(
    receipt: Receipt, directory: int, name: str, quarantine: Quarantine, slot: str, why: Exception
) -> Outcome:
    if isinstance(why, BlockingIOError):
        state, problem = State.BUSY, _LEASED
    elif isinstance(why, OSError):
        state, problem = State.FAILED, f"it cannot be removed: {why.strerror or why}"
    else:
        state, problem = State.BUSY if isinstance(why, BusyError) else State.DRIFTED, str(why)
    try:
        quarantine.put_back(slot, directory, name)
    except ConflictError as conflict:
        detail = f"{problem}, and its name was taken again: it stays whole in {conflict}; move it by hand"
        return _ended(receipt, State.CONFLICT, detail)
    except OSError as error:
        detail = f"{problem}, and it cannot be put back ({error.strerror}): it stays whole in {quarantine.name}/{slot}"
        return _ended(receipt, State.FAILED, detail)
    return _ended(receipt, state, problem)


def _settle(
    done: list[Outcome],
    touched: Iterable[str],
    directories: Directories,
    quarantine: Quarantine,
    outcomes: ManifestWriter,
) -> None:
    quarantine.sync()
    _sync(touched, directories)
    for outcome in done:
        outcomes.write(outcome)
    outcomes.sync()


def _sync(paths: Iterable[str], directories: Directories) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # the directory itself went meanwhile
            os.fsync(directories.open(path))


def _remove_if_empty(path: str, directories: Directories) -> int:
    removed = 0
    while path:
        parent, name = split(path)
        try:
            os.rmdir(to_os(name), dir_fd=directories.open(parent))
        except OSError:  # not empty, or not ours
            break
        directories.forget(path)
        removed += 1
        path = parent
    return removed


def recover(
    receipts: Iterable[Receipt],
    directories: Directories,
    quarantines: Sequence[Quarantine],
    slots: str,
    holds: HoldMatcher,
    recovered: ManifestWriter,
    vouch: Vouch = lambda _: None,
) -> Totals:
    """Settle the receipts that an interrupted `delete` left in doubt: the batch after its last durable outcome.

    What is in quarantine, unchanged and equal to a backup that `vouch` finds sound, is removed; else it is put back.
    What is neither there nor at its name any more was deleted by the run, whose outcome did not reach the disk.
    Idempotent.

    Raises OSError when a directory cannot be looked into: then nobody can tell, and nothing is claimed.
    """
    totals = Totals()
    for batch in batches(receipts, BATCH):
        found = [_recover_one(receipt, directories, quarantines, slots, holds, vouch) for receipt in batch]
        done = [outcome for outcome in found if outcome is not None]
        for quarantine in quarantines:
            quarantine.sync()
        _sync({split(outcome.path)[0] for outcome in done}, directories)
        for outcome in done:
            recovered.write(outcome)
            totals.add(outcome)
    return totals


def _recover_one(
    receipt: Receipt,
    directories: Directories,
    quarantines: Sequence[Quarantine],
    slots: str,
    holds: HoldMatcher,
    vouch: Vouch,
) -> Outcome | None:
    directory, name = split(receipt.path)
    name = to_os(name)
    slot = slot_name(slots, receipt.number)
    try:
        fd = directories.open(directory)
    except OSError as error:
        if error.errno not in {errno.ENOENT, *_REPLACED}:
            raise
        fd = None
    quarantine = next((one for one in quarantines if _exists(one.fd, slot)), None)
    if quarantine is not None:
        if fd is None:
            return _ended(receipt, State.FAILED, f"its directory is gone; it stays whole in {quarantine.name}/{slot}")
        hold = holds.first_match(receipt.path, receipt.data_type, receipt.pipeline)
        if hold is not None:
            return _return_held(receipt, fd, name, quarantine, slot, f"hold {hold.id}: {hold.reason}")
        unsound = vouch(receipt)
        if unsound is not None:
            return _return_held(receipt, fd, name, quarantine, slot, f"its backup cannot be relied on: {unsound}")
        try:
            return _ended(receipt, State.DELETED, "", _finish(receipt, quarantine, slot).value)
        except (_DriftError, BusyError, OSError) as problem:
            return _put_back(receipt, fd, name, quarantine, slot, problem)
    if fd is not None and _exists(fd, name):
        if difference(receipt.identity, os.stat(name, dir_fd=fd, follow_symlinks=False)) is None:
            return None  # never touched
        return _ended(receipt, State.DRIFTED, "something else has its name now; its backup is kept")
    return _ended(receipt, State.DELETED, "by the interrupted run", receipt.open_check)


def _finish(receipt: Receipt, quarantine: Quarantine, slot: str) -> OpenCheck:
    """Remove what an interrupted run left in quarantine, should it be what was judged, byte for byte."""
    # Looked at before it is opened: it may be something else, which the run had no time to see.
    changed = difference(receipt.identity, os.stat(slot, dir_fd=quarantine.fd, follow_symlinks=False))
    if changed is not None:
        raise _DriftError(changed)
    fd = os.open(slot, OPEN_FILE, dir_fd=quarantine.fd)
    try:
        open_check = claim(fd)
        if receipt.sha256 and hash_open(fd) != receipt.sha256:
            raise _DriftError("its bytes are not those of its backup")
        _remove(receipt, fd, open_check, quarantine, slot)
        return open_check
    finally:
        os.close(fd)


def _return_held(
    receipt: Receipt, directory: int, name: str, quarantine: Quarantine, slot: str, problem: str
) -> Outcome:
    try:
        quarantine.put_back(slot, directory, name)
    except (ConflictError, OSError) as error:
        return _ended(receipt, State.CONFLICT, f"{problem}, but it cannot go back ({error}); move it by hand")
    return _ended(receipt, State.HELD, problem)


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def discard_backups(receipts: Iterable[Receipt], store: FileBackups) -> int:
    """Remove the copies of a run that never committed its intent, and so deleted nothing. Return how many."""
    return sum(
        # An archive's name is its run's alone; a plain copy's may be somebody else's by now.
        store.remove(receipt.backup, None if receipt.frame is not None else receipt.inode)
        for receipt in receipts
        if receipt.backup
    )


def _outcome(verdict: Verdict, state: State, detail: str) -> Outcome:
    candidate = verdict.candidate
    return Outcome(-1, candidate.path, candidate.data_type, state, candidate.identity.size, detail)


def _ended(receipt: Receipt, state: State, detail: str, open_check: str = "") -> Outcome:
    return Outcome(receipt.number, receipt.path, receipt.data_type, state, receipt.identity.size, detail, open_check)
