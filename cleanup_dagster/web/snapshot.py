"""Which scan the lists of files come from: the newest finished one that can be read, less what went since.

A thread looks for a newer one every few seconds and has its index made in a process of its own; until that is there the
last one serves. Making a plan's index on demand goes the same way.
"""

import contextlib
import logging
import shutil
import subprocess
import uuid
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path
from threading import Event, Lock, Thread

import msgspec
from msgspec import Struct

from cleanup_dagster.database.errors import DatabaseUnavailable, SchemaMismatch
from cleanup_dagster.database.runs import RunRecord, RunStatus
from cleanup_dagster.filesystem.locks import host_lock
from cleanup_dagster.filesystem.private import UnsafeDirectoryError, private_directory
from cleanup_dagster.installation import Installation
from cleanup_dagster.interpreter import command_of
from cleanup_dagster.retention.models import CleanupType
from cleanup_dagster.settings import ConfigError
from cleanup_dagster.web.errors import Refusal
from cleanup_dagster.web.index import FileIndex
from cleanup_dagster.web.indexing import DAMAGED, Material
from cleanup_dagster.web.platform import Platform

_log = logging.getLogger(__name__)
_LOOK_EVERY_SECONDS = 3.0
_MAKING_SECONDS = 300
#: Runs that are looked through for the newest scan.
_RUNS = 200
_PLANS = 2


class Snapshot(Struct, frozen=True):
    """An index, the run whose scan it shows, and the live runs whose deletions are taken out of it."""

    index: FileIndex
    run_id: str
    since: tuple[str, ...]


class IndexingError(Exception):
    """An index could not be made; the message says why."""


class _DamagedError(IndexingError):
    """Nor will it ever be: the plan is damaged."""


_MET = (ConfigError, DatabaseUnavailable, IndexingError, OSError, SchemaMismatch, UnsafeDirectoryError)


