"""Strikes whole live runs, service and database included, at every call to the operating system and every commit.

A program of its own, because it forks and mounts: started by test_reliability_faults.py, it prints as JSON how many
points there were and were struck, and every violation. After each strike the next live run recovers, and then

    every file is in its place with its bytes, or the audit counts it as deleted and a restore brings it back

With a power cut, files, copies, manifests and database lie on four filesystems: on a shared one the commit of the
journal for one of them would make the others durable, too, and hide a missing fsync.
"""

import argparse
import contextlib
import errno
import json
import math
import os
import random
import shutil
import sys
import tarfile
import traceback
import uuid
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

from deletion_faults import READING, Fault, add, hooking, struck
from disks import Disks, disks, in_memory
from service_helpers import Platform, left_behind, request, scan_all
from sqlalchemy import URL
from sqlalchemy.engine.default import DefaultDialect
from zstandard import ZstdDecompressor, ZstdError

from cleanup_dagster import applying
from cleanup_dagster.backups.files import FileBackups
from cleanup_dagster.backups.manifest import ManifestError
from cleanup_dagster.backups.packed import ArchiveBackups
from cleanup_dagster.collectors import deletion
from cleanup_dagster.database.engine import open_engine
from cleanup_dagster.database.schema import upgrade
from cleanup_dagster.filesystem import syscalls
from cleanup_dagster.filesystem.quarantine import Quarantine
from cleanup_dagster.handles import Counts, RestoreRequest
from cleanup_dagster.service import MET

FILES = {
    "a.log": "one",
    "d/b.log": "two",
    "d/c.log": "three",
    "d/e.log": "four",
    "empty.log": "",
    "g/h/large.log": "large " * 20_000,
}
CHANGED = "d/c.log"  # written to in the moment before it is moved, so it is put back
MORE = " more"
RUN = "struck-run"
ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EMFILE)
NAMES = ("logs", "backups", "state", "database")
#: What the kernel may have written back on its own before the power went.
WRITTEN_BACK = {
    "nothing": (),
    "files": ("logs",),
    "copies": ("backups",),
    "all-but-copies": ("logs", "state", "database"),
}


@contextmanager
def striking(fault: Fault) -> Generator[list[str]]:
    """Let a fault happen within the block, at a call or at a commit of the database."""

    def fail() -> None:
        raise OSError(fault.error, os.strerror(fault.error))

    with ExitStack() as undo:
        made = undo.enter_context(struck(fault))
        for name in ("pwrite", "fdatasync"):  # by which archives are written
            undo.enter_context(hooking(os, name, made, fault, fail))
        undo.enter_context(hooking(DefaultDialect, "do_commit", made, fault, None))
        yield made


