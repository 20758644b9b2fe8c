"""Readers that go away, disks that are full, users who may not: the work is done or left, and said so."""

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cli_helpers import EXPIRED, PROGRAM, Platform

needs_root = pytest.mark.needs_root
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs another user id, or a mount")
#: Everything is loaded first, because another user may not even get at this interpreter's library.
_AS_NOBODY = """
import io, os, sys, tempfile
from cleanup_dagster.cli import cleaning, invoking
with tempfile.TemporaryDirectory() as scratch:
    stdout, sys.stdout, stderr, sys.stderr = sys.stdout, io.StringIO(), sys.stderr, io.StringIO()
    state, os.environ["CLEANUP_STATE_DIR"] = os.environ["CLEANUP_STATE_DIR"], scratch + "/state"
    for command in (["check"], ["policies", "disable", "--all"]):
        invoking.run(command)
    sys.stdout, sys.stderr, os.environ["CLEANUP_STATE_DIR"] = stdout, stderr, state
os.setgid(65534)
os.setuid(65534)
sys.exit(min(invoking.run(command.split()) for command in sys.argv[1:]))
"""


def _started(platform: Platform, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PROGRAM, *arguments], stdout=stdout, stderr=subprocess.PIPE, text=True, env=platform.environment()
    )


def test_a_reader_that_went_away_changes_nothing_about_a_run(platform: Platform) -> None:
    reader, writer = os.pipe()
    os.close(reader)  # as `| head -0` does
    process = _started(platform, "run", "--yes", stdout=writer)
    os.close(writer)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (0, f"Database: the embedded SQLite file {platform.state}/cleanup.db\n")
    assert not platform.files() & EXPIRED
    assert platform.ask("SELECT status FROM cleanup_runs") == [("done",)]


def test_streams_that_are_closed_take_no_harm(platform: Platform) -> None:
    script = (
        "import os, sys\n"
        "for number in map(int, sys.argv[1].split(',')): os.close(number)\n"
        "os.execv(sys.argv[2], sys.argv[2:])"
    )
    for closed in ("0", "1", "0,1,2"):
        done = subprocess.run(
            [sys.executable, "-c", script, closed, PROGRAM, "policies", "list"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=platform.environment(),
            timeout=60,
        )
        assert done.returncode == 0, done
        assert "Traceback" not in done.stderr
        assert bool(done.stdout) == (closed == "0")
    assert {row[0] for row in platform.ask("PRAGMA integrity_check")} == {"ok"}


def test_help_into_head_ends_quietly(platform: Platform) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = _started(platform, "--help", stdout=writer)
    os.close(writer)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")


def test_a_long_listing_into_head_ends_quietly(platform: Platform) -> None:
    for number in range(1_000):
        platform.operation(f"with_a_rather_long_name_{number}", 200)
    command = f"{PROGRAM} plan --files | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, env=platform.environment(), timeout=120
    )
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr.splitlines() == [f"Database: the embedded SQLite file {platform.state}/cleanup.db"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
def test_a_result_that_cannot_be_written_is_a_failure(platform: Platform) -> None:
    with Path("/dev/full").open("w") as full:
        process = _started(platform, "policies", "list", stdout=full.fileno())
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.splitlines()[-1] == "The output could not be written: No space left on device."


@pytest.fixture
def small_disk(platform: Platform) -> Iterator[Path]:
    place = platform.home / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def _fill(place: Path) -> None:
    with suppress(OSError), (place / "filler").open("wb") as filler:
        while True:
            os.write(filler.fileno(), b"x" * 4096)


@needs_root
@only_root
def test_a_full_disk_under_the_state_leaves_the_files_alone(platform: Platform, small_disk: Path) -> None:
    platform.configure(state_dir=str(small_disk / "state"))
    assert platform.call("policies", "list").code == 0
    _fill(small_disk)
    before = {path: path.read_bytes() for root in (platform.ops, platform.dbt) for path in root.iterdir()}
    plan, live = platform.call("plan"), platform.call("run", "--yes")
    change = platform.call("policies", "set", "dbt_logs", "--days", "3")
    assert {path: path.read_bytes() for path in before} == before
    assert change.code == 4
    assert {plan.code, live.code} <= {1, 4}
    for ended in (plan, live, change):
        assert re.search("full|No space left", ended.words), ended
        assert "Traceback" not in ended.err


@needs_root
@only_root
def test_without_permission_the_message_says_for_what(platform: Platform) -> None:
    outside = Path("/tmp") / f"cleanup-cli-{os.getpid()}"  # noqa: S108  below it another user may go
    outside.mkdir()
    try:
        outside.chmod(0o755)
        config = shutil.copy(platform.config, outside / "cleanup.yaml")
        environment = platform.environment() | {"CLEANUP_CONFIG": str(config), "CLEANUP_STATE_DIR": str(outside / "s")}
        commands = ("plan", "run --yes", "policies disable --all", "check")
        done = subprocess.run(
            [sys.executable, "-c", _AS_NOBODY, *commands],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=60,
        )
        assert done.returncode == 4, done  # of each of them
        said = f"the state directory {outside}/s cannot be used: Permission denied; create it with mode 0700"
        assert (done.stdout + done.stderr).count(said) == len(commands)
        assert "Traceback" not in done.stderr
        assert [path.name for path in outside.iterdir()] == ["cleanup.yaml"]
    finally:
        shutil.rmtree(outside)


def test_a_file_nobody_may_touch_is_a_failure_of_its_own(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    from cleanup_dagster.filesystem.quarantine import Quarantine

    remove = Quarantine.remove

    def refused(self: Quarantine, slot: str) -> None:
        if ".operations.0" in slot:
            raise OSError(errno.EIO, "Input/output error")
        remove(self, slot)

    monkeypatch.setattr(Quarantine, "remove", refused)
    ended = platform.call("run", "--yes", "--json")
    assert ended.code == 1
    assert (ended.document["deleted"]["files"], ended.document["failed"]["files"]) == (3, 1)
    assert len(platform.files() & EXPIRED) == 1
