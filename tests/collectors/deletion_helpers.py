"""The deletion protocol on real files, driven as a run and its recovery drive it, without database and Dagster."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cleanup_dagster.backups.files import open_file_backups
from cleanup_dagster.backups.manifest import Header, Kind, ManifestWriter, read_manifest, write_manifest
from cleanup_dagster.collectors import deletion
from cleanup_dagster.collectors.deletion import Totals, back_up, delete, discard_backups, recover
from cleanup_dagster.filesystem.identity import identify
from cleanup_dagster.filesystem.names import to_os, to_text
from cleanup_dagster.filesystem.quarantine import Quarantine, left_quarantines, open_quarantine, reopen_quarantine
from cleanup_dagster.filesystem.tree import Directories, open_root
from cleanup_dagster.retention.holds import HoldMatcher
from cleanup_dagster.retention.models import Candidate, Hold, Outcome, Reason, Receipt, State, Verdict

if TYPE_CHECKING:  # programs that are struck import this, too
    import pytest

DATA_TYPE = "logs"
NOBODY = 65_534
QUARANTINE = f".cleanup-q-{os.geteuid()}"
WRITTEN = "it was written to since it was judged"
_WAIT = "\nprint('ready', flush=True)\nsys.stdin.read()\n"


def no_progress(_: int) -> None:
    """Report nothing."""


class Platform:
    """A root to clean, a place for backups and one for manifests. Every run on it has a number."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.backups = directory / "backups"
        self.state = directory / "state"
        for path in (self.root, self.state):
            path.mkdir(exist_ok=True)
        self.runs = itertools.count(sum(1 for _ in self.state.glob("*.receipts")))
        self.run = "none yet"
        self.holds: list[Hold] = []
        self.remove_empty_directories = False

    def file(self, path: str, content: str = "content", mtime: float = 1_700_000_000) -> Path:
        """Make a file in the root."""
        made = self.root / path
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(content)
        os.utime(made, (mtime, mtime))
        return made

    def verdicts(self, *paths: str) -> list[Verdict]:
        """Return verdicts that delete these files (text form) as they are now; all files when none is named."""
        names = paths or sorted(to_text(str(p.relative_to(self.root))) for p in self.root.rglob("*") if p.is_file())
        return [self.verdict(name) for name in names]

    def verdict(self, path: str) -> Verdict:
        """Return the verdict that deletes one file as it is now."""
        status = (self.root / to_os(path)).lstat()
        candidate = Candidate(path, identify(status), DATA_TYPE, status.st_mtime_ns, changed_ns=status.st_ctime_ns)
        return Verdict(candidate, True, Reason.EXPIRED, 1)

    def back_up(self, verdicts: Iterable[Verdict], *, skip_backup: bool = False) -> Totals:
        """Begin a new run and back up. What broke is raised, and then no intent is committed."""
        self.run = f"{next(self.runs):08d}run"
        with ExitStack() as stack:
            directories = stack.enter_context(self._directories())
            store = None if skip_backup else stack.enter_context(open_file_backups(self.backups, self.run))
            receipts = stack.enter_context(self._writing("receipts", Kind.RECEIPTS))
            skipped = stack.enter_context(self._writing("skipped", Kind.OUTCOMES))
            _, totals = back_up(verdicts, directories, store, receipts, skipped, no_progress)
            skipped.close()
            receipts.close()
        self.path("intent").touch()
        return totals

    def delete(self, between: Callable[[], None] | None = None) -> Totals:
        """Delete what the current run backed up; `between` is called where holds are read, before every batch."""

        def current_holds() -> HoldMatcher:
            if between is not None:
                between()
            return HoldMatcher(self.holds, str(self.root), 0)

        totals = Totals()
        with ExitStack() as stack:
            root = stack.enter_context(open_root(self.root))
            directories = stack.enter_context(closing(Directories(root)))
            quarantine = stack.enter_context(open_quarantine(root))
            outcomes = stack.enter_context(self._writing("outcomes", Kind.OUTCOMES))
            delete(
                self.receipts(),
                directories,
                quarantine,
                self.run,
                current_holds,
                outcomes,
                totals,
                no_progress,
                remove_empty_directories=self.remove_empty_directories,
            )
            outcomes.close()
        return totals

    def recover(self) -> list[Outcome]:
        """Settle the current run as the next one would, and return what was found out now."""
        if not self.path("intent").exists():
            if self.path("receipts").exists():
                with open_file_backups(self.backups, self.run) as store:
                    discard_backups(read_manifest(self.path("receipts"), Receipt, torn=True), store)
            return []
        settled = len(self.outcomes())
        name = f"recovered-{sum(1 for _ in self.state.glob(f'{self.run}.recovered-*'))}"
        with ExitStack() as stack:
            root = stack.enter_context(open_root(self.root))
            directories = stack.enter_context(closing(Directories(root)))
            quarantines = stack.enter_context(self._quarantines(root))
            recovered = stack.enter_context(self._writing(name, Kind.OUTCOMES))
            holds = HoldMatcher(self.holds, str(self.root), 0)
            in_doubt = self.receipts()[settled : settled + deletion.BATCH if self.path("outcomes").exists() else None]
            recover(in_doubt, directories, quarantines, self.run, holds, recovered)
            recovered.close()
        return list(read_manifest(self.path(name), Outcome))

    def receipts(self) -> list[Receipt]:
        """Return the receipts of the current run."""
        return list(read_manifest(self.path("receipts"), Receipt))

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes that the current run's deletion made durable."""
        path = self.path("outcomes")
        return list(read_manifest(path, Outcome, torn=True)) if path.exists() else []

    def skipped(self) -> list[Outcome]:
        """Return what the current run could not back up."""
        return list(read_manifest(self.path("skipped"), Outcome))

    def path(self, what: str) -> Path:
        """Return where something of the current run is kept."""
        return self.state / f"{self.run}.{what}"

    def files(self) -> dict[str, str]:
        """Return the files in the root, quarantine included, with their contents."""
        return _contents(self.root)

    def copies(self) -> dict[str, str]:
        """Return the copies in the store, staged ones included, with their contents."""
        return _contents(self.backups)

    @contextmanager
    def _directories(self) -> Generator[Directories]:
        with open_root(self.root) as root, closing(Directories(root)) as directories:
            yield directories

    @contextmanager
    def _quarantines(self, root: int) -> Generator[list[Quarantine]]:
        with ExitStack() as stack:
            ours = [stack.enter_context(reopen_quarantine(root, name)) for name in left_quarantines(root)]
            yield [quarantine for quarantine in ours if quarantine is not None]

    @contextmanager
    def _writing(self, what: str, kind: Kind) -> Generator[ManifestWriter]:
        with write_manifest(self.path(what), Header(kind, self.run, "t", str(self.root), 1, "")) as writer:
            yield writer