class Trial:
    """One platform with a few files in several batches, set up once and struck many times."""

    def __init__(self, home: Path, kind: str, noted: TextIO) -> None:
        self.home = home
        self.noted = noted
        self._url = URL.create("sqlite", database=str(home / "database/cleanup.db"))
        self._appended = home / "appended"
        target = {
            "name": "logs",
            "kind": "files",
            "data_type": "system_logs",
            "root": str(home / "logs"),
            "format": kind,
            "remove_empty_dirs": True,
        }
        config = {
            "backup": {"directory": str(home / "backups")},
            "limits": {"max_share": 1.0, "free_space_reserve": 0},
            "targets": [target],
        }
        (home / "cleanup.yaml").write_text(json.dumps(config))

    @property
    def platform(self) -> Platform:
        return Platform(self.home, self._url, new=False)

    def set_up(self) -> None:
        """Make the state that every strike begins with."""
        for name in NAMES:
            shutil.rmtree(self.home / name / "lost+found", ignore_errors=True)
            (self.home / name).mkdir(exist_ok=True)
            (self.home / name).chmod(0o700)
        engine = open_engine(self._url)
        upgrade(engine)
        engine.dispose()
        for path, content in FILES.items():
            self.platform.log(path, 40, content)
        self.platform.dry()  # names the installation

    def run(self, fault: Fault) -> list[str]:
        """Do a live run, struck in what changes anything; return the calls made. Raises what an op would fail with."""
        small_batches()
        take = Quarantine.take

        def change_first(self_: Quarantine, directory: int, name: str, slot: str) -> None:
            if name == Path(CHANGED).name and not self._appended.exists():
                add(self.home / "logs" / CHANGED, MORE)
                self._appended.write_text("")
            take(self_, directory, name, slot)

        setattr(Quarantine, "take", change_first)  # noqa: B010  a plain assignment would be a type error
        with self.platform.service() as service:
            checked = scan_all(service, service.begin(request(run_id=RUN)))
            with striking(fault) as made:
                backed_up = [service.back_up(plan) for plan in checked.plans]
                results = [service.delete(one) for one in backed_up]
                report = service.audit(checked, results)
        counts = report.counts.get("system_logs", Counts())
        accounted = counts.deleted.files + counts.skipped.files + counts.failed.files
        if report.status == "done" and accounted != len(FILES):
            raise AssertionError(f"the run says done and accounts for {accounted} of {len(FILES)} files")
        return made

    def next_run(self, fault: Fault) -> list[str]:
        """Do the next live run, which recovers and is then refused anything of its own, more than a file."""
        small_batches()
        platform = self.platform
        platform.config["limits"]["max_files"] = 1
        with striking(fault) as made:
            platform.run()
        return made

    def start_again(self) -> None:
        self._appended.unlink(missing_ok=True)

    def expected(self, path: str, *, synced: bool) -> set[str]:
        """Return what may be in a file.

        What somebody appended and never synced may be lost with the power; ext4 may have kept its length alone.
        """
        if path != CHANGED or not self._appended.exists():
            return {FILES[path]}
        possible = {FILES[path] + MORE}
        return possible if synced else {*possible, FILES[path], FILES[path] + "\0" * len(MORE)}

    def lost(self, *, synced: bool) -> Generator[str]:
        """Yield the files whose bytes are neither at their name, in quarantine, nor in a copy."""
        there = {*_contents(self.home / "logs").values(), *self.copies()}
        yield from (f"{path} is lost" for path in FILES if not self.expected(path, synced=synced) & there)

    def broken(self, *, synced: bool) -> Generator[str]:
        """Yield what is not as it has to be after recovery. Restores what is gone, at the end."""
        platform, files = self.platform, _contents(self.home / "logs")
        copies = self.copies()
        gone = [path for path in FILES if path not in files]
        for path in FILES:
            if path in files and files[path] not in self.expected(path, synced=synced):
                yield f"{path} has other bytes"
        stuck = [files.pop(name) for name in list(files) if ".cleanup-q-" in name]
        failed = platform.ask("SELECT coalesce(sum(records_failed), 0) FROM cleanup_audit")[0][0]
        if len(stuck) > failed:
            yield f"{len(stuck)} files are in quarantine, {failed} are on record as failed"
        deleted = [path for path in gone if not self.expected(path, synced=synced) & set(stuck)]
        yield from (f"{p} is gone without a copy" for p in deleted if not self.expected(p, synced=synced) & copies)
        audited = platform.ask("SELECT coalesce(sum(records_deleted), 0) FROM cleanup_audit")[0][0]
        if audited != len(deleted):
            yield f"{len(deleted)} files are gone and {audited} are in the audit as deleted"
        if platform.ask("SELECT 1 FROM cleanup_runs WHERE status = 'running'"):
            yield "a run is left open"
        for name in left_behind(self.home / "logs", self.home / "backups"):
            # An empty directory whose removal was undone or refused; the next run that needs it removes it.
            if not stuck and not (Path(name).is_dir() and not any(Path(name).iterdir())):
                yield f"{name} is left behind"
        if deleted:
            yield from self._unrestorable(set(deleted), synced=synced)

    def _unrestorable(self, deleted: set[str], *, synced: bool) -> Generator[str]:
        with self.platform.service() as service:
            for backups in service.backups():
                try:
                    report = service.restore(RestoreRequest(str(uuid.uuid4()), backups.run_id, "bob", dry_run=False))
                except ManifestError as error:
                    yield f"nothing can be restored: {error}"
                    continue
                # A copy of what was then left in place is no backup of anything gone.
                yield from (p for p in report.problems if "a newer file has the name" not in p)
        files = _contents(self.home / "logs")
        yield from (f"{p} is not restored" for p in deleted if files.get(p) not in self.expected(p, synced=synced))

    def copies(self) -> set[str]:
        """Return the contents of all copies, plain or packed."""
        found = set(_contents(self.home / "backups", ".backup").values())
        for archive in (self.home / "backups").glob("*.tar.zst"):
            found.update(_members(archive))
        return found


def _done(_: int) -> int:
    """Say that everything was synced."""
    return 0


