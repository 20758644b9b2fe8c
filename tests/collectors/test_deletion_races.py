"""Against another user who swaps directories and replaces files all the while.

Each attack is first let loose on a careless cleaner, which must lose something: otherwise it would show nothing that
the protocol loses nothing.
"""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from deletion_helpers import NOBODY, Platform

from cleanup_dagster.filesystem.identity import identify
from cleanup_dagster.filesystem.tree import Found, join, open_root, walk
from cleanup_dagster.retention.models import Candidate, Reason, State, Tally, Verdict

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(sys.platform != "linux", reason="the attacks use renameat2"),
]

SECONDS = 2.0
PATIENCE = 30.0  # for the careless cleaner to lose something; it takes well under a second
SECRET = "secret"  # noqa: S105

AS_NOBODY = f"""
import ctypes, itertools, os, sys
from contextlib import suppress
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
root = sys.argv[1]
libc = ctypes.CDLL(None)
def running():
    return not os.path.exists(root + "/../stop")
"""
#: Exchanges a directory and a symlink to one that is not its own, and keeps filling the directory.
SWAP = """
real = os.open(root + "/d", os.O_RDONLY)
here, there = (root + "/d").encode(), (root + "/link").encode()
while running():
    for number in range(10):
        with suppress(FileExistsError):
            os.close(os.open(f"f{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, dir_fd=real))
    for _ in range(50):
        libc.renameat2(-100, here, -100, there, 2)
"""
#: Puts new content under the same names without ever overwriting: what is there goes to `kept` before.
REPLACE = """
for number in itertools.count():
    if not running():
        break
    name = f"{root}/f{number % 5}"
    with open(root + "/../kept/new", "w") as out:
        out.write(f"token {number}")
    with suppress(FileNotFoundError):
        os.rename(name, f"{root}/../kept/{number}")
    while True:
        try:
            os.link(root + "/../kept/new", name)
            break
        except FileExistsError:  # put back meanwhile
            with suppress(FileNotFoundError):
                os.rename(name, f"{root}/../kept/{number}-again-{len(os.listdir(root + '/../kept'))}")
    os.unlink(root + "/../kept/new")
print(number)
"""


@pytest.fixture
def place() -> Generator[Path]:
    """A directory in memory that the other user can reach, with a root that is his."""
    memory = "/dev/shm"  # noqa: S108
    path = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    path.chmod(0o755)
    for name in ("root", "kept"):
        (path / name).mkdir()
        os.chown(path / name, NOBODY, NOBODY)
    (path / "outside").mkdir()
    for number in range(10):
        (path / f"outside/f{number}").write_text(SECRET)
    yield path
    shutil.rmtree(path)


@contextmanager
def attacked(place: Path, attack: str) -> Generator[list[str]]:
    """Let an attack run while the block does; yields what it printed, once it has ended."""
    said: list[str] = []
    command = [sys.executable, "-c", AS_NOBODY + attack, str(place / "root")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attacker:
        try:
            yield said
        finally:
            (place / "stop").touch()
            output, _ = attacker.communicate(timeout=30)
            (place / "stop").unlink()
            said += output.split()
    assert attacker.returncode == 0


def scan(root: Path) -> list[Verdict]:
    verdicts: list[Verdict] = []
    with open_root(root) as fd:
        for item in walk(fd, recursive=True, max_depth=8, is_own=lambda _: False):
            if isinstance(item, Found):
                try:
                    status = item.entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    path = join(item.directory, item.entry.name)
                    verdicts.append(Verdict(Candidate(path, identify(status), "logs", 1), True, Reason.EXPIRED, 1))
    return verdicts


def clean(place: Path, seconds: float) -> Tally:
    """Clean by the protocol for a while, and return what was deleted."""
    platform = Platform(place)
    deleted = Tally()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        platform.back_up(scan(platform.root))
        gone = platform.delete().by_state.get(("logs", State.DELETED), Tally())
        deleted = deleted.plus(gone.files, gone.bytes)
    return deleted


def clean_carelessly(place: Path, enough: Callable[[], bool]) -> None:
    """Look, copy, remove, by path: what most cleaners do."""
    (place / "backups").mkdir(exist_ok=True)
    until = time.monotonic() + PATIENCE
    number = 0
    while time.monotonic() < until and not enough():
        for verdict in scan(place / "root"):
            path = place / "root" / verdict.candidate.path
            try:
                if stat.S_ISREG(path.lstat().st_mode):
                    number += 1
                    shutil.copyfile(path, place / "backups" / f"{number}.backup")
                    path.unlink()
            except OSError:
                continue


def outside(place: Path) -> list[str]:
    return [path.read_text() for path in (place / "outside").iterdir()]


def copies(place: Path) -> list[str]:
    return [path.read_text() for path in (place / "backups").rglob("*.backup")]


@pytest.fixture
def swapped(place: Path) -> Path:
    (place / "root/d").mkdir()
    os.chown(place / "root/d", NOBODY, NOBODY)
    (place / "root/link").symlink_to(place / "outside")
    return place


def test_a_swapped_directory_makes_a_careless_cleaner_delete_or_leak_what_is_outside(swapped: Path) -> None:
    def harmed() -> bool:
        return len(outside(swapped)) < 10 or SECRET in copies(swapped)

    with attacked(swapped, SWAP):
        clean_carelessly(swapped, harmed)
    assert harmed()


def test_a_swapped_directory_leads_nowhere(swapped: Path) -> None:
    with attacked(swapped, SWAP):
        deleted = clean(swapped, SECONDS)
    assert outside(swapped) == [SECRET] * 10
    assert SECRET not in copies(swapped)
    assert deleted.files > 0


def lost_tokens(place: Path, published: int) -> set[bytes]:
    there = {path.read_bytes() for path in place.rglob("*") if path.is_file()}
    return {b"token %d" % number for number in range(published)} - there


def test_replaced_files_are_lost_by_a_careless_cleaner(place: Path) -> None:
    began = time.monotonic()
    with attacked(place, REPLACE) as said:
        clean_carelessly(place, lambda: time.monotonic() - began > SECONDS)
    assert lost_tokens(place, int(said[0]))


def test_replaced_files_are_never_lost(place: Path, record_property: Callable[[str, object], None]) -> None:
    with attacked(place, REPLACE) as said:
        deleted = clean(place, SECONDS)
    record_property("attacks", int(said[0]))
    assert deleted.files > 0
    assert lost_tokens(place, int(said[0])) == set()
