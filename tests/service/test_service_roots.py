import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from service_helpers import EMERGENCY, MANUAL, Platform, files, request, scan_all

from cleanup_dagster.installation import RunRefusedError

NOBODY = 65_534


def test_a_root_that_is_not_there_fails_the_run_and_the_others_go_on(either: Platform) -> None:
    shutil.rmtree(either.logs)
    either.operation("done", 91)
    ended = either.run()
    assert ended.report.status == "failed"
    assert ended.report.problems == (f"logs: {either.logs} does not exist; create it, or correct the target's root",)
    assert files(either.operations) == set()
    assert not either.logs.exists()


def test_an_optional_root_that_is_not_there_is_a_note(platform: Platform) -> None:
    platform.target("logs")["optional"] = True
    platform.logs.rmdir()
    ended = platform.run()
    assert ended.report.status == "done"
    assert ended.plans["logs"].note == f"logs: {platform.logs} does not exist; there is nothing to clean yet"


def test_a_root_that_became_a_symlink_after_the_configuration_was_read(platform: Platform) -> None:
    platform.log("a.log", 31)
    real = platform.home / "elsewhere"
    with platform.service() as service:
        platform.logs.rename(real)
        platform.logs.symlink_to(real)
        run = service.begin(request())
        checked = scan_all(service, run)
        report = service.audit(checked, [service.delete(service.back_up(plan)) for plan in checked.plans])
    assert files(real) == {"a.log"}
    assert report.status == "failed"
    assert report.problems == (
        f"logs: {platform.logs} leads through the symbolic link {platform.logs}; name the real path, '{real}'",
    )


@pytest.mark.parametrize("step", ["back_up", "delete"])
def test_a_root_that_becomes_a_symlink_in_mid_run(platform: Platform, step: str) -> None:
    platform.log("a.log", 31)
    real = platform.home / "elsewhere"
    with platform.service() as service:
        checked = scan_all(service, service.begin(request()))
        plan = checked.plans[1]
        backed_up = service.back_up(plan) if step == "delete" else None
        platform.logs.rename(real)
        platform.logs.symlink_to(real)
        deleted = service.delete(backed_up or service.back_up(plan))
        report = service.audit(checked, [deleted])
    assert files(real) == {"a.log"}
    assert f"{platform.logs} leads through the symbolic link 'logs'; name {real}" in deleted.problem
    assert report.status == "failed"


def test_another_directory_in_the_roots_place_loses_nothing(platform: Platform) -> None:
    platform.log("a.log", 31, "first")
    with platform.service() as service:
        checked = scan_all(service, service.begin(request()))
        receipts = [service.back_up(plan) for plan in checked.plans]
        platform.logs.rename(platform.home / "elsewhere")
        platform.logs.mkdir()
        other = platform.log("a.log", 31, "other")
        report = service.audit(checked, [service.delete(receipt) for receipt in receipts])
    assert other.read_text() == "other"
    assert (platform.home / "elsewhere/a.log").read_text() == "first"
    assert report.counts["system_logs"].skipped.files == 1


def test_a_target_that_is_configured_no_longer_is_refused(platform: Platform) -> None:
    with platform.service() as service:
        run = service.begin(request())
        with pytest.raises(RunRefusedError, match="target 'gone' is not configured any more; start a new run"):
            service.scan(run, "gone")


def test_neither_backups_nor_the_state_are_garbage(platform: Platform) -> None:
    home = platform.home / "shared"
    home.mkdir()
    platform.target("logs")["root"] = str(home)
    platform.backups, platform.state = home / "backups", home / "state"
    platform.config["backup"]["directory"] = str(platform.backups)
    platform.file(home / "a.log", 31, "a")
    platform.run()
    for path in (*platform.backups.rglob("*"), *platform.state.rglob("*")):
        os.utime(path, (0, 0))
    ended = platform.run()
    assert ended.plans["logs"].deletable.files == 0
    assert (platform.backups / "a.log.backup").exists()
    platform.backups.rename(home / "renamed")
    platform.config["backup"]["directory"] = str(home / "renamed")
    assert platform.run().plans["logs"].deletable.files == 0


