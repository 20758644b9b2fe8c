"""Other users at work while the service cleans: each attack is a process of its own, with a uid of its own."""

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from service_helpers import DAY, Ended, Platform, request, whole_run

from cleanup_dagster.handles import Counts
from cleanup_dagster.service import CleanupService

NOBODY = 65_534
SECRET = "a secret of root's"  # noqa: S105
PATIENCE = 120.0  # for a careless cleaner to be had, or ours to find a pause; well under a second when idle

_PRELUDE = f"""
import ctypes, itertools, os, random, socket, sys, time
from contextlib import suppress
place = sys.argv[1]
root = place + "/logs"
if int(sys.argv[2]):
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
os.chdir(root)
libc = ctypes.CDLL(None)
long_ago = time.time() - 40 * {DAY}
def running():
    return not os.path.exists(place + "/stop")
def age(path):
    os.utime(path, (long_ago, long_ago))
def exchange(one, other):
    libc.renameat2(-100, one.encode(), -100, other.encode(), 2)
"""


@contextmanager
def attacked(place: Path, attack: str, uid: int = NOBODY) -> Generator[list[str]]:
    """Let an attack run while the block does; yields what it printed, once it has ended."""
    said: list[str] = []
    command = [sys.executable, "-c", _PRELUDE + attack, str(place), str(uid)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attacker:
        try:
            yield said
        finally:
            (place / "stop").touch()
            output, _ = attacker.communicate(timeout=60)
            (place / "stop").unlink()
            said += output.split()
    assert attacker.returncode == 0


def attack_once(place: Path, attack: str) -> None:
    """Let the other user do something that takes no time, before the run."""
    with attacked(place, attack):
        pass


def clean(platform: Platform, seconds: float, after: Callable[[], None] = lambda: None) -> int:
    """Do live runs, one after the other, for a while and until something went; return how many files went.

    No run may raise or hang.
    """
    deleted, began = 0, time.monotonic()
    with platform.service() as service:
        while (spent := time.monotonic() - began) < seconds or (not deleted and spent < PATIENCE):
            counts = _one_run(service).report.counts.get("system_logs", Counts())
            deleted += counts.deleted.files
            after()
    return deleted


def _one_run(service: CleanupService) -> Ended:
    began = time.monotonic()
    ended = whole_run(service, request())
    assert time.monotonic() - began < 20
    return ended


def clean_carelessly(place: Path, enough: Callable[[], bool]) -> None:
    """Look, copy, remove, by path: what most cleaners do."""
    (place / "copies").mkdir(exist_ok=True)
    until, number = time.monotonic() + PATIENCE, 0
    while time.monotonic() < until and not enough():
        for path in [*(place / "logs").rglob("*")]:
            try:
                if stat.S_ISREG(path.lstat().st_mode):
                    number += 1
                    shutil.copyfile(path, place / f"copies/{number}.backup")
                    path.unlink()
            except OSError:
                continue


def copies(place: Path) -> list[bytes]:
    """Return the contents of all copies, the careless cleaner's too."""
    return [path.read_bytes() for path in place.rglob("*.backup")]


def entries(*places: Path) -> list[os.stat_result]:
    """Return the status of everything there is, quarantines included."""
    return [path.lstat() for place in places for path in place.rglob("*")]
