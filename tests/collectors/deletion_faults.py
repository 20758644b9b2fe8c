"""Strikes the deletion protocol at every call to the operating system, and says what that broke.

A program of its own, because it forks: started by test_deletion_faults.py with a directory and a kind of fault, it
prints as JSON how many points it struck and every violation of what the protocol promises:

    now             every byte is at its original name, in quarantine, or in a copy
    after recovery  every file is in its place, or a copy with the recorded hash exists and the deletion is on record
"""

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import math
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from deletion_helpers import Platform

from cleanup_dagster.backups.files import BackupError, FileBackups
from cleanup_dagster.backups.manifest import ManifestError, read_manifest
from cleanup_dagster.collectors import deletion
from cleanup_dagster.filesystem import syscalls
from cleanup_dagster.filesystem.private import UnsafeDirectoryError
from cleanup_dagster.filesystem.quarantine import Quarantine
from cleanup_dagster.filesystem.tree import RootError
from cleanup_dagster.retention.models import Outcome, State, Verdict

FILES = {"a.log": "one", "d/b.log": "two", "d/c.log": "three", "d/e.log": "four", "f.log": ""}
CHANGED = "d/c.log"  # written to in the moment before it is moved, so it is put back
MORE = " more"
_ALL = os.environ.get("PROVE") == "all"  # else a sample
ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EMFILE) if _ALL else (errno.EIO, errno.EACCES)
#: What a step of a run may raise, as its service knows it.
TROUBLE = (BackupError, ManifestError, OSError, RootError, UnsafeDirectoryError)
_CALLS = ("open", "read", "pread", "write", "lseek", "ftruncate", "fsync", "stat", "fstat", "scandir", "mkdir", "rmdir",
          "rename", "link", "unlink", "posix_fadvise")  # fmt: skip
#: The states in which a file may stay in quarantine, for a person to move.
STAYS = frozenset({State.FAILED, State.CONFLICT})
#: Calls that leave everything as it was: what dies before one of them dies as it would before the next.
READING = frozenset({"open", "read", "pread", "lseek", "stat", "fstat", "scandir", "flock", "fcntl", "close"})
_UNFAILING = ("close",)  # struck by a kill only
_COUNTING = threading.Lock()


class Fault(NamedTuple):
    """What happens at the call of that number: an error number, or a kill before or after it."""

    at: int = 0
    error: int = 0
    after: bool = False


@contextmanager
def struck(fault: Fault) -> Generator[list[str]]:
    """Let a fault happen within the block; yields the names of the calls made."""
    made: list[str] = []

    def fail() -> None:
        raise OSError(fault.error, os.strerror(fault.error))

    def fail_in_c() -> int:
        syscalls.ctypes.set_errno(fault.error)
        return -1

    with ExitStack() as undo:
        for name in _CALLS:
            undo.enter_context(hooking(os, name, made, fault, fail))
        for name in _UNFAILING:
            undo.enter_context(hooking(os, name, made, fault, None))
        for name in ("flock", "fcntl"):
            undo.enter_context(hooking(fcntl, name, made, fault, fail))
        for name in ("_rename", "_syncfs"):
            undo.enter_context(hooking(syscalls, name, made, fault, fail_in_c))
        yield made


@contextmanager
def hooking(holder: Any, name: str, made: list[str], fault: Fault, refuse: Callable[[], Any] | None) -> Generator[None]:
    function = getattr(holder, name)

    @functools.wraps(function)
    def hooked(*arguments: Any, **keywords: Any) -> Any:
        with _COUNTING:  # some of the calls are made by several threads
            made.append("create" if name == "open" and _creates(arguments) else name)
            number = len(made)
        if number != fault.at:
            return function(*arguments, **keywords)
        if fault.error and refuse is not None:
            return refuse()
        if not fault.after:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return function(*arguments, **keywords)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(holder, name, hooked)
    try:
        yield
    finally:
        setattr(holder, name, function)


def _creates(arguments: tuple[Any, ...]) -> bool:
    return len(arguments) > 1 and bool(arguments[1] & os.O_CREAT)


def add(file: Path, more: str) -> None:
    """Put a longer file in the place of one, as who writes anew does: an append would wait for the run's lease."""
    new = file.with_name("new")
    with new.open("w") as out:
        out.write(file.read_text() + more)
        out.flush()
        os.fdatasync(out.fileno())
    new.replace(file)


