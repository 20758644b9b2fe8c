"""Against other users of the platform, who swap, link, mount and append all the while that the service cleans.

Where a careless cleaner would be had, it is let loose first: otherwise it would show nothing that ours is not.
Swapped parent directories and replaced names are attacked in tests/collectors/test_deletion_races.py.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path

import msgspec
import pytest
from attackers import (
    NOBODY,
    PATIENCE,
    SECRET,
    attack_once,
    attacked,
    clean,
    clean_carelessly,
    copies,
    entries,
)
from service_helpers import EMERGENCY, Platform, files

from cleanup_dagster.backups.files import replica_of
from cleanup_dagster.backups.manifest import read_header, read_manifest, write_manifest
from cleanup_dagster.handles import RestoreReport, RestoreRequest
from cleanup_dagster.retention.models import Reason, Receipt, RestoreState

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(sys.platform != "linux", reason="the attacks use renameat2 and mounts of Linux"),
]

Counted = Callable[[str, object], None]


@pytest.fixture
def seconds(thorough: bool) -> float:
    return 10.0 if thorough else 1.0


@pytest.fixture
def place() -> Generator[Path]:
    """A directory in memory that everybody can enter, with a root that belongs to the other user."""
    path = Path(tempfile.mkdtemp())
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
        path.rmdir()


@pytest.fixture
def platform(place: Path) -> Platform:
    platform = Platform(place)
    platform.config["limits"]["max_growth"] = 1_000_000
    (place / "special").mkdir()
    (place / "outside").mkdir()
    (place / "outside/secret").write_text(SECRET)
    (place / "outside/secret").chmod(0o600)
    for path in (platform.logs, place / "special"):
        os.chown(path, NOBODY, NOBODY)
    return platform


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
    hard_link(place, place / "special/thing")

    def leaked() -> bool:
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


#: Makes the backup directory before the service does, his own or a link to it.
OCCUPY = """
backups = place + "/shared/backups"
for turn in itertools.count():
    if not running():
        break
    with suppress(OSError):
        os.mkdir(backups, 0o777) if turn % 2 else os.symlink(place + "/special", backups)
    time.sleep(random.random() / 100)
    with suppress(OSError):
        os.rename(backups, f"{place}/shared/taken-{turn}")
    time.sleep(random.random() / 50)
print(turn)
"""


@pytest.fixture
def occupied(place: Path, platform: Platform) -> Platform:
    (place / "shared").mkdir()
    (place / "shared").chmod(0o1777)
    platform.backups = place / "shared/backups"
    platform.config["backup"]["directory"] = str(platform.backups)
    return platform


def his(place: Path) -> set[str]:
    """Return what lies in the other user's directories."""
    return files(place / "special").union(*(files(path) for path in (place / "shared").glob("taken-*")))


def test_a_backup_directory_that_another_user_makes_first_is_never_used(
    place: Path, occupied: Platform, seconds: float, record_property: Counted
) -> None:
    there = {f"f{number}" for number in range(5)}

    def look() -> None:
        gone = there - files(occupied.logs)
        status = occupied.backups.lstat() if os.path.lexists(occupied.backups) else None
        if status is not None and (status.st_uid, status.st_mode) == (0, 0o40700):
            assert {path.name.split(".")[0] for path in occupied.backups.glob("*.backup")} >= gone
            shutil.rmtree(occupied.backups)
        else:
            assert not gone
        for name in there:
            occupied.log(name, 40, f"{name} at {time.monotonic_ns()}")

    for name in there:
        occupied.log(name, 40)
    with attacked(place, OCCUPY) as said:
        deleted = clean(occupied, seconds, look)
    record_property("attacks", int(said[0]))
    assert deleted > 0
    assert his(place) == set()


def test_a_careless_cleaner_puts_its_copies_where_another_user_says(place: Path, occupied: Platform) -> None:
    until = time.monotonic() + PATIENCE
    with attacked(place, OCCUPY):
        while not his(place) and time.monotonic() < until:
            try:
                occupied.backups.mkdir(mode=0o700, exist_ok=True)
                (occupied.backups / "copy").write_text(SECRET)
            except OSError:
                continue
            if occupied.backups.exists() and occupied.backups.stat().st_uid == 0:
                shutil.rmtree(occupied.backups)
    assert his(place) == {"copy"}


