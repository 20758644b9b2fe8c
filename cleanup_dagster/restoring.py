"""Undo: putting back what a run deleted, one file, a selection or all of it.

A restore is a live run of its own: it holds the lock, has its row in `cleanup_runs` and in the audit, and it places a
hold on what it restores, because the next cleanup would find the very same files expired and delete them again.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from cleanup_dagster.backups.files import open_file_backups
from cleanup_dagster.backups.manifest import (
    Header,
    Kind,
    ManifestRef,
    read_manifest,
    verify_manifest,
    write_manifest,
)
from cleanup_dagster.backups.restore import Restorer
from cleanup_dagster.database import audit
from cleanup_dagster.database.audit import AuditRow
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.holds import add_hold
from cleanup_dagster.database.run_targets import KeptBackups
from cleanup_dagster.database.runs import RunStatus, finish_run, get_run
from cleanup_dagster.filesystem.names import to_text
from cleanup_dagster.filesystem.tree import open_root
from cleanup_dagster.handles import Request, RestoreReport, RestoreRequest
from cleanup_dagster.installation import Installation, Progress, RunRefusedError
from cleanup_dagster.inventory import kept_backups
from cleanup_dagster.recovery import recover_all
from cleanup_dagster.retention.holds import compile_pattern
from cleanup_dagster.retention.models import (
    NS_PER_DAY,
    CleanupType,
    Receipt,
    Restored,
    RestoreState,
    Tally,
)

_SHOWN = 25


class Selection:
    """Which of a run's files are to be put back: all, or those that match a path and a data type of the request."""

    def __init__(self, request: RestoreRequest) -> None:
        self._paths = [compile_pattern(path) for path in request.paths]
        self._data_types = frozenset(request.data_types)

    def takes(self, root: str, receipt: Receipt) -> bool:
        """Return whether a file that was deleted below `root` (text form) is wanted."""
        if self._data_types and receipt.data_type not in self._data_types:
            return False
        path = f"{root}/{receipt.path}"
        return not self._paths or any(pattern.match(path) for pattern in self._paths)


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
        RunRefusedError: the run is unknown, has no backups, a root is not configured any more, or nothing is selected.
        ManifestError: a manifest is not the recorded one, so nothing it says is done.
        DatabaseUnavailable, UnsafeDirectoryError, RootError, OSError: what is needed cannot be used.
    """
    _check_selection(request)
    sets = _backups_of(installation, request.of_run)
    if not request.dry_run:
        installation.lock()
        for _ in recover_all(installation):
            pass
    now_ns = installation.clock()
    installation.reserve(Request(request.run_id, CleanupType.RESTORE, request.dry_run, request.executed_by), now_ns)
    holds = () if request.dry_run else tuple(_place_holds(installation, request, sets, now_ns))
    found = _Found()
    try:
        for kept in sets:
            _restore_set(installation, kept, request, found, progress)
    except BaseException as error:
        _conclude(installation, request, found, holds, f"it broke off: {error}")
        raise
    return _conclude(installation, request, found, holds, "" if found.by_type else "nothing of the run is selected")


def _check_selection(request: RestoreRequest) -> None:
    for path in request.paths:
        if not path.startswith(("/", "**")):
            raise RunRefusedError(f"{path!r} matches no absolute path; begin it with / or **")


def _backups_of(installation: Installation, of_run: str) -> list[KeptBackups]:
    with reading(installation.database) as conn:
        run = get_run(conn, of_run)
    if run is None:
        raise RunRefusedError(f"there is no run {of_run!r}; name the full id of a live run that deleted something")
    if run.state_id != installation.state.id:
        raise RunRefusedError(
            f"run {of_run} belongs to {run.host}, whose state directory has its manifests; restore it there"
        )
    sets = kept_backups(installation, of_run)
    if not sets:
        raise RunRefusedError(f"run {of_run} has no backups: it made none, or they were pruned after their retention")
    allowed = {str(target.root) for target in installation.settings.targets}
    for kept in sets:
        if kept.root not in allowed:
            raise RunRefusedError(
                f"{kept.root} is not the root of a configured target any more; add it to cleanup.yaml to restore there"
            )
    return sets


def _place_holds(
    installation: Installation, request: RestoreRequest, sets: Sequence[KeptBackups], now_ns: int
) -> Iterator[int]:
    """Hold what is about to be restored, by the very selection: few rows, whatever the number of files."""
    until_ns = now_ns + installation.settings.backup.restore_hold_days * NS_PER_DAY
    patterns = request.paths or tuple(sorted({f"{to_text(kept.root)}/**" for kept in sets}))
    with installation.database.begin() as conn:
        for pattern in patterns:
            for data_type in request.data_types or (None,):
                yield add_hold(
                    conn,
                    pattern=pattern,
                    reason=f"restored from run {request.of_run}",
                    placed_by=request.executed_by,
                    now_ns=now_ns,
                    data_type=data_type,
                    until_ns=until_ns,
                )


def _restore_set(
    installation: Installation, kept: KeptBackups, request: RestoreRequest, found: _Found, progress: Progress
) -> None:
    verify_manifest(ManifestRef(kept.manifest, kept.sha256, kept.rows))
    selection, root_text = Selection(request), to_text(kept.root)
    header = Header(Kind.RESTORED, request.run_id, kept.target, kept.root, installation.clock(), kept.directory)
    with ExitStack() as stack:
        root = stack.enter_context(open_root(Path(kept.root)))
        store = stack.enter_context(open_file_backups(Path(kept.directory), kept.run_id))
        path = installation.state.restored(request.run_id, kept.target)
        manifest = stack.enter_context(write_manifest(path, header))
        restorer = Restorer(root, store, dry_run=request.dry_run)
        for receipt in read_manifest(Path(kept.manifest), Receipt):
            if selection.takes(root_text, receipt):
                restored = restorer.restore(receipt)
                manifest.write(restored)
                found.add(restored)
                progress(1)
        manifest.close()


def _conclude(
    installation: Installation, request: RestoreRequest, found: _Found, holds: tuple[int, ...], problem: str
) -> RestoreReport:
    states: dict[RestoreState, Tally] = {}
    for (_, state), tally in found.by_type.items():
        states[state] = states.get(state, Tally()).plus(tally.files, tally.bytes)
    manifests = str(installation.state.manifests(request.run_id))
    report = RestoreReport(request, states, tuple(found.troubled), holds, manifests, problem)
    now_ns = installation.clock()
    status = RunStatus.FAILED if report.problems else RunStatus.DONE
    with installation.database.begin() as conn:
        if not request.dry_run:
            audit.append(conn, _audit_rows(report, found, status, now_ns))
        finish_run(conn, request.run_id, status, "; ".join(report.problems), None, now_ns)
    installation.state.mark_ended(request.run_id)
    return report


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