def _contents(top: Path) -> dict[str, str]:
    return {str(p.relative_to(top)): p.read_text() for p in sorted(top.rglob("*")) if p.is_file() or p.is_symlink()}


@contextmanager
def other_process(code: str, *arguments: object) -> Generator["subprocess.Popen[str]"]:
    """Run Python code in another process up to its end, and keep that process there while the block runs."""
    command = [sys.executable, "-c", "import os, sys\n" + code + _WAIT, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def states(outcomes: list[Outcome]) -> dict[str, tuple[State, str]]:
    """Return the states and details of outcomes by path."""
    return {outcome.path: (outcome.state, outcome.detail) for outcome in outcomes}


def no_lease(_: int) -> bool:
    """Say that no lease is to be had, in place of the one that asks for it."""
    return False


def around_take(
    monkeypatch: "pytest.MonkeyPatch",
    *,
    before: Callable[[str], None] | None = None,
    after: Callable[[str], None] | None = None,
) -> None:
    """Let something happen right before or after a file is moved into the quarantine."""
    take = Quarantine.take

    def taking(self: Quarantine, directory: int, name: str, slot: str) -> None:
        if before is not None:
            before(name)
        take(self, directory, name, slot)
        if after is not None:
            after(name)

    monkeypatch.setattr(Quarantine, "take", taking)


def append(file: Path) -> None:
    """Write more to a file, which is seen as `WRITTEN`."""
    with file.open("a") as out:
        out.write(" more")


def replace(file: Path) -> None:
    """Put another file of the same bytes and mtime in its place."""
    new = file.with_name("new")
    new.write_text("content")
    os.utime(new, ns=(0, file.stat().st_mtime_ns))
    new.replace(file)
