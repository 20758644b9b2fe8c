"""Undo: putting back what a run deleted, one file, a selection or all of it.

A restore is a live run of its own: it holds the lock, has its row in `cleanup_runs` and in the audit, and it places a
hold on what it restores, because the next cleanup would find the very same files expired and delete them again.
"""

import glob
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from cleanup_dagster.backups.files import FileBackups, open_file_backups
from cleanup_dagster.backups.manifest import (
    Header,
    Kind,
    ManifestError,
    ManifestRef,
    find_rows,
    read_header,
    read_manifest,
    verify_manifest,
    write_manifest,
)
from cleanup_dagster.backups.restore import Restorer
from cleanup_dagster.database import audit
from cleanup_dagster.database.audit import AuditRow
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.errors import DatabaseUnavailable
from cleanup_dagster.database.holds import InvalidHold, add_hold, remove_hold, require_known
from cleanup_dagster.database.run_targets import KeptBackups, intents
from cleanup_dagster.database.runs import RunRecord, RunStatus, finish_run, get_run
from cleanup_dagster.filesystem.names import to_text
from cleanup_dagster.filesystem.tree import open_root
from cleanup_dagster.handles import Request, RestoreReport, RestoreRequest
from cleanup_dagster.installation import Installation, Progress, RunRefusedError
from cleanup_dagster.inventory import kept_backups
from cleanup_dagster.recovery import recover_all
from cleanup_dagster.retention.defaults import things
from cleanup_dagster.retention.holds import compile_pattern, normalise_pattern
from cleanup_dagster.retention.models import (
    NS_PER_DAY,
    SKIPPED_STATES,
    CleanupType,
    Outcome,
    Receipt,
    Restored,
    RestoreState,
    Tally,
)
from cleanup_dagster.run_history.restoring import RunRestorer
from cleanup_dagster.run_history.store import is_runs_root

_SHOWN = 25


class Held(NamedTuple):
    """What a hold names: a path or glob, and the data type when it is of one alone."""

    pattern: str
    data_type: str | None


class Selection:
    """Which of a run's files are to be put back: all, or those that match a path and a data type of the request."""

    def __init__(self, request: RestoreRequest) -> None:
        self.has_paths = bool(request.paths)
        self._named = [normalise_pattern(path) for path in request.paths]
        self._paths = [compile_pattern(path) for path in self._named]
        self._data_types = frozenset(request.data_types)
        self.most_holds = max(1, len(self._named)) * max(1, len(self._data_types))

    def exactly(self, root: str) -> frozenset[str]:
        """Return the paths below `root` that the request names one by one; empty when it may mean more than those."""
        if any(glob.has_magic(path) or not path.startswith(f"{root}/") for path in self._named):
            return frozenset()
        return frozenset(path[len(root) + 1 :] for path in self._named)

    def held_by(self, root: str, receipt: Receipt) -> Held | None:
        """Return how to hold a file that was deleted below `root` (text form), None when it is not wanted.

        By what the request names, and else by the root; a data type only where it names some, because what came back
        may be of another when the configuration is corrected.
        """
        if self._data_types and receipt.data_type not in self._data_types:
            return None
        data_type = receipt.data_type if self._data_types else None
        if not self._named:
            return Held(root, data_type)
        path = f"{root}/{receipt.path}"
        named = (name for name, pattern in zip(self._named, self._paths, strict=True) if pattern.match(path))
        name = next(named, None)
        return None if name is None else Held(name, data_type)


class _Found(Struct):
    """What was put back so far, and the first few files that were not."""

    by_type: dict[tuple[str, RestoreState], Tally] = {}
    troubled: list[Restored] = []

    def add(self, restored: Restored) -> None:
        key = (restored.data_type, restored.state)
        self.by_type[key] = self.by_type.get(key, Tally()).plus(1, restored.size)
        if not restored.state.is_well and len(self.troubled) < _SHOWN:
            self.troubled.append(restored)