class Snapshots:
    """The current snapshot, and the indexes of the plans that somebody looks at."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._current: Snapshot | None = None
        self._damaged: dict[str, str] = {}
        self._problem: str | None = None
        self._plans: OrderedDict[str, FileIndex] = OrderedDict()
        self._making_plan = Lock()
        self._looking = Lock()
        self._wake, self._over = Event(), Event()
        self._thread = Thread(target=self._keep_looking, name="cleanup-snapshots", daemon=True)
        self._place: Path | None = None
        self._placing = Lock()
        self._held = ExitStack()
        self._retired: FileIndex | None = None
        self._scan: subprocess.Popen[bytes] | None = None

    @property
    def current(self) -> Snapshot | None:
        """The newest scan that is indexed, or None before the first."""
        return self._current

    @property
    def problem(self) -> str | None:
        """Why the lists come from an older scan than the newest, or from none; None when they do not."""
        return self._problem

    @property
    def is_scanning(self) -> bool:
        """Whether a scan of the page's own is at work."""
        return self._scan is not None and self._scan.poll() is None

    def scan(self, process: "subprocess.Popen[bytes]") -> None:
        """Look after a scan that was started in a process of its own."""
        self._scan = process

    def start(self) -> None:
        """Begin to look for newer scans."""
        self._thread.start()

    def stop(self) -> None:
        """End looking."""
        self._over.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(10)
        if self._scan is not None:
            self._scan.terminate()
            self._scan.wait()
        current = [self._current.index] if self._current else []
        for index in (*current, *self._plans.values(), *filter(None, [self._retired])):
            index.remove()
        with self._held:
            if self._place is not None:
                shutil.rmtree(self._place)

    def look(self) -> None:
        """Make the snapshot current, now. Raises what opening the installation does, or IndexingError."""
        with self._looking:
            installation = self._platform.installation
            problem: str | None = None
            for base, since in self._scans(installation):
                if base.run_id not in self._damaged and self._show(installation, base.run_id, since):
                    break
                problem = self._problem = problem or self._damaged[base.run_id]  # said before an older one is shown
            self._problem = problem

    def _show(self, installation: Installation, run_id: str, since: tuple[str, ...]) -> bool:
        """Make a scan the current one, unless it is that already; False when its plan is damaged."""
        current = self._current
        if current is not None and (current.run_id, current.since) == (run_id, since):
            return True
        try:
            index = self._index(installation, run_id, since)
        except _DamagedError as error:
            self._damaged[run_id] = f"the plan of run {run_id} cannot be read: {error}"
            _log.warning("the list of files comes from an older scan: %s", self._damaged[run_id])
            return False
        self._current = Snapshot(index, run_id, since)
        if current is not None:
            self._retire(current.index)
        return True

    def of_plan(self, run_id: str) -> FileIndex:
        """Return the index of one plan, made now when it is not there. Raises Refusal."""
        current = self._current
        if current is not None and current.run_id == run_id and not current.since:
            return current.index
        with self._making_plan:
            if run_id not in self._plans:
                installation = self._platform.installation
                if not _manifests(installation, run_id):
                    raise Refusal(HTTPStatus.NOT_FOUND, f"there is no plan of run {run_id!r}, or it is kept no longer")
                try:
                    self._plans[run_id] = self._index(installation, run_id, ())
                except IndexingError as error:
                    raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None
                if len(self._plans) > _PLANS:
                    self._retire(self._plans.popitem(last=False)[1])
            self._plans.move_to_end(run_id)
            return self._plans[run_id]

    def _keep_looking(self) -> None:
        said = ""
        while not self._over.is_set():
            try:
                self.look()
                said = ""
            except _MET as error:
                if str(error) != said:  # once, not every three seconds
                    said = str(error)
                    _log.warning("the list of files is not brought up to date: %s", said)
            except Exception:  # noqa: BLE001  a bug here must not end the looking; the log has it
                _log.exception("looking for a newer scan failed")
            self._wake.wait(_LOOK_EVERY_SECONDS)
            self._wake.clear()

    def _scans(self, installation: Installation) -> Iterator[tuple[RunRecord, tuple[str, ...]]]:
        """Yield the complete scans, newest first, each with the live runs that ended since it began."""
        since: list[str] = []
        for run in self._platform.records.runs(_RUNS):
            if run.status is RunStatus.RUNNING or run.cleanup_type is CleanupType.RESTORE:
                continue
            if not run.dry_run:
                since.append(run.run_id)
            if run.plan_of is None and _manifests(installation, run.run_id):
                yield run, tuple(since)

    def _index(self, installation: Installation, run_id: str, since: Sequence[str]) -> FileIndex:
        directory = self._directory(installation)
        output = directory / f"{uuid.uuid4().hex}.db"
        material = Material(
            tuple(map(str, _manifests(installation, run_id))),
            tuple(str(path) for live in since for path in _outcomes(installation, live)),
            {target.name: target.min_age_ns for target in installation.settings.all_targets},
            str(output),
        )
        _make(material)
        return FileIndex(output)

    def _directory(self, installation: Installation) -> Path:
        """Return this process's directory of indexes, and remove those of processes that are gone."""
        with self._placing:
            if self._place is None:
                top = installation.state.path / "index"
                place = self._held.enter_context(_locked(top / uuid.uuid4().hex))
                for other in top.iterdir():
                    with _locked(other) as left:
                        if left is not None:
                            shutil.rmtree(left)
                self._place = place
            if self._place is None:
                raise IndexingError("the directory of indexes is locked by somebody else")
            return self._place

    def _retire(self, index: FileIndex) -> None:
        """Remove an index that was replaced; not before the next one is, because a request may still read it."""
        if self._retired is not None:
            self._retired.remove()
        self._retired = index


@contextmanager
def _locked(directory: Path) -> Generator[Path | None]:
    """Hold a directory, made 0700 if it is not there, as long as the block lasts; None when another process does."""
    with private_directory(directory, "index directory") as fd, host_lock(fd) as free:
        yield directory if free else None


def _manifests(installation: Installation, run_id: str) -> list[Path]:
    directory = installation.state.path / "plans" / run_id
    return sorted(directory.glob("*.jsonl.zst")) if "/" not in run_id and not run_id.startswith(".") else []


def _outcomes(installation: Installation, run_id: str) -> Iterator[Path]:
    directory = installation.state.path / "manifests" / run_id
    yield from sorted([*directory.glob("*.outcomes.jsonl.zst"), *directory.glob("*.recovered-*.jsonl.zst")])


def _make(material: Material) -> None:
    command = command_of("cleanup_dagster.web.indexing")
    with contextlib.suppress(subprocess.TimeoutExpired):
        made = subprocess.run(  # noqa: S603  our own module
            command, input=msgspec.json.encode(material), capture_output=True, timeout=_MAKING_SECONDS, check=False
        )
        if made.returncode == 0:
            return
        last = made.stderr.decode(errors="replace").strip().splitlines()[-1:]
        if made.returncode == DAMAGED and last:
            raise _DamagedError(last[0])
        raise IndexingError(f"the index of files could not be made: {last[0] if last else 'its process ended'}")
    raise IndexingError(f"the index of files was not made within {_MAKING_SECONDS} seconds")
