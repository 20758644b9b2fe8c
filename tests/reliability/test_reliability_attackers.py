"""Against other users of the platform, who exchange, mount and append all the while that the service cleans.

Where a careless cleaner would be had, it is let loose first: otherwise it would show nothing that ours is not.
Swapped parent directories and replaced names are attacked in tests/collectors/test_deletion_races.py.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from attackers import NOBODY, SECRET, attacked, clean, clean_carelessly, copies, entries
from service_helpers import Platform, files

from cleanup_dagster.handles import RestoreRequest

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(sys.platform != "linux", reason="the attacks use renameat2 and mounts of Linux"),
]

Counted = Callable[[str, object], None]

#: Keeps five expired files there, and exchanges them with something that is none. Each exchange changes their ctime, so
#: without a pause now and then no run would ever take one. The pauses grow: on a busy machine a run takes seconds.
EXCHANGE = """
thing = place + "/special/thing"
began = time.monotonic()
for turn in itertools.count():
    if not running():
        break
    for number in range(5):
        with suppress(FileExistsError):
            fd = os.open(f"f{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            os.write(fd, b"%d" % turn)
            os.utime(fd, (long_ago, long_ago))
            os.close(fd)
    for number in range(5):
        exchange(f"{root}/f{number}", thing)
        exchange(f"{root}/f{number}", thing)
        exchange(f"{root}/f{number}", thing)
        time.sleep(random.random() / 500)
        exchange(f"{root}/f{number}", thing)
    if turn % 20 == 0:
        time.sleep(random.random() * (1 + (time.monotonic() - began) / 5))
print(turn)
"""


def hard_link(place: Path, thing: Path) -> None:
    thing.hardlink_to(place / "outside/secret")


def symlink(place: Path, thing: Path) -> None:
    thing.symlink_to(place / "outside/secret")


def fifo(_: Path, thing: Path) -> None:
    os.mkfifo(thing)


def device(_: Path, thing: Path) -> None:
    os.mknod(thing, 0o20666, os.makedev(1, 5))  # reading it never ends


def unix_socket(_: Path, thing: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(thing))


@pytest.mark.parametrize("make", [hard_link, symlink, fifo, device, unix_socket])
def test_what_is_no_file_of_its_own_is_exchanged_for_files(
    place: Path,
    platform: Platform,
    seconds: float,
    record_property: Counted,
    make: Callable[[Path, Path], None],
) -> None:
    make(place, place / "special/thing")
    special = (place / "special/thing").lstat()
    with attacked(place, EXCHANGE) as said:
        deleted = clean(platform, seconds)
    record_property("attacks", int(said[0]))
    assert deleted > 0
    assert SECRET.encode() not in copies(place)
    assert (place / "outside/secret").read_text() == SECRET
    there = [status for status in entries(platform.logs, place / "special") if status.st_ino == special.st_ino]
    assert [status.st_mode for status in there] == [special.st_mode]
    assert (place / "outside/secret").stat().st_nlink == (2 if make is hard_link else 1)


def test_a_careless_cleaner_leaks_what_is_hard_linked(place: Path, platform: Platform) -> None:
    secret, thing = place / "outside/secret", place / "special/thing"

    def leaked() -> bool:
        if secret.stat().st_nlink == 1:  # not there yet, or removed in place of the file that was copied
            thing.unlink(missing_ok=True)
            hard_link(place, thing)
        return SECRET.encode() in copies(place)

    with attacked(place, EXCHANGE):
        clean_carelessly(place, leaked)
    assert leaked()
    assert not platform.backups.exists()


def test_a_careless_cleaner_hangs_on_a_fifo(place: Path) -> None:
    os.mkfifo(place / "fifo")
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", f"open({str(place / 'fifo')!r}).read()"], timeout=1.0, check=False)


SETUID = """
for turn in itertools.count():
    if not running():
        break
    for number in range(5):
        fd = os.open(f"f{number}-{turn}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        os.write(fd, b"#!/bin/sh")
        os.fchmod(fd, 0o6755)
        os.utime(fd, (long_ago, long_ago))
        os.close(fd)
    time.sleep(0.01)
print(turn)
"""


def test_setuid_files_become_neither_setuid_copies_nor_setuid_files(
    place: Path, platform: Platform, seconds: float, record_property: Counted
) -> None:
    with attacked(place, SETUID) as said:
        deleted = clean(platform, seconds)
    record_property("attacks", int(said[0]))
    assert deleted > 0
    kept = [path.stat() for path in platform.backups.rglob("*.backup")]
    assert {(status.st_uid, status.st_mode) for status in kept} == {(0, 0o100600)}
    shutil.rmtree(platform.logs)
    platform.logs.mkdir()
    with platform.service() as service:
        for number, backups in enumerate(service.backups()):
            service.restore(RestoreRequest(f"restore-{number}", backups.run_id, "bob", dry_run=False))
    restored = [path.stat() for path in platform.logs.iterdir()]
    assert len(restored) == deleted
    assert {(status.st_uid, status.st_mode) for status in restored} == {(NOBODY, 0o100755)}


def test_a_careless_copy_of_a_setuid_file_is_roots_and_setuid(place: Path) -> None:
    (place / "f").write_text("#!/bin/sh")
    os.chown(place / "f", NOBODY, NOBODY)
    (place / "f").chmod(0o4755)
    shutil.copy2(place / "f", place / "copy")
    assert ((place / "copy").stat().st_uid, (place / "copy").stat().st_mode & 0o4000) == (0, 0o4000)


#: By root, as containers are started and stopped: another directory is mounted over one of the root, again and again.
MOUNT = """
for turn in itertools.count():
    if not running():
        break
    for number in range(5):
        with suppress(FileExistsError):
            os.close(os.open(f"d/f{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            age(f"d/f{number}")
    libc.mount((place + "/outside").encode(), b"d", None, 4096, None)
    time.sleep(random.random() / 200)
    libc.umount2(b"d", 2)
    time.sleep(random.random() / 50)
print(turn)
"""


@pytest.fixture
def mounted_over(place: Path, platform: Platform) -> Platform:
    (platform.logs / "d").mkdir()
    for number in range(5):
        platform.file(place / f"outside/f{number}", 40, SECRET)
    return platform


def test_what_is_mounted_over_a_directory_meanwhile_stays(
    place: Path, mounted_over: Platform, seconds: float, record_property: Counted
) -> None:
    with attacked(place, MOUNT, uid=0) as said:
        deleted = clean(mounted_over, seconds)
    record_property("attacks", int(said[0]))
    assert deleted > 0
    assert files(place / "outside") == {"secret", *(f"f{number}" for number in range(5))}
    assert SECRET.encode() not in copies(place)


def test_a_careless_cleaner_removes_what_is_mounted(place: Path, mounted_over: Platform) -> None:
    def removed() -> bool:
        return len(files(place / "outside")) < 6

    with attacked(place, MOUNT, uid=0):
        clean_carelessly(place, removed)
    assert removed()
    assert not mounted_over.backups.exists()


#: Appends records, each in a moment, to files that always look old: nothing but the run's own checks protects them.
APPEND = """
for number in itertools.count():
    if not running():
        break
    fd = os.open(f"f{random.randrange(100)}", os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"record %d\\n" % number)
    os.utime(fd, (long_ago, long_ago))
    os.close(fd)
    time.sleep(random.random() / 2000)
print(number)
"""


def records(place: Path) -> set[int]:
    paths = [*(place / "logs").rglob("*"), *place.rglob("*.backup")]
    return {int(line.split()[1]) for path in paths if path.is_file() for line in path.read_bytes().splitlines()}


def lost_records(place: Path, written: int) -> set[int]:
    return set(range(written)) - records(place)


def test_no_record_of_an_appender_is_lost(
    place: Path, platform: Platform, seconds: float, record_property: Counted
) -> None:
    with attacked(place, APPEND) as said:
        deleted = clean(platform, 2 * seconds)
    record_property("attacks", int(said[0]))
    assert deleted > 0
    assert lost_records(place, int(said[0])) == set()


def test_a_careless_cleaner_loses_records(place: Path, platform: Platform) -> None:
    look_at = time.monotonic()

    def lost() -> bool:
        nonlocal look_at
        if time.monotonic() < look_at:  # to read all copies each time would leave it no time to clean
            return False
        look_at = time.monotonic() + 1
        there = records(place)
        return len(there) < max(there, default=-1) + 1

    with attacked(place, APPEND) as said:
        clean_carelessly(place, lost)
    assert lost_records(place, int(said[0]))
    assert not platform.backups.exists()