def restore(installation: Installation, request: RestoreRequest, progress: Progress) -> RestoreReport:
    """Put back what a run deleted. A dry run verifies and looks, and writes nothing but its own row.

    Raises:
        RunLockedError: a live run is at work.
        RunRefusedError: the run is unknown or has no backups, a root is not configured any more, a pattern can match
            nothing, or the database is not this installation's.
        ManifestError: a manifest is not the recorded one, so nothing it says is done.
        DatabaseUnavailable, UnsafeDirectoryError, RootError, OSError: what is needed cannot be used.
    """
    if stranger := installation.stranger():
        raise RunRefusedError(stranger)
    try:
        selection = Selection(request)
    except ValueError as error:
        raise RunRefusedError(str(error)) from None
    if not request.dry_run:
        installation.lock()
        for _ in recover_all(installation):  # first: the run to restore may be one that died
            pass
    sets = _backups_of(installation, request.of_run)
    for kept in sets:  # all before the first: one that was tampered with stops the whole restore
        verify_manifest(ManifestRef(kept.manifest, kept.sha256, kept.rows))
        header = read_header(Path(kept.manifest))
        if header.root != kept.root:  # the database is not believed where files come back
            raise ManifestError(f"the receipts of {kept.target} tell of files in {header.root}, not in {kept.root}")
    now_ns = installation.clock()
    installation.reserve(Request(request.run_id, CleanupType.RESTORE, request.dry_run, request.executed_by), now_ns)
    found, holds = _Found(), tuple[int, ...]()
    try:
        holds = _place_holds(installation, request, selection, sets, now_ns)
        for kept in sets:
            _restore_set(installation, kept, request, selection, found, progress)
    except BaseException as error:
        _conclude(installation, request, found, holds, f"it broke off: {error or type(error).__name__}")
        raise
    return _conclude(installation, request, found, holds, "" if found.by_type else "nothing of the run is selected")


def _backups_of(installation: Installation, of_run: str) -> list[KeptBackups]:
    with reading(installation.database) as conn:
        run = get_run(conn, of_run)
    if run is None:
        raise RunRefusedError(f"there is no run {of_run!r}; name the full id of a live run that deleted something")
    sets = kept_backups(installation, of_run)
    if not sets:
        raise RunRefusedError(_why_without_backups(installation, run))
    for directory in sorted({kept.directory for kept in sets}):
        if not Path(directory).is_dir():  # opening would make it, and every backup be called missing
            raise RunRefusedError(f"the backup directory {directory} is not there; mount it, or put it back")
    allowed = {str(target.root) for target in installation.settings.targets}
    has_runs = installation.settings.dagster_runs is not None
    for kept in sets:
        if is_runs_root(kept.root) and not has_runs:
            raise RunRefusedError(
                "no target of kind dagster_runs is configured; add it to cleanup.yaml to restore runs"
            )
        if not is_runs_root(kept.root) and kept.root not in allowed:
            raise RunRefusedError(
                f"{kept.root} is not the root of a configured target any more; add it to cleanup.yaml to restore there"
            )
    return sets


def _why_without_backups(installation: Installation, run: RunRecord) -> str:
    name = f"run {run.run_id}"
    if run.dry_run:
        return f"{name} was a dry run: it deleted nothing"
    if run.state_id != installation.state.id:
        return f"{name} belongs to {run.host}, whose state directory has its manifests; restore it there"
    if run.cleanup_type is CleanupType.RESTORE:
        return f"{name} was a restore: it deleted nothing"
    if run.status is RunStatus.RUNNING:
        return f"{name} has not ended; restore it when it has (a live restore settles a run that died)"
    with reading(installation.database) as conn:
        promised = intents(conn, run.run_id)
    if not promised:
        return f"{name} deleted nothing"
    if not any(intent.backup_directory for intent in promised):
        return f"{name} has no backups: it was told to skip them"
    return f"{name} has no backups any more: they were pruned after their retention"


def _place_holds(
    installation: Installation,
    request: RestoreRequest,
    selection: Selection,
    sets: Sequence[KeptBackups],
    now_ns: int,
) -> tuple[int, ...]:
    """Hold what is about to be restored, by the very selection: few rows, whatever the number of files.

    Only where there is something to restore: a hold on another root would keep what was never deleted.
    """
    if request.dry_run:
        return ()
    until_ns = now_ns + installation.settings.backup.restore_hold_days * NS_PER_DAY
    held = {one for kept in sets for one in _held_in(installation, kept, selection)}
    try:
        with installation.database.begin() as conn:
            require_known(conn, *request.data_types)
            return tuple(
                add_hold(
                    conn,
                    pattern=one.pattern,
                    reason=f"restored from run {request.of_run}",
                    placed_by=request.executed_by,
                    now_ns=now_ns,
                    data_type=one.data_type,
                    until_ns=until_ns,
                )
                for one in sorted(held, key=str)
            )
    except InvalidHold as error:
        raise RunRefusedError(str(error)) from None


def _held_in(installation: Installation, kept: KeptBackups, selection: Selection) -> set[Held]:
    """Return what there is to hold of one set of backups; it is looked through no further than to the last kind."""
    found: set[Held] = set()
    with closing(_wanted(installation, kept, selection)) as wanted:
        for _, held in wanted:
            found.add(held)
            if len(found) == selection.most_holds:
                break
    return found