#: Tries to read and write whatever the service has for itself.
PRY = """
opened = tries = 0
while running():
    for top in ("state", "backups", "state/manifests", "state/plans", "backups/.manifests", "state/cleanup.db"):
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDONLY | os.O_DIRECTORY):
            tries += 1
            with suppress(OSError):
                os.close(os.open(f"{place}/{top}", flags))
                opened += 1
    with suppress(OSError):
        for name in os.listdir(root):
            if name.startswith(".cleanup-q-"):
                tries += 1
                os.listdir(f"{root}/{name}")
                opened += 1
print(tries, opened)
"""


def test_nobody_else_reads_or_writes_manifests_copies_or_the_quarantine(
    place: Path, platform: Platform, seconds: float, record_property: Counted
) -> None:
    def more() -> None:
        for number in range(5):
            platform.log(f"{number}-{time.monotonic_ns()}.log", 40, SECRET)

    more()
    with attacked(place, PRY) as said:
        deleted = clean(platform, seconds, more)
    tries, opened = map(int, said)
    record_property("attacks", tries)
    assert deleted > 0
    assert tries > 100
    assert opened == 0


@pytest.mark.parametrize("path", ["../outside/new", "d/../../outside/new", "/outside/new", "d//new", ".."])
def test_receipts_that_were_forged_with_the_database_restore_nothing_outside_the_root(
    place: Path, platform: Platform, path: str
) -> None:
    """Whoever can write the manifests, their replicas and the database still does not get a file out of the root."""
    platform.log("d/a.log", 40)
    run_id = platform.run().run.request.run_id
    genuine = next((platform.state / "manifests" / run_id).glob("logs.receipts.*"))
    header, rows = read_header(genuine), list(read_manifest(genuine, Receipt))
    genuine.unlink()
    with write_manifest(genuine, header) as forged:
        for row in rows:
            forged.write(msgspec.structs.replace(row, path=path))
        reference = forged.close()
    replica_of(platform.backups, run_id, "logs").write_bytes(genuine.read_bytes())
    platform.sql(f"UPDATE cleanup_run_targets SET receipts_sha256 = '{reference.sha256}'")  # noqa: S608
    before = files(place / "outside"), files(platform.logs)
    with platform.service() as service:
        report: RestoreReport = service.restore(RestoreRequest("forged", run_id, "mallory", dry_run=False))
    assert set(report.states) == {RestoreState.FAILED}
    assert (files(place / "outside"), files(platform.logs)) == before


DEEP = """
fd = os.open("shallow.log", os.O_CREAT | os.O_WRONLY); os.close(fd); age("shallow.log")
for level in range(5000):
    os.mkdir("d"); os.chdir("d")
os.close(os.open("deep.log", os.O_CREAT | os.O_WRONLY)); age("deep.log")
"""


def test_a_tree_of_five_thousand_levels(place: Path, platform: Platform) -> None:
    attack_once(place, DEEP)
    began = time.monotonic()
    ended = platform.run()
    assert time.monotonic() - began < 20
    assert ended.report.counts["system_logs"].deleted.files == 1
    assert ended.plans["logs"].kept[Reason.TOO_DEEP].files == 1
    assert not (platform.logs / "shallow.log").exists()


HUGE = """
with open("huge.log", "w") as file:
    file.truncate(1 << 40)
age("huge.log")
"""


def test_a_sparse_file_of_a_tebibyte_is_more_than_a_run_takes(place: Path, platform: Platform) -> None:
    attack_once(place, HUGE)
    platform.log("ordinary.log", 40)
    began = time.monotonic()
    assert platform.run().tripped == ["bytes", "free_space"]
    assert platform.run(cleanup_type=EMERGENCY).tripped == ["free_space"]
    assert time.monotonic() - began < 20
    assert files(platform.logs) == {"huge.log", "ordinary.log"}
    assert copies(place) == []


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


def lost_records(place: Path, written: int) -> set[bytes]:
    paths = [*(place / "logs").rglob("*"), *place.rglob("*.backup")]
    there = {line for path in paths if path.is_file() for line in path.read_bytes().splitlines()}
    return {b"record %d" % number for number in range(written)} - there


