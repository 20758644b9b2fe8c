"""The deletion protocol and who uses a file: open for writing, locked, leased, or opened at the last moment."""

import contextlib
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest
from deletion_helpers import (
    Platform,
    other_process,
    states,
)

from cleanup_dagster.collectors import deletion
from cleanup_dagster.retention.models import State


def test_busy_at_backup(platform: Platform) -> None:
    file = platform.file("a.log")
    with other_process("out = open(sys.argv[1], 'a')", file):
        platform.back_up(platform.verdicts())
    assert states(platform.skipped()) == {"a.log": (State.BUSY, "another process has it open for writing")}


def test_busy_at_deletion(platform: Platform) -> None:
    file = platform.file("a.log")
    platform.back_up(platform.verdicts())
    with other_process("out = open(sys.argv[1], 'a')", file):
        platform.delete()
    assert states(platform.outcomes()) == {"a.log": (State.BUSY, "another process has it open for writing")}
    assert platform.files() == {"a.log": "content"}


def test_locked_at_deletion(platform: Platform) -> None:
    file = platform.file("a.log")
    platform.back_up(platform.verdicts())
    with file.open() as ours:
        fcntl.flock(ours, fcntl.LOCK_SH)
        platform.delete()
    assert states(platform.outcomes()) == {"a.log": (State.BUSY, "another process holds a lock on it")}
    assert platform.files() == {"a.log": "content"}


@pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")
@pytest.mark.parametrize("moment", ["backup", "deletion"])
def test_a_file_server_has_a_lease_on_it(platform: Platform, moment: str) -> None:
    file = platform.file("a.log")
    verdicts = platform.verdicts()
    if moment == "deletion":
        platform.back_up(verdicts)
    code = """
import fcntl, signal
signal.signal(signal.SIGIO, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
"""
    with other_process(code, file):
        if moment == "backup":
            platform.back_up(verdicts)
        platform.delete()
    outcomes = platform.skipped() if moment == "backup" else platform.outcomes()
    leased = "another process has a lease on it, as file servers take for their clients"
    assert states(outcomes) == {"a.log": (State.BUSY, leased)}
    assert platform.files() == {"a.log": "content"}


@pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")
def test_who_reopens_it_for_writing_in_the_last_moment_loses_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader turns writer by way of /proc, which no name protects from, after the claim and before the removal."""
    file = platform.file("a.log")
    platform.back_up(platform.verdicts())
    code = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
sys.stdin.readline()
with open(f"/proc/self/fd/{fd}", "a") as out:  # waits while the file is claimed
    out.write(" more")
"""
    reader = subprocess.Popen([sys.executable, "-c", code, str(file)], stdin=subprocess.PIPE, text=True)
    while not _is_open(reader.pid, file):
        assert reader.poll() is None
    claim = deletion.claim

    def claimed(fd: int) -> object:
        check = claim(fd)
        assert reader.stdin is not None
        reader.stdin.write("go\n")
        reader.stdin.flush()
        while deletion.still_claimed(fd):
            assert reader.poll() is None
        return check

    monkeypatch.setattr(deletion, "claim", claimed)
    with reader:
        platform.delete()
    assert reader.returncode == 0
    assert states(platform.outcomes()) == {"a.log": (State.BUSY, "another process is opening it for writing")}
    assert platform.files() == {"a.log": "content more"}


def _is_open(pid: int, file: Path) -> bool:
    links = Path(f"/proc/{pid}/fd")
    with contextlib.suppress(OSError):
        return any(link.readlink() == file for link in links.iterdir())
    return False
