"""A restore that is struck within a batch: each file has come back whole or not at all, and the next one finishes."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Generator
from contextlib import closing, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import deletion_helpers
import pytest
from deletion_faults import Fault, killed, struck
from service_helpers import Platform, files, left_behind
from undo_helpers import clean, counts, undo

from cleanup_dagster.backups import archive
from cleanup_dagster.backups import files as store_of_files
from cleanup_dagster.backups import restore as restoring_one
from cleanup_dagster.backups.files import open_file_backups
from cleanup_dagster.backups.restore import Restorer, sweep
from cleanup_dagster.filesystem.tree import open_root
from cleanup_dagster.retention.models import Frame, Restored, RestoreState

FILES = {"a.log": "one", "d/b.log": "two", "d/e/c.log": "", "d/e/f.log": "four" * 9_000, "g.log": "five"}
_MEMORY = "/dev/shm"  # noqa: S108
_UNTRIED = {"close", "read", "pread", "lseek", "posix_fadvise"}
NAMELESS = [
    pytest.param(True, id="nameless", marks=pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="Linux only")),
    pytest.param(False, id="by way of the quarantine"),
]


class Struck:
    """A root whose files are deleted, to be restored again and again by the very same receipts."""

    def __init__(self, home: Path) -> None:
        self.home = home
        protocol = deletion_helpers.Platform(home)
        for path, content in FILES.items():
            protocol.file(path, content)
        protocol.back_up(protocol.verdicts())
        self.receipts = protocol.receipts()
        self.root, self._backups = protocol.root, protocol.backups
        self.made: list[str] = []
        self.start_again()

    def start_again(self) -> None:
        for path in self.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def restore(self, fault: Fault | None = None) -> list[Restored]:
        """Restore by all receipts; with a fault, struck by it. `made` are then the calls."""
        with (
            open_root(self.root) as root,
            open_file_backups(self._backups, "a-restore") as store,
            nullcontext([]) if fault is None else struck(fault) as self.made,
            closing(Restorer(root, store, dry_run=False)) as restorer,
        ):
            return list(restorer.restore(self.receipts))

    def there(self) -> dict[str, str]:
        return {path: (self.root / path).read_text() for path in files(self.root) if ".cleanup-q-" not in path}

    def wrong(self, what: str) -> Generator[str]:
        """Yield what a strike has broken, and what the next restore does not make good."""
        yield from (f"{what}: {path} is not whole" for path, text in self.there().items() if text != FILES[path])
        with open_root(self.root) as root:
            sweep(root)
        well = {RestoreState.RESTORED, RestoreState.PRESENT}
        yield from (f"{what}, then: {one.path}: {one.detail}" for one in self.restore() if one.state not in well)
        if self.there() != FILES or left_behind(self.home):
            yield f"{what}, then: {sorted(self.there())}, and left are {left_behind(self.home)}"


@pytest.fixture(params=NAMELESS)
def trial(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Generator[Struck]:
    """In memory, where fsync costs nothing: what a kill or an error leaves is the same as on a disk."""
    monkeypatch.setattr(restoring_one, "BATCH_FILES", 3)
    if not request.param:
        monkeypatch.setattr(restoring_one, "_NO_NAME", None)
    with tempfile.TemporaryDirectory(dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None) as home:
        yield Struck(Path(home))


def test_killed_at_every_call_each_file_is_whole_or_absent(trial: Struck) -> None:
    made = rehearsed(trial)
    problems: list[str] = []
    for number, name in enumerate(made, 1):
        trial.start_again()
        killed(partial(trial.restore, Fault(number)), Fault())
        problems += trial.wrong(f"killed before call {number}, {name}")
    assert problems == []
    assert len(made) > 60


def test_whatever_call_fails_each_file_is_whole_or_absent_and_what_failed_is_said(trial: Struck) -> None:
    made = rehearsed(trial)
    problems: list[str] = []
    for number, name in enumerate(made, 1):
        if name in _UNTRIED:
            continue
        trial.start_again()
        what = f"EIO at call {number}, {name}"
        said: list[Restored] = []
        with suppress(OSError):  # the quarantine's end, say: then the whole restore fails visibly
            said = trial.restore(Fault(number, errno.EIO))
        there = trial.there()
        problems += [f"{what}: {one.path} is missing" for one in said if one.state.is_well and one.path not in there]
        problems += trial.wrong(what)
    assert problems == []


def rehearsed(trial: Struck) -> list[str]:
    """Return the calls that a restore makes when nothing befalls it."""
    assert {one.state for one in trial.restore(Fault())} == {RestoreState.RESTORED}
    assert trial.there() == FILES
    return list(trial.made)


def test_a_files_bytes_are_durable_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Struck(tmp_path)
    seen: list[str] = []
    durable: set[int] = set()
    fsync, link = os.fsync, os.link

    def syncing(fd: int) -> None:
        fsync(fd)
        durable.add(os.fstat(fd).st_ino)

    def linking(source: str, name: str, **keywords: Any) -> None:
        seen.append("durable" if Path(source).stat().st_ino in durable else "not durable")
        link(source, name, **keywords)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "link", linking)
    trial.restore()
    assert seen == ["durable"] * len(FILES)


def test_an_fsync_that_failed_is_not_tried_again_and_all_files_of_its_directory_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Struck(tmp_path)
    tried: list[str] = []
    fsync = os.fsync

    def failing(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            tried.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", failing)
    assert {one.state for one in trial.restore()} == {RestoreState.FAILED}
    assert tried == [str(trial.root)]  # in which all the others lie


def test_a_directory_that_is_moved_out_of_the_root_meanwhile_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Struck(tmp_path)
    (trial.root / "d").mkdir()
    true = restoring_one.sync_each

    def moving(fds: list[int]) -> list[OSError | None]:
        (trial.root / "d").rename(tmp_path / "elsewhere")
        return true(fds)

    monkeypatch.setattr(restoring_one, "sync_each", moving)
    assert {one.state for one in trial.restore()} == {RestoreState.RESTORED}
    assert trial.there() == FILES
    assert files(tmp_path / "elsewhere") == set()


def test_every_frame_of_an_archive_is_unpacked_once(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.target("logs")["format"] = "archive"
    for number in range(40):
        platform.log(f"{number % 3}/{number}.log", 40, str(number) * 50_000)
    run_id = clean(platform)
    unpacked: list[int] = []

    def counted(fd: int, frame: Frame) -> bytes:
        unpacked.append(frame.offset)
        return archive.unpack_small(fd, frame)

    monkeypatch.setattr(store_of_files, "unpack_small", counted)
    assert counts(undo(platform, run_id)) == {RestoreState.RESTORED: 40}
    assert len(unpacked) == len(set(unpacked)) > 2