def test_what_services_and_desktops_have_in_a_shared_temporary_directory_stays(platform: Platform) -> None:
    platform.target("logs")["data_type"] = "temp_files"
    theirs = {"systemd-private-1a2b-ntp.service-x/tmp/a", "snap-private-tmp/snap.b/tmp/c", ".X11-unix/X0"}
    theirs |= {"cleanup_backups/operation_1.json.backup"}
    for name in {*theirs, "d/ours", "X11-unix"}:
        platform.log(name, 40)
    assert platform.run().report.status == "done"
    assert files(platform.logs) == theirs


@pytest.mark.needs_root
@pytest.mark.parametrize("skip_backup", [False, True])
def test_a_file_that_is_mounted_over_one_is_neither_copied_nor_removed(platform: Platform, skip_backup: bool) -> None:
    """As containers mount single files. Its device and inode are those of the plan: nothing was swapped meanwhile."""
    there = platform.log("a.log", 40)
    outside = platform.file(platform.home / "outside", 40, "mounted")
    subprocess.run(["mount", "--bind", str(outside), str(there)], check=True)
    try:
        ended = platform.run(cleanup_type=EMERGENCY if skip_backup else MANUAL, skip_backup=skip_backup)
        assert there.read_text() == "mounted"
    finally:
        subprocess.run(["umount", "--lazy", str(there)], check=True)
    assert (ended.report.status, ended.report.counts) == ("done", {})
    assert there.exists()
    assert not list(platform.backups.rglob("*.backup"))


# A first run as root loads all modules: the other user need not be able to read where Python is installed.
CHILD = f"""
import json, os, sys, tempfile
from pathlib import Path
from service_helpers import Platform
with tempfile.TemporaryDirectory() as home:
    Platform(Path(home)).run()
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
ended = Platform(Path(sys.argv[1]), new=False).run()
print(json.dumps([ended.report.status, ended.problems]))
"""


@pytest.fixture
def public() -> Generator[Path]:
    """A directory that another user may enter, unlike pytest's own."""
    home = Path(tempfile.mkdtemp(prefix="cleanup"))
    yield home
    shutil.rmtree(home)


def as_nobody(home: Path) -> tuple[str, str]:
    """Do a whole live run as another user, and return its status and its problems."""
    os.chown(home, NOBODY, NOBODY)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(home)],
        env={"PYTHONPATH": os.pathsep.join(path for path in (str(Path(__file__).parent), *sys.path) if path)},
        capture_output=True,
        text=True,
        check=True,
    )
    status, problems = json.loads(done.stdout)
    return status, problems


@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (0o711, "cannot be read; run as a user who may list it, or change its mode"),
        (0o700, "cannot be read; run as a user who may list it, or change its mode"),
    ],
)
def test_a_root_that_may_not_be_read_fails_the_run_and_the_others_go_on(public: Path, mode: int, said: str) -> None:
    platform = Platform(public)
    platform.log("a.log", 31)
    os.chown(platform.operation("done", 91), NOBODY, NOBODY)
    os.chown(platform.operations, NOBODY, NOBODY)
    platform.logs.chmod(mode)
    status, problems = as_nobody(public)
    assert status == "failed"
    assert problems == f"logs: {platform.logs} {said}"
    assert files(platform.logs) == {"a.log"}
    assert files(platform.operations) == set()


@pytest.mark.needs_root
def test_a_root_below_one_that_may_not_be_entered(public: Path) -> None:
    platform = Platform(public)
    platform.target("logs")["root"] = str(platform.logs / "below")
    platform.configure()
    path = platform.log("below/a.log", 31)
    platform.logs.chmod(0o700)
    status, problems = as_nobody(public)
    assert status == "failed"
    assert problems == f"logs: {platform.logs}/below cannot be reached: no permission to enter 'below'"
    assert path.exists()


@pytest.mark.needs_root
def test_files_of_another_user_are_left_and_counted(public: Path) -> None:
    platform = Platform(public)
    platform.log("theirs.log", 31).chmod(0o644)
    os.chown(platform.log("ours.log", 31), NOBODY, NOBODY)
    platform.log("secret.log", 31).chmod(0o600)
    platform.logs.chmod(0o1777)
    status, problems = as_nobody(public)
    assert (status, problems) == ("done", "")
    assert files(platform.logs) == {"theirs.log", "secret.log"}
    assert platform.ask(
        "SELECT records_deleted, records_skipped, open_check FROM cleanup_audit WHERE data_type = 'system_logs'"
    ) == [(1, 2, "lease+flock")]