def small_batches() -> None:
    """Batches of two files, and nothing that a clock decides: each run has to make the same calls."""
    applying.HEARTBEAT_SECONDS = deletion.BATCH_SECONDS = math.inf
    deletion.BATCH = FileBackups.batch_files = ArchiveBackups.batch_files = 2
    FileBackups.worth_whole = 2  # the last copy, which is alone, has an fsync of its own


def _members(archive: Path) -> Generator[str]:
    """Yield the contents of an archive's members, as far as it is whole."""
    with archive.open("rb") as file, contextlib.suppress(tarfile.TarError, ZstdError):
        unpacked = ZstdDecompressor().stream_reader(file, read_across_frames=True)
        with tarfile.open(fileobj=unpacked, mode="r|") as tar:
            for member in tar:
                content = tar.extractfile(member)
                if content is not None:
                    yield content.read().decode()


def _contents(top: Path, suffix: str = "") -> dict[str, str]:
    paths = [path for path in sorted(top.rglob(f"*{suffix}")) if path.is_file()]
    return {str(path.relative_to(top)): path.read_text(errors="replace") for path in paths}


def in_child(act: Callable[[], object]) -> tuple[bool, str]:
    """Do something in a child; return whether it was killed, and its traceback if it raised something unforeseen."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            act()
        except MET:
            pass  # an op that fails: its run is over, visibly
        except BaseException:  # noqa: BLE001  nothing may return into the parent's code
            os.write(writing, traceback.format_exc()[-2_000:].encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        problem = said.read()
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status), problem


def checked(trial: Trial, *, synced: bool = True) -> list[str]:
    """Recover as the next run does, and return what is wrong before and after."""
    problems = list(trial.lost(synced=synced))

    def next_run() -> None:
        try:
            trial.next_run(Fault())
        except MET as error:
            raise AssertionError("the next run cannot begin") from error

    problems += filter(None, [in_child(next_run)[1]])
    return problems + list(trial.broken(synced=synced))


def calls_of(trial: Trial, act: Callable[[Fault], list[str]]) -> list[str]:
    """Return the calls that something makes when nothing befalls it."""
    trial.start_again()
    reading, writing = os.pipe()

    def rehearse() -> None:
        os.write(writing, json.dumps(act(Fault())).encode())

    _, problem = in_child(rehearse)
    os.close(writing)
    with os.fdopen(reading) as said:
        made: list[str] = json.loads(said.read() or "[]")
    assert made, problem
    return made


Point = TypeVar("Point")


class Sample:
    """Which points are struck: all, or as many as wanted, the same ones every time."""

    def __init__(self, limit: int, seed: int = 1) -> None:
        self._limit = limit
        self._chance = random.Random(seed)  # noqa: S311 - not for secrets

    def of(self, points: list[Point]) -> list[Point]:
        if not self._limit or self._limit >= len(points):
            return points
        return [points[index] for index in sorted(self._chance.sample(range(len(points)), self._limit))]


Strikes = Generator[tuple[int, list[str]]]


def cut_power(trial: Trial, sample: Sample, variant: str) -> Strikes:
    """Cut the power before every call and every commit, and after the last."""
    with disks(trial.home, NAMES, trial.noted) as power:
        made = powered(trial, power)
        points = [*map(Fault, changes(made)), Fault(len(made), after=True)]
        for fault in sample.of(points):
            trial.start_again()
            power.reset()
            what = f"power cut {'after' if fault.after else 'before'} call {fault.at}, {made[fault.at - 1]}"
            problem = cut(power, variant, lambda fault=fault: trial.run(fault))
            with mounted(power):
                problems = problem or checked(trial, synced=False)
            yield len(points), [f"{what}: {problem}" for problem in problems]


def cut_power_again(trial: Trial, sample: Sample, _: str) -> Strikes:
    """Cut the power in mid-deletion, and again in the recovery."""
    with disks(trial.home, NAMES, trial.noted) as power:
        made = powered(trial, power)
        moves = [number for number, name in enumerate(made, 1) if name == "rename"]
        removals = [number for number, name in enumerate(made, 1) if name == "unlink"]
        firsts = [Fault(moves[0], after=True), Fault(moves[2], after=True), Fault(removals[-1], after=True)]
        points: list[tuple[Fault, Fault]] = []
        for first in firsts:
            interrupted(trial, power, first)
            with mounted(power):
                recovering = calls_of(trial, trial.next_run)
            points += [(first, Fault(number)) for number in changes(recovering)]
        for first, second in sample.of(points):
            interrupted(trial, power, first)
            what = f"power cut after call {first.at}, {made[first.at - 1]}, and before call {second.at} of the next run"
            problem = cut(power, "nothing", lambda second=second: trial.next_run(second))
            with mounted(power):
                problems = problem or checked(trial, synced=False)
            yield len(points), [f"{what}: {problem}" for problem in problems]


def changes(made: list[str]) -> list[int]:
    """Return the numbers of the calls before which a cut or a kill finds another state than before the next one."""
    return [number for number, name in enumerate(made, 1) if name not in READING]


def powered(trial: Trial, power: Disks) -> list[str]:
    """Set up a trial on disks, and return the calls that a run makes."""
    with mounted(power):
        trial.set_up()
    power.remember()
    with mounted(power):
        made = calls_of(trial, trial.run)
        problems = list(trial.broken(synced=True))
    assert not problems, problems
    return made


def interrupted(trial: Trial, power: Disks, fault: Fault) -> None:
    trial.start_again()
    power.reset()
    assert not cut(power, "nothing", lambda: trial.run(fault))


def cut(power: Disks, variant: str, act: Callable[[], object]) -> list[str]:
    """Do something in a child, whose fault is a cut of the power. Return what is wrong if it did not come to that."""

    def with_a_switch() -> None:
        switch, kill = power.switch(WRITTEN_BACK[variant]), os.kill

        def cut_and_kill(process: int, number: int) -> None:
            switch()
            kill(process, number)

        os.kill = cut_and_kill  # the harness's way to end it at the point
        act()

    with mounted(power):
        killed, problem = in_child(with_a_switch)
    return [] if killed else [f"it was not reached; {problem}"]


@contextmanager
def mounted(power: Disks) -> Generator[None]:
    power.mount()
    try:
        yield
    finally:
        power.unmount()


def strike(trial: Trial, sample: Sample, variant: str) -> Strikes:
    """Kill the run, or fail one of its calls, on a filesystem that stays up."""
    home = trial.home
    trial.set_up()
    start = home.parent / "start"
    shutil.copytree(home, start)
    made = calls_of(trial, trial.run)
    numbers = range(1, len(made) + 1)
    if variant == "kill":
        points = [*map(Fault, changes(made)), Fault(len(made), after=True)]
    else:
        struck_ones = [number for number in numbers if made[number - 1] not in {"close", "do_commit"}]
        points = [Fault(number, code) for number in struck_ones for code in ERRORS]
    for fault in sample.of(points):
        trial.start_again()
        for name in NAMES:
            shutil.rmtree(home / name)
            shutil.copytree(start / name, home / name)
            (home / name).chmod(0o700)
        what = f"{errno.errorcode.get(fault.error, 'killed')} at call {fault.at}, {made[fault.at - 1]}"
        killed, problem = in_child(lambda fault=fault: trial.run(fault))
        problems = [problem] if problem else []
        if killed != (variant == "kill"):
            problems.append("it was not reached")
        yield len(points), [f"{what}: {problem}" for problem in problems + checked(trial)]


KINDS = {
    **{f"power-{name}": cut_power for name in WRITTEN_BACK},
    "power-again": cut_power_again,
    "kill": strike,
    "error": strike,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--format", choices=["files", "archive"], default="files")
    parser.add_argument("--sample", type=int, default=0, help="strike so many points only")
    parser.add_argument("--without-fsync", action="store_true", help="what a careless program would lose")
    parser.add_argument("--until-broken", action="store_true", help="stop at the first violation")
    arguments = parser.parse_args()
    if arguments.without_fsync:
        os.fsync = os.fdatasync = lambda fd: None  # noqa: ARG005  pyright knows the name it has
        setattr(syscalls, "_syncfs", _done)  # noqa: B010  a plain assignment would be of a private name
    noted = in_memory(arguments.directory) if os.geteuid() == 0 else sys.stderr
    home = arguments.directory / "home"
    home.mkdir(mode=0o755)
    points, struck_points, problems = 0, 0, list[str]()
    trial = Trial(home, arguments.format, noted)
    strikes = KINDS[arguments.kind](trial, Sample(arguments.sample), arguments.kind.removeprefix("power-"))
    with contextlib.closing(strikes):
        for number, found in strikes:
            points = number
            struck_points += 1
            problems += found
            if problems and arguments.until_broken:
                break
    sys.stdout.write(json.dumps({"points": points, "struck": struck_points, "problems": problems}))


if __name__ == "__main__":
    main()