def _restore_set(
    installation: Installation,
    kept: KeptBackups,
    request: RestoreRequest,
    selection: Selection,
    found: _Found,
    progress: Progress,
) -> None:
    header = Header(Kind.RESTORED, request.run_id, kept.target, kept.root, installation.clock(), kept.directory)
    with ExitStack() as stack:
        store = stack.enter_context(open_file_backups(Path(kept.directory), kept.run_id))
        restorer = stack.enter_context(_restorer(installation, kept, store, request))
        path = installation.state.restored(request.run_id, kept.target)
        manifest = stack.enter_context(write_manifest(path, header))
        for restored in restorer.restore(receipt for receipt, _ in _wanted(installation, kept, selection)):
            found.add(restored)
            manifest.write(restored)
            progress(1)
        manifest.close()


def _wanted(
    installation: Installation, kept: KeptBackups, selection: Selection
) -> Generator[tuple[Receipt, Held], None, None]:
    """Yield the receipts of what is to come back, and how each is held."""
    root = to_text(kept.root)
    spared = bytearray() if selection.has_paths else _spared(installation, kept)
    for receipt in _receipts(kept, selection.exactly(root)):
        held = selection.held_by(root, receipt)
        if held is not None and not any(spared[receipt.number : receipt.number + 1]):
            yield receipt, held


def _receipts(kept: KeptBackups, named: frozenset[str]) -> Iterable[Receipt]:
    """Return the receipts to select from: of files that are `named` their own at once, in milliseconds of a million."""
    found = find_rows(Path(kept.manifest), Receipt, named) if named else []
    if found and named == frozenset(receipt.path for receipt in found):
        return found
    return read_manifest(Path(kept.manifest), Receipt)  # a name may be that of a directory


@contextmanager
def _restorer(
    installation: Installation, kept: KeptBackups, store: FileBackups, request: RestoreRequest
) -> Generator[Restorer | RunRestorer]:
    if is_runs_root(kept.root):
        with installation.run_store() as runs:
            yield RunRestorer(runs, store, kept, dry_run=request.dry_run)
    else:
        with (
            open_root(Path(kept.root)) as root,
            closing(Restorer(root, store, dry_run=request.dry_run)) as restorer,
        ):
            yield restorer


def _spared(installation: Installation, kept: KeptBackups) -> bytearray:
    """Return by receipt number, as 0 or 1, what the run backed up and then left in place: that is not its to undo.

    Who names a path gets whatever has a backup, whoever removed the file.
    """
    spared = bytearray()
    for manifest in installation.state.all_outcomes(kept.run_id, kept.target):
        for outcome in read_manifest(manifest, Outcome, torn=True):
            if outcome.number >= len(spared):  # numbers have gaps where several processes gave them
                spared.extend(bytes(outcome.number + 1 - len(spared)))
            spared[outcome.number] = outcome.state in SKIPPED_STATES
    return spared


def _conclude(
    installation: Installation, request: RestoreRequest, found: _Found, holds: tuple[int, ...], problem: str
) -> RestoreReport:
    if holds and not found.by_type and _removed(installation, holds):  # it broke off before its first file
        holds = ()
    states: dict[RestoreState, Tally] = {}
    for (_, state), tally in found.by_type.items():
        states[state] = states.get(state, Tally()).plus(tally.files, tally.bytes)
    manifests = str(installation.state.manifests(request.run_id))
    what = things(data_type for data_type, _ in found.by_type)
    report = RestoreReport(request, states, tuple(found.troubled), holds, manifests, problem, what)
    now_ns = installation.clock()
    status = RunStatus.FAILED if report.problems else RunStatus.DONE
    with installation.database.begin() as conn:
        if not request.dry_run:
            audit.append(conn, _audit_rows(report, found, status, now_ns))
        finish_run(conn, request.run_id, status, "; ".join(report.problems), None, now_ns)
    installation.state.mark_ended(request.run_id)
    return report


def _removed(installation: Installation, holds: tuple[int, ...]) -> bool:
    """Remove holds; False where this role may only place them: then something is kept until they end."""
    try:
        with installation.database.begin() as conn:
            for hold in holds:
                remove_hold(conn, hold)
    except DatabaseUnavailable:
        return False
    return True


def _audit_rows(report: RestoreReport, found: _Found, status: RunStatus, now_ns: int) -> Iterator[AuditRow]:
    request = report.request
    for data_type in sorted({data_type for data_type, _ in found.by_type}):
        mine = {state: tally for (of, state), tally in found.by_type.items() if of == data_type}
        restored = mine.get(RestoreState.RESTORED, Tally())
        yield AuditRow(
            run_id=request.run_id,
            data_type=data_type,
            cleanup_type=CleanupType.RESTORE.value,
            outcome=status.value,
            executed_ns=now_ns,
            executed_by=request.executed_by,
            records_failed=sum(tally.files for state, tally in mine.items() if not state.is_well),
            records_skipped=mine.get(RestoreState.PRESENT, Tally()).files,
            manifest=report.manifests,
            message=f"restored {restored.files} files ({restored.bytes} bytes) of run {request.of_run}",
        )