def test_no_record_of_an_appender_is_lost(
    place: Path, platform: Platform, seconds: float, record_property: Counted
) -> None:
    with attacked(place, APPEND) as said:
        deleted = clean(platform, 2 * seconds)
    record_property("attacks", int(said[0]))
    assert deleted > 0
    assert lost_records(place, int(said[0])) == set()


def test_a_careless_cleaner_loses_records(place: Path, platform: Platform) -> None:
    began = time.monotonic()
    with attacked(place, APPEND) as said:
        clean_carelessly(place, lambda: time.monotonic() - began > 3)
    assert lost_records(place, int(said[0]))
    assert not platform.backups.exists()


BOMBS = r"""
bombs = {
    "deep": b"[" * 200_000,
    "deep_object": b'{"a":' * 200_000,
    "number": b'{"status": "completed", "end_time": 1' + b"0" * 10_000 + b"}",
    "exponent": b'{"status": "completed", "end_time": 1e400}',
    "nan": b'{"status": "completed", "end_time": NaN}',
    "bytes": b'{"status": "completed", "end_time": "\xff\xfe"}',
    "surrogate": b'{"status": "completed", "end_time": "\\ud800"}',
    "large": b'{"status": "completed", "end_time": 1000, "x": "' + b"x" * (9 << 20) + b'"}',
    "keys": b"{" + b",".join(b'"k%d": 0' % n for n in range(100_000)) + b"}",
    "nothing": b"",
    "list": b"[]",
    "null": b"null\x00",
}
for name, content in bombs.items():
    path = f"{place}/operations/operation_{name}.json"
    with open(path, "wb") as file:
        file.write(content)
    age(path)
"""


def test_bombs_of_json_go_off_nowhere(place: Path, platform: Platform) -> None:
    os.chown(platform.operations, NOBODY, NOBODY)
    attack_once(place, BOMBS)
    platform.operation("ordinary", 91)
    before = files(platform.operations)
    began = time.monotonic()
    ended = platform.run()
    assert time.monotonic() - began < 20
    assert ended.report.status == "done", ended.problems
    gone = before - files(platform.operations)
    assert "operation_ordinary.json" in gone
    assert Reason.UNREADABLE_CONTENT in ended.plans["operations"].kept
    for name in ("deep", "deep_object", "nan", "bytes", "large", "nothing", "list", "null"):
        assert (platform.operations / f"operation_{name}.json").exists(), name


NAMES = r"""
names = [
    b"line\nbreak.log", b"\x1b]0;title\x07\x1b[31mred.log", "\u202egol.exe".encode(), b"\xff\xfe\xe9.log",
    b"=cmd|' C calc'!A0.log", b"'; DROP TABLE cleanup_audit; --.log", b"%s%n{0}$(id)`id`.log", b"-rf.log", b"...",
    b"back\\slash\\u002f.log", b"<script>alert(1)</script>".replace(b"/", b"_"), b"x" * 251 + b".log", b" ", b"\t",
    b".backup", b"a.backup", "\u0061\u0301.log".encode(), b"~root", b"*?[x]{a,b}.log", b"\xed\xb2\x80.log",
]
os.mkdir(b"\x1b[2J\n")
for name in names + [b"\x1b[2J\n/" + name for name in names]:
    with open(name, "wb") as file:
        file.write(name)
    age(name)
"""


def test_hostile_names_go_through_scan_database_log_and_restore(place: Path, platform: Platform) -> None:
    attack_once(place, NAMES)
    before = {os.fsencode(path): path.read_bytes() for path in platform.logs.rglob("*") if path.is_file()}
    assert len(before) == 40
    ended = platform.run()
    assert ended.report.status == "done", ended.problems
    assert files(platform.logs) == set()
    log = Path(ended.report.log).read_text(encoding="utf-8")
    assert len([line for line in log.splitlines() if line.startswith("deleted ")]) == 40
    assert all(line.isprintable() for line in log.split("\n"))
    assert platform.ask("SELECT records_deleted FROM cleanup_audit WHERE data_type = 'system_logs'") == [(40,)]
    with platform.service() as service:
        report = service.restore(RestoreRequest("a-restore", ended.run.request.run_id, "bob", dry_run=False))
    assert report.problems == ()
    assert {os.fsencode(path): path.read_bytes() for path in platform.logs.rglob("*") if path.is_file()} == before
