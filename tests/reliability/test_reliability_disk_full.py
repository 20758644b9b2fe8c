"""A disk is full or read-only between any two steps: nothing is lost, the run fails visibly, and the next mends it."""

import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest
from service_helpers import Platform, files, left_behind, request, scan_all
from sqlalchemy import URL

from cleanup_dagster import applying, planning
from cleanup_dagster.handles import Report, RestoreRequest
from cleanup_dagster.service import MET

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(sys.platform != "linux", reason="the disks are tmpfs"),
]

LOGS = {f"d{number % 3}/{number}.log": f"{number} " * 2_000 for number in range(20)}
DISKS = ("logs", "backups", "state", "database")
#: Nothing more needs room there by then, so the run goes through.
HARMLESS = {("state", "blocks", "audit")}

Counted = Callable[[str, object], None]


class Disk:
    """A small filesystem in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill_blocks(self, leave: int = 0) -> None:
        with (self._path / "ballast").open("wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4_096))
            except OSError:
                ballast.truncate(max(0, ballast.tell() - leave))

    def fill_inodes(self) -> None:
        (self._path / "ballast").mkdir()
        try:
            for number in range(1_000_000):
                (self._path / f"ballast/{number}").touch()
        except OSError:
            return

    def free(self) -> None:
        subprocess.run(["rm", "-rf", str(self._path / "ballast")], check=True)

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self._path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Generator[Callable[[str], Disk]]:
    """Mount small disks by name."""
    with ExitStack() as stack:

        def mount(name: str, size: str = "2m") -> Disk:
            path = tmp_path / name
            path.mkdir(exist_ok=True)
            options = f"mode=700,size={size},nr_inodes=400"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(path)], check=True)
            stack.callback(subprocess.run, ["umount", str(path)], check=True)
            return Disk(path)

        yield mount


class Trial:
    """A platform each of whose directories is a small disk."""

    def __init__(self, home: Path, disk: Callable[[str], Disk], *, embedded: bool) -> None:
        self.disks = {} if embedded else {"database": disk("database")}
        url = None if embedded else URL.create("sqlite", database=str(home / "database/cleanup.db"))
        self.platform = Platform(home, url)
        self.disks |= {name: disk(name) for name in ("logs", "backups", "state")}
        self.platform.config["limits"] |= {"free_space_reserve": 0, "allow_volatile_backup": True}
        self.platform.dry()  # names the installation
        for path, content in LOGS.items():
            self.platform.log(path, 40, content)

    def run(self, full_before: str, fill: Callable[[], None]) -> Report | None:
        """Drive the verbs as the job does, and fill a disk before one of them. None when an op would have failed."""

        def reached(step: str) -> None:
            if step == full_before:
                fill()

        try:
            with self.platform.service() as service:
                reached("begin")
                checked = scan_all(service, service.begin(request(run_id="run-into-a-full-disk")))
                reached("back_up")
                receipts = [service.back_up(plan) for plan in checked.plans]
                reached("delete")
                results = [service.delete(receipt) for receipt in receipts]
                reached("audit")
                return service.audit(checked, results)
        except MET:
            return None

    def lost(self) -> list[str]:
        copies = [path.read_text() for path in self.platform.backups.rglob("*.backup")]
        quarantined = [path.read_text() for path in self.platform.logs.glob(".cleanup-q-*/*")]
        there = {*copies, *quarantined}
        return [p for p, text in LOGS.items() if not (self.platform.logs / p).exists() and text not in there]

    def mended(self) -> None:
        """With room again, the next run does what was left, the books are right, and everything can be restored."""
        platform = self.platform
        ended = platform.run()
        assert ended.report.status == "done", ended.problems
        assert files(platform.logs) == set()
        assert self.lost() == []
        assert platform.ask("SELECT sum(records_deleted) FROM cleanup_audit") == [(len(LOGS),)]
        assert platform.ask("SELECT count(*) FROM cleanup_runs WHERE status = 'running'") == [(0,)]
        assert not left_behind(platform.logs, platform.backups)
        with platform.service() as service:
            for number, backups in enumerate(service.backups()):
                service.restore(RestoreRequest(f"restore-{number}", backups.run_id, "bob", dry_run=False))
        assert {str(p.relative_to(platform.logs)): p.read_text() for p in platform.logs.rglob("*.log")} == LOGS


STEPS = ("begin", "back_up", "delete", "audit")


@pytest.mark.parametrize("full_before", STEPS)
@pytest.mark.parametrize("what", ["blocks", "inodes"])
@pytest.mark.parametrize("name", ["backups", "state", "database", "state and embedded database"])
def test_a_disk_is_full(
    tmp_path: Path, disk: Callable[[str], Disk], name: str, what: str, full_before: str, record_property: Counted
) -> None:
    trial = Trial(tmp_path, disk, embedded=name not in DISKS)
    full = trial.disks[name.partition(" ")[0]]
    report = trial.run(full_before, getattr(full, f"fill_{what}"))
    record_property("full disks", 1)
    assert trial.lost() == []
    harmless = (name, what, full_before) in HARMLESS
    assert (report is not None and report.status == "done") == harmless, report
    if full_before in {"begin", "back_up"} and not harmless:
        assert files(trial.platform.logs) >= LOGS.keys()
    full.free()
    if harmless:
        assert report is not None
        assert report.counts["system_logs"].deleted.files == len(LOGS)
    else:
        trial.mended()


@pytest.mark.parametrize("read_only_before", ["back_up", "delete", "audit"])
@pytest.mark.parametrize("name", ["logs", "backups"])
def test_a_disk_becomes_read_only(
    tmp_path: Path, disk: Callable[[str], Disk], name: str, read_only_before: str
) -> None:
    """As the kernel makes it when the filesystem has an error."""
    trial = Trial(tmp_path, disk, embedded=False)
    report = trial.run(read_only_before, lambda: trial.disks[name].remount("ro"))
    trial.disks[name].remount("rw")
    assert report is not None
    deleted = read_only_before == "audit" or (name, read_only_before) == ("backups", "delete")
    assert files(trial.platform.logs) == (set() if deleted else LOGS.keys())
    if not deleted or name == "backups":  # its log could not be written
        assert report.status == "failed"
        assert "Read-only file system" in "".join(report.problems)
    if not deleted:
        trial.mended()
    assert trial.lost() == []


@pytest.mark.parametrize("name", ["backups", "state"])
def test_a_disk_runs_full_under_two_workers_in_the_middle_of_an_archive(
    tmp_path: Path, disk: Callable[..., Disk], name: str, monkeypatch: pytest.MonkeyPatch, record_property: Counted
) -> None:
    monkeypatch.setattr(planning, "WORTH_WORKERS", 10)
    monkeypatch.setattr(applying, "WORTH_WORKERS", 10)
    platform = Platform(tmp_path)
    small = disk(name, size="32m")  # before the run there is room even for 5,000 blocks
    platform.config["workers"] = 2
    platform.config["limits"] |= {"free_space_reserve": 0, "allow_volatile_backup": True, "max_growth": 1_000_000}
    platform.target("logs")["format"] = "archive"
    platform.dry()
    contents = {f"{number % 7}/{number}.log": os.urandom(60) for number in range(5_000)}  # more than a worker's frame
    for path, content in contents.items():
        platform.log(path, 40, content.hex())
    with platform.service() as service:
        checked = scan_all(service, service.begin(request(run_id="run-into-a-full-disk")))
        small.fill_blocks(leave=300_000)
        results = [service.delete(service.back_up(plan)) for plan in checked.plans]
        report = service.audit(checked, results)
    record_property("full disks", 1)
    assert report.status == "failed"
    assert "No space left on device" in "".join(report.problems)
    assert files(platform.logs) == contents.keys()
    small.free()
    ended = platform.run()
    assert ended.report.status == "done", ended.problems
    assert ended.report.counts["system_logs"].deleted.files == len(contents)
    assert not left_behind(platform.logs, platform.backups)
    with platform.service() as service:
        assert service.verify_backups().damaged == ()


def test_a_full_root_without_room_for_the_quarantine_deletes_nothing_and_says_so(
    tmp_path: Path, disk: Callable[[str], Disk]
) -> None:
    trial = Trial(tmp_path, disk, embedded=False)
    report = trial.run("begin", trial.disks["logs"].fill_inodes)
    assert report is not None
    assert report.status == "failed"
    assert "No space left on device" in "".join(report.problems)
    assert files(trial.platform.logs) >= LOGS.keys()
    trial.disks["logs"].free()
    trial.mended()