class Trial:
    """One platform with a small batch in several batches, to be struck once."""

    def __init__(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
        self.platform = Platform(directory)
        for path, content in FILES.items():
            self.platform.file(path, content)
        self.verdicts: list[Verdict] = self.platform.verdicts()
        self.platform.run = "00000000run"
        self.appended = directory / "appended"

    def run(self) -> None:
        """What a live run does; an error is answered as a run answers it."""
        take = Quarantine.take

        def change_first(self_: Quarantine, directory: int, name: str, slot: str) -> None:
            if name == Path(CHANGED).name and not self.appended.exists():
                add(self.platform.root / CHANGED, MORE)
                self.appended.write_text("")
            take(self_, directory, name, slot)

        setattr(Quarantine, "take", change_first)  # noqa: B010  a plain assignment would be a type error
        try:
            self.platform.back_up(self.verdicts)
            self.platform.delete()
        except TROUBLE:
            with contextlib.suppress(*TROUBLE):
                self.platform.recover()
        finally:
            Quarantine.take = take

    def expected(self, path: str) -> str:
        return FILES[path] + (MORE if path == CHANGED and self.appended.exists() else "")

    def recorded(self) -> dict[str, Outcome]:
        """Return the outcomes on record: those of the run, and over them those of its recoveries."""
        found = {outcome.path: outcome for outcome in self.platform.outcomes()}
        for manifest in sorted(self.platform.state.glob(f"{self.platform.run}.recovered-*")):
            found.update({o.path: o for o in read_manifest(manifest, Outcome, torn=True) if o.path not in found})
        return found

    def lost(self) -> list[str]:
        """Return the files whose bytes are neither in the root, quarantine included, nor in a copy."""
        there = {*self.platform.files().values(), *self.platform.copies().values()}
        return [f"{path} is lost" for path in FILES if self.expected(path) not in there]

    def broken(self) -> Generator[str]:
        """Yield what is not as it has to be after recovery."""
        platform, recorded = self.platform, self.recorded()
        files, copies = platform.files(), platform.copies()
        promised = platform.path("intent").exists()
        receipts = {receipt.path: receipt for receipt in platform.receipts()} if promised else {}
        for path in FILES:
            outcome = recorded.get(path)
            if path in files:
                yield from self._in_place(path, files[path], outcome)
            elif outcome is not None and outcome.state is State.DELETED:
                receipt = receipts[path]
                if hashlib.sha256(copies.get(receipt.backup, "?").encode()).hexdigest() != receipt.sha256:
                    yield f"{path} is deleted without a copy"
            elif outcome is None or outcome.state not in STAYS:
                yield f"{path} is gone and on record as {outcome and outcome.state.value}"
            elif self.expected(path) not in files.values():
                yield f"{path} does not stay whole in quarantine: {outcome.detail}"
        known = {outcome.number for outcome in recorded.values() if outcome.state in STAYS}
        left = [name for name in files if "cleanup-q" in name and int(name.rpartition(".")[2]) not in known]
        yield from (f"{name} is left in quarantine, and nobody is told" for name in left)
        left = [name for name in copies if not promised or name.startswith(".staging")]
        yield from (f"{name} is left in the store" for name in left)

    def _in_place(self, path: str, content: str, outcome: Outcome | None) -> Generator[str]:
        if content != self.expected(path):
            yield f"{path} has other bytes"
        if outcome is not None and outcome.state is State.DELETED:
            yield f"{path} is in its place and on record as deleted"


def settle(trial: Trial, what: str) -> Generator[str]:
    """Recover twice, as the next runs would, and yield what is wrong then."""
    for attempt in ("recovery", "a second recovery"):
        trial.platform.recover()
        yield from (f"{what}, after {attempt}: {problem}" for problem in trial.broken())


def killed(act: Callable[[], object], fault: Fault) -> None:
    """Do something in a child that a fault kills."""
    child = os.fork()
    if child == 0:
        try:
            with struck(fault):
                act()
        except BaseException:  # noqa: BLE001  nothing may return into the parent's code
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"{fault} did not kill"


def calls_of(directory: Path) -> list[str]:
    trial = Trial(directory)
    with struck(Fault()) as made:
        trial.run()
    assert not list(trial.broken())
    assert trial.platform.files() == {CHANGED: trial.expected(CHANGED)}
    return made


def strike_with_kills(directory: Path) -> Generator[list[str]]:
    """Kill before every call, which is after the one before it, and after the last."""
    made = calls_of(directory)
    for number, name in enumerate(made, 1):
        for after in (False, True) if number == len(made) else (False,):
            what = f"killed {'after' if after else 'before'} call {number}, {name}"
            trial = Trial(directory)
            killed(trial.run, Fault(number, after=after))
            yield [f"{what}: {problem}" for problem in trial.lost()] + list(settle(trial, what))


def strike_with_errors(directory: Path) -> Generator[list[str]]:
    for number, name in enumerate(calls_of(directory), 1):
        for code in () if name in _UNFAILING else ERRORS:
            what = f"{errno.errorcode[code]} at call {number}, {name}"
            trial = Trial(directory)
            with struck(Fault(number, code)):
                trial.run()
            yield [f"{what}: {problem}" for problem in trial.lost()] + list(settle(trial, what))


def strike_recovery(directory: Path) -> Generator[list[str]]:
    """Kill a run where a file has just been moved or removed, then strike its recovery, too."""
    made = calls_of(directory)
    moves = [number for number, name in enumerate(made, 1) if name == "rename"]
    removals = [number for number, name in enumerate(made, 1) if name == "unlink"]
    firsts = (moves[list(FILES).index(CHANGED)], moves[0], removals[1])
    for first in firsts if _ALL else firsts[:1]:
        trial = interrupted(directory, first)
        with struck(Fault()) as recovering:
            trial.platform.recover()
        for number, name in enumerate(recovering, 1):
            for code in (0, errno.EIO, errno.EMFILE):
                if name in (_UNFAILING if code else READING):
                    continue
                fault = Fault(number, code)
                what = f"killed after call {first}, {made[first - 1]}, and {fault} at {name} of recovery"
                trial = interrupted(directory, first)
                if code:
                    with contextlib.suppress(*TROUBLE), struck(fault):
                        trial.platform.recover()
                else:
                    killed(trial.platform.recover, fault)
                yield [f"{what}: {problem}" for problem in trial.lost()] + list(settle(trial, what))


def interrupted(directory: Path, after: int) -> Trial:
    """Return a trial whose run was killed after the call of that number."""
    trial = Trial(directory)
    killed(trial.run, Fault(after, after=True))
    return trial


KINDS = {"kill": strike_with_kills, "error": strike_with_errors, "recovery": strike_recovery}

if __name__ == "__main__":
    deletion.BATCH = FileBackups.batch_files = 2
    deletion.BATCH_SECONDS = math.inf  # each run has to make the same calls, however busy the machine
    results = list(KINDS[sys.argv[2]](Path(sys.argv[1]) / "trial"))
    sys.stdout.write(
        json.dumps({"points": len(results), "problems": [problem for result in results for problem in result]})
    )
