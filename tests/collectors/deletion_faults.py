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
import itertools
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from deletion_helpers import Platform

from cleanup_dagster.backups.files import BackupError
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
ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EMFILE)
#: What a step of a run may raise, as its service knows it.
TROUBLE = (BackupError, ManifestError, OSError, RootError, UnsafeDirectoryError)
_CALLS = ("open", "read", "pread", "write", "lseek", "ftruncate", "fsync", "stat", "fstat", "scandir", "mkdir", "rmdir",
          "rename", "link", "unlink", "posix_fadvise")  # fmt: skip
_UNFAILING = ("close",)  # struck by a kill only


class Fault(NamedTuple):
    """What happens at the call of that number: an error number, or a kill before or after it."""

    at: int = 0
    error: int = 0
    after: bool = False


@contextmanager
def struck(fault: Fault) -> Generator[list[str]]:
    """Let a fault happen within the block; yields the names of the calls made."""
    made: list[str] = []
    undo: list[Callable[[], None]] = []

    def hook(holder: Any, name: str, refused: Callable[[], Any] | None) -> None:
        function = getattr(holder, name)

        @functools.wraps(function)
        def hooked(*arguments: Any, **keywords: Any) -> Any:
            made.append(name)
            now = len(made) == fault.at
            if now and fault.error and refused is not None:
                return refused()
            if now and not fault.error and not fault.after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return function(*arguments, **keywords)
            finally:
                if now and not fault.error and fault.after:
                    os.kill(os.getpid(), signal.SIGKILL)

        setattr(holder, name, hooked)
        undo.append(lambda: setattr(holder, name, function))

    def fail() -> None:
        raise OSError(fault.error, os.strerror(fault.error))

    def fail_in_c() -> int:
        syscalls.ctypes.set_errno(fault.error)
        return -1

    for name in _CALLS:
        hook(os, name, fail)
    for name in _UNFAILING:
        hook(os, name, None)
    for name in ("flock", "fcntl"):
        hook(fcntl, name, fail)
    hook(syscalls, "_rename", fail_in_c)
    try:
        yield made
    finally:
        for restore in undo:
            restore()


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

        def change_first(quarantine: Quarantine, directory: int, name: str, slot: str) -> None:
            if name == Path(CHANGED).name and not self.appended.exists():
                with (self.platform.root / CHANGED).open("a") as out:
                    out.write(MORE)
                self.appended.write_text("")
            take(quarantine, directory, name, slot)

        Quarantine.take = change_first
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
            deleted = outcome is not None and outcome.state is State.DELETED
            if files.get(path) == self.expected(path):
                if deleted:
                    yield f"{path} is in its place and on record as deleted"
            elif path in files:
                yield f"{path} has other bytes"
            elif deleted:
                receipt = receipts[path]
                if hashlib.sha256(copies.get(receipt.backup, "?").encode()).hexdigest() != receipt.sha256:
                    yield f"{path} is deleted without a copy"
            elif outcome is None or outcome.state not in {State.FAILED, State.CONFLICT}:
                yield f"{path} is gone and on record as {outcome and outcome.state.value}"
            elif self.expected(path) not in files.values():
                yield f"{path} does not stay whole in quarantine: {outcome.detail}"
        kept = {o.number for o in recorded.values() if o.state in {State.FAILED, State.CONFLICT}}
        for name in files:
            if "cleanup-q" in name and int(name.rpartition(".")[2]) not in kept:
                yield f"{name} is left in quarantine, and nobody is told"
        for name in copies:
            if not promised or name.startswith(".staging"):
                yield f"{name} is left in the store"


def settle(trial: Trial, what: str) -> Generator[str]:
    """Recover twice, as the next runs would, and yield what is wrong then."""
    for attempt in ("recovery", "a second recovery"):
        trial.platform.recover()
        yield from (f"{what}, after {attempt}: {problem}" for problem in trial.broken())


def killed(act: Callable[[], None], fault: Fault) -> None:
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
    for (number, name), after in itertools.product(enumerate(calls_of(directory), 1), (False, True)):
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
    """Kill a run wherever a file has just been moved, then strike its recovery, too."""
    made = calls_of(directory)
    for move in [number for number, name in enumerate(made, 1) if name in {"rename", "unlink"}]:

        def interrupted(move: int = move) -> Trial:
            trial = Trial(directory)
            killed(trial.run, Fault(move, after=True))
            return trial

        with struck(Fault()) as recovering:
            interrupted().platform.recover()
        for number, name in enumerate(recovering, 1):
            for fault in (Fault(number), Fault(number, after=True), *(Fault(number, code) for code in ERRORS[:1] + ERRORS[4:])):
                if fault.error and name in _UNFAILING:
                    continue
                what = f"killed after call {move}, {made[move - 1]}, and {fault} at {name} of recovery"
                trial = interrupted()
                if fault.error:
                    with contextlib.suppress(*TROUBLE), struck(fault):
                        trial.platform.recover()
                else:
                    killed(lambda trial=trial: trial.platform.recover() and None, fault)
                yield [f"{what}: {problem}" for problem in trial.lost()] + list(settle(trial, what))


KINDS = {"kill": strike_with_kills, "error": strike_with_errors, "recovery": strike_recovery}

if __name__ == "__main__":
    deletion.BATCH = 2
    results = list(KINDS[sys.argv[2]](Path(sys.argv[1]) / "trial"))
    print(json.dumps({"points": len(results), "problems": [problem for result in results for problem in result]}))
