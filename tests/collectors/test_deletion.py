"""The deletion protocol: what is deleted, what is left alone and why, and how an interrupted run is settled."""

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from deletion_helpers import DATA_TYPE, NOBODY, QUARANTINE, Platform, other_process

from cleanup_dagster.backups.files import BackupError, FileBackups
from cleanup_dagster.collectors import deletion
from cleanup_dagster.filesystem import syscalls
from cleanup_dagster.filesystem.busy import OpenCheck
from cleanup_dagster.filesystem.quarantine import Quarantine
from cleanup_dagster.retention.models import Hold, Identity, Outcome, Reason, State, Tally, Verdict

Take = Callable[[Quarantine, int, str, str], None]


def states(outcomes: list[Outcome]) -> dict[str, tuple[State, str]]:
    return {outcome.path: (outcome.state, outcome.detail) for outcome in outcomes}


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "BATCH", 2)
    monkeypatch.setattr(FileBackups, "batch_files", 2)
    monkeypatch.setattr(FileBackups, "batch_files", 2)


def around_take(
    monkeypatch: pytest.MonkeyPatch,
    *,
    before: Callable[[str], None] | None = None,
    after: Callable[[str], None] | None = None,
) -> None:
    """Let something happen right before or after a file is moved into the quarantine."""
    take = Quarantine.take

    def taking(self: Quarantine, directory: int, name: str, slot: str) -> None:
        if before is not None:
            before(name)
        take(self, directory, name, slot)
        if after is not None:
            after(name)

    monkeypatch.setattr(Quarantine, "take", taking)


# The ordinary way


def test_files_are_backed_up_and_deleted(platform: Platform) -> None:
    platform.file("a.log", "one")
    platform.file("d/b.log", "two")
    platform.file("kept.log", "three")
    backed_up = platform.back_up(platform.verdicts("a.log", "d/b.log"))
    assert backed_up.by_state == {}
    assert platform.files() == {"a.log": "one", "d/b.log": "two", "kept.log": "three"}
    totals = platform.delete()
    assert totals.by_state == {(DATA_TYPE, State.DELETED): Tally(2, 6)}
    assert totals.open_checks == {"lease+flock": 2}
    assert platform.files() == {"kept.log": "three"}
    assert platform.copies() == {"a.log.backup": "one", "d/b.log.backup": "two"}
    assert states(platform.outcomes()) == {"a.log": (State.DELETED, ""), "d/b.log": (State.DELETED, "")}
    assert not (platform.root / QUARANTINE).exists()
    assert platform.recover() == []


def test_only_what_the_verdicts_delete(platform: Platform) -> None:
    platform.file("a.log")
    keep = Verdict(platform.verdict("a.log").candidate, False, Reason.NOT_EXPIRED, 1)
    platform.back_up([keep])
    platform.delete()
    assert platform.files() == {"a.log": "content"}
    assert platform.copies() == {}


@pytest.mark.usefixtures("small_batches")
def test_many_batches_and_awkward_names(platform: Platform) -> None:
    names = ["a\nb", "\x1b[31m", "n" * 255, "\udcff\udcfe", "back\\slash", "-rf", " "]
    for number, name in enumerate(names):
        platform.file(f"{name[:200]}/{name}", str(number))
    platform.back_up(platform.verdicts())
    platform.delete()
    assert platform.files() == {}
    assert sorted(platform.copies().values()) == [str(number) for number in range(len(names))]
    assert len({receipt.backup for receipt in platform.receipts()}) == len(names)


def test_two_runs_keep_both_copies(platform: Platform) -> None:
    for content in ("one", "two"):
        platform.file("a.log", content)
        platform.back_up(platform.verdicts())
        platform.delete()
    assert platform.copies() == {"a.log.backup": "one", "a.log.00000001.backup": "two"}


def test_without_a_backup_the_receipt_says_so(platform: Platform) -> None:
    platform.file("a.log")
    platform.back_up(platform.verdicts(), skip_backup=True)
    assert [(r.backup, r.sha256) for r in platform.receipts()] == [("", "")]
    platform.delete()
    assert platform.files() == {}
    assert not platform.backups.exists()


def test_an_empty_and_a_sparse_file(platform: Platform) -> None:
    platform.file("empty", "")
    platform.file("sparse", "x")
    os.truncate(platform.root / "sparse", 10 * 1024**2)
    platform.back_up(platform.verdicts())
    platform.delete()
    assert platform.files() == {}
    assert (platform.backups / "sparse.backup").stat().st_size == 10 * 1024**2


@pytest.mark.needs_root
def test_a_setuid_file_leaves_no_setuid_copy(platform: Platform) -> None:
    file = platform.file("shell")
    os.chown(file, NOBODY, NOBODY)
    file.chmod(0o4755)
    platform.back_up(platform.verdicts())
    platform.delete()
    copy = (platform.backups / "shell.backup").stat()
    assert (copy.st_mode & 0o7777, copy.st_uid) == (0o600, os.geteuid())


# What changed meanwhile


def append(file: Path) -> None:
    with file.open("a") as out:
        out.write(" more")


def overwrite(file: Path) -> None:
    file.write_text("CONTENT")


def rewrite_and_set_the_mtime_back(file: Path) -> None:
    status = file.stat()
    file.write_text("CONTENT")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(file: Path) -> None:
    new = file.with_name("new")
    new.write_text("content")
    os.utime(new, ns=(0, file.stat().st_mtime_ns))
    new.replace(file)


def touch(file: Path) -> None:
    file.touch()


def chmod(file: Path) -> None:
    file.chmod(0o4755)


def write_new(file: Path) -> None:
    file.write_text("new")


def hardlink(file: Path) -> None:
    file.with_name("link").hardlink_to(file)


def move_away(file: Path) -> None:
    """Free the name but not the inode, which the next file would often get."""
    file.rename(file.parent.parent.parent / "moved")


def to_symlink(file: Path) -> None:
    secret = file.parent.parent.parent / "secret"
    secret.write_text("secret")
    move_away(file)
    file.symlink_to(secret)


def to_fifo(file: Path) -> None:
    move_away(file)
    os.mkfifo(file)


def to_directory(file: Path) -> None:
    move_away(file)
    file.mkdir()


def to_socket(file: Path) -> None:
    move_away(file)
    code = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(file)], check=True)


WRITTEN = "it was written to since it was judged"
REPLACED = "another file has its name now"
INODE = "its inode changed since it was judged, though size and mtime are the same"
DRIFTS = [
    (append, WRITTEN),
    (overwrite, WRITTEN),
    (replace, REPLACED),
    (touch, WRITTEN),
    (chmod, "its owner or mode changed since it was judged"),
    (hardlink, "it has another hard link now"),
    (to_symlink, REPLACED),
    (to_fifo, REPLACED),
    (to_directory, REPLACED),
    (to_socket, REPLACED),
]
UNOPENABLE: dict[Callable[[Path], None], str] = {
    to_symlink: "Too many levels of symbolic links",
    to_socket: "No such device or address",
}
#: Seen up to the move into the quarantine, which changes the ctime itself.
SLY = [(rewrite_and_set_the_mtime_back, INODE)]
drifts = pytest.mark.parametrize(("drift", "detail"), DRIFTS, ids=[drift.__name__ for drift, _ in DRIFTS])
drifts_before = pytest.mark.parametrize(
    ("drift", "detail"), DRIFTS + SLY, ids=[drift.__name__ for drift, _ in DRIFTS + SLY]
)


def described(path: Path) -> tuple[int, int, int, int]:
    status = path.lstat()
    return status.st_ino, status.st_mode, status.st_size, status.st_nlink


@drifts_before
def test_changed_between_scan_and_backup(platform: Platform, drift: Callable[[Path], None], detail: str) -> None:
    file = platform.file("d/a.log")
    verdicts = platform.verdicts()
    drift(file)
    before = described(file)
    platform.back_up(verdicts)
    if drift in UNOPENABLE:
        detail = f"it cannot be opened: {UNOPENABLE[drift]}"
    assert states(platform.skipped()) == {"d/a.log": (State.DRIFTED, detail)}
    assert platform.delete().by_state == {}
    assert described(file) == before
    assert platform.copies() == {}


@drifts_before
def test_changed_between_backup_and_deletion(platform: Platform, drift: Callable[[Path], None], detail: str) -> None:
    file = platform.file("d/a.log")
    platform.back_up(platform.verdicts())
    drift(file)
    before = described(file)
    platform.delete()
    assert states(platform.outcomes()) == {"d/a.log": (State.DRIFTED, detail)}
    assert described(file) == before


@drifts
def test_changed_in_the_very_moment_of_deletion(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, drift: Callable[[Path], None], detail: str
) -> None:
    file = platform.file("d/a.log")
    platform.back_up(platform.verdicts())
    seen: list[tuple[int, int, int, int]] = []

    def change(_: str) -> None:
        drift(file)
        seen.append(described(file))

    around_take(monkeypatch, before=change)
    platform.delete()
    assert states(platform.outcomes()) == {"d/a.log": (State.DRIFTED, detail)}
    assert described(file) == seen[0]  # it is in its place again
    assert not (platform.root / QUARANTINE).exists()


@pytest.mark.needs_root
def test_a_file_that_something_is_mounted_over(platform: Platform) -> None:
    """A container's bind-mounted file: the same device and inode, and yet not ours to take away."""
    file = platform.file("a.log")
    subprocess.run(["mount", "--bind", str(file), str(file)], check=True)
    try:
        platform.back_up(platform.verdicts())
    finally:
        subprocess.run(["umount", "--lazy", str(file)], check=True)
    assert states(platform.skipped()) == {"a.log": (State.DRIFTED, "something is mounted over it now")}


@pytest.mark.parametrize(("drift", "detail"), [(touch, WRITTEN), *SLY])
def test_changed_while_it_is_copied(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, drift: Callable[[Path], None], detail: str
) -> None:
    file = platform.file("a.log")
    verdicts = platform.verdicts()
    stage = FileBackups.stage

    def slowly(self: FileBackups, source: int, identity: Identity, path: str) -> object:
        staged = stage(self, source, identity, path)
        drift(file)
        return staged

    def unclaimed(_: int) -> OpenCheck:  # for a lease the writer would wait, 45 s
        return OpenCheck.NONE

    monkeypatch.setattr(FileBackups, "stage", slowly)
    monkeypatch.setattr(deletion, "claim", unclaimed)
    platform.back_up(verdicts)
    assert states(platform.skipped()) == {"a.log": (State.DRIFTED, detail)}
    assert platform.copies() == {}


def test_a_file_that_cannot_be_read_to_its_end(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.file("a.log", "0123456789")
    verdicts = platform.verdicts()
    read = os.read

    def cut_off(fd: int, size: int) -> bytes:
        return read(fd, min(size, 4)) if os.lseek(fd, 0, os.SEEK_CUR) == 0 else b""

    monkeypatch.setattr(os, "read", cut_off)
    platform.back_up(verdicts)
    assert states(platform.skipped()) == {"a.log": (State.DRIFTED, "4 bytes could be read of 10")}


def test_gone_before_backup_and_before_deletion(platform: Platform) -> None:
    for name in ("a.log", "b.log", "d/c.log"):
        platform.file(name)
    verdicts = platform.verdicts()
    (platform.root / "a.log").unlink()
    platform.back_up(verdicts)
    (platform.root / "b.log").unlink()
    (platform.root / "d/c.log").unlink()
    (platform.root / "d").rmdir()
    platform.delete()
    assert states(platform.skipped()) == {"a.log": (State.GONE, "it was gone before it could be backed up")}
    gone = (State.GONE, "it was gone before it could be deleted")
    assert states(platform.outcomes()) == {"b.log": gone, "d/c.log": gone}


@pytest.mark.parametrize("moment", ["backup", "deletion"])
def test_a_parent_that_becomes_a_symlink_leads_nowhere(platform: Platform, moment: str) -> None:
    platform.file("d/a.log", "ours")
    outside = platform.root.parent / "outside"
    outside.mkdir()
    (outside / "a.log").write_text("secret")
    verdicts = platform.verdicts()
    if moment == "deletion":
        platform.back_up(verdicts)
    (platform.root / "d").rename(platform.root / "moved")
    (platform.root / "d").symlink_to(outside)
    if moment == "backup":
        platform.back_up(verdicts)
    platform.delete()
    outcomes = platform.skipped() if moment == "backup" else platform.outcomes()
    assert states(outcomes)["d/a.log"][0] is State.DRIFTED
    assert states(outcomes)["d/a.log"][1].endswith(": Not a directory")
    assert (outside / "a.log").read_text() == "secret"
    assert (platform.root / "moved/a.log").read_text() == "ours"
    assert "secret" not in platform.copies().values()


@pytest.mark.usefixtures("small_batches")
def test_a_directory_moved_out_of_the_root_is_rescued(platform: Platform) -> None:
    for number in range(4):
        platform.file(f"d/{number}.log")
    platform.back_up(platform.verdicts())
    rescue = platform.root.parent / "rescue"

    def move_after_the_first_batch() -> None:
        if not (platform.root / "d/0.log").exists() and not rescue.exists():
            (platform.root / "d").rename(rescue)

    platform.delete(between=move_after_the_first_batch)
    assert sorted(p.name for p in rescue.iterdir()) == ["2.log", "3.log"]
    assert [outcome.state for outcome in platform.outcomes()] == [State.DELETED] * 2 + [State.GONE] * 2


# Somebody is using it


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


# What cannot be put back


@pytest.mark.parametrize("fallback", [False, True], ids=["rename", "link and unlink"])
def test_a_name_that_was_taken_again_keeps_both_files_whole(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, fallback: bool
) -> None:
    if fallback:
        monkeypatch.setattr(syscalls, "_rename", None)
    file = platform.file("a.log")
    platform.back_up(platform.verdicts())
    around_take(monkeypatch, before=lambda _: append(file), after=lambda _: write_new(file))
    platform.delete()
    slot = f"{QUARANTINE}/{platform.run}.0"
    detail = f"{WRITTEN}, and its name was taken again: it stays whole in {slot}; move it by hand"
    assert states(platform.outcomes()) == {"a.log": (State.CONFLICT, detail)}
    assert platform.files() == {"a.log": "new", slot: "content more"}
    assert platform.recover() == []  # it was settled, and stays
    assert platform.files() == {"a.log": "new", slot: "content more"}


def test_a_new_file_under_a_deleted_name_is_left_alone(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    file = platform.file("a.log")
    platform.back_up(platform.verdicts())
    around_take(monkeypatch, after=lambda _: write_new(file))
    platform.delete()
    assert states(platform.outcomes()) == {"a.log": (State.DELETED, "")}
    assert platform.files() == {"a.log": "new"}


def test_what_cannot_be_removed_goes_back(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.file("a.log")
    platform.back_up(platform.verdicts())

    def failing(_: Quarantine, slot: str) -> None:
        raise OSError(5, "Input/output error", slot)

    monkeypatch.setattr(Quarantine, "remove", failing)
    platform.delete()
    assert states(platform.outcomes()) == {"a.log": (State.FAILED, "it cannot be removed: Input/output error")}
    assert platform.files() == {"a.log": "content"}


@pytest.mark.needs_root
def test_what_may_not_be_moved_belongs_to_others(platform: Platform) -> None:
    file = platform.file("a.log")
    subprocess.run(["chattr", "+i", str(file)], check=True)
    try:
        platform.back_up(platform.verdicts())
        platform.delete()
    finally:
        subprocess.run(["chattr", "-i", str(file)], check=True)
    detail = "it cannot be moved: Operation not permitted"
    assert states(platform.outcomes()) == {"a.log": (State.NOT_OWNER, detail)}


@pytest.mark.parametrize("moment", ["backup", "deletion"])
def test_running_out_of_descriptors_is_a_failure_and_no_drift(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    platform.file("d/a.log")
    verdicts = platform.verdicts()
    if moment == "deletion":
        platform.back_up(verdicts)
    whole = os.open

    def failing(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == ("d" if moment == "deletion" else "a.log"):
            raise OSError(24, "Too many open files")
        return whole(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", failing)
    if moment == "backup":
        platform.back_up(verdicts)
        assert states(platform.skipped()) == {"d/a.log": (State.FAILED, "it cannot be opened: Too many open files")}
    else:
        platform.delete()
        assert states(platform.outcomes()) == {"d/a.log": (State.FAILED, "it cannot be moved: Too many open files")}
    assert platform.files() == {"d/a.log": "content"}


# Holds


@pytest.mark.usefixtures("small_batches")
def test_a_hold_placed_during_the_run_wins_from_the_next_batch_on(platform: Platform) -> None:
    for number in range(4):
        platform.file(f"{number}.log")
    platform.back_up(platform.verdicts())

    def hold_after_the_first_batch() -> None:
        if not (platform.root / "0.log").exists():
            platform.holds = [Hold(7, f"{platform.root}/*.log", "evidence")]

    platform.delete(between=hold_after_the_first_batch)
    held = (State.HELD, "hold 7: evidence")
    deleted = (State.DELETED, "")
    assert states(platform.outcomes()) == {"0.log": deleted, "1.log": deleted, "2.log": held, "3.log": held}
    assert list(platform.files()) == ["2.log", "3.log"]


def test_what_cannot_learn_the_holds_deletes_nothing(platform: Platform) -> None:
    platform.file("a.log")
    platform.back_up(platform.verdicts())

    def lost() -> None:
        raise ConnectionError("the database is gone")

    with pytest.raises(ConnectionError):
        platform.delete(between=lost)
    assert platform.files() == {"a.log": "content"}
    assert platform.outcomes() == []


# Batches that fail


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("step", ["make_durable", "publish", "choose_place", "stage"])
def test_a_batch_that_cannot_be_backed_up_leaves_every_original(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    for number in range(5):
        platform.file(f"{number}.log", str(number))
    before = platform.files()
    calls = 0
    whole = getattr(FileBackups, step)

    def failing(self: FileBackups, *arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise BackupError("the disk is full")
        return whole(self, *arguments)

    monkeypatch.setattr(FileBackups, step, failing)
    open_before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    with pytest.raises(BackupError, match="the disk is full"):
        platform.back_up(platform.verdicts())
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == open_before
    assert platform.files() == before
    assert platform.recover() == []
    assert platform.files() == before
    assert platform.copies() == {}


def test_withdrawing_a_backup_leaves_the_copies_of_others(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another installation with the same backup directory got the place in the moment between choice and name."""
    platform.file("a.log", "ours")
    publish = FileBackups.publish

    def too_late(self: FileBackups, places: object) -> None:
        (platform.backups / "a.log.backup").write_text("theirs")
        publish(self, places)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(FileBackups, "publish", too_late)
    with pytest.raises(BackupError, match="File exists"):
        platform.back_up(platform.verdicts())
    platform.recover()
    assert platform.copies() == {"a.log.backup": "theirs"}
    assert platform.files() == {"a.log": "ours"}


# Interrupted, and settled by the next run


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, RuntimeError])
@pytest.mark.parametrize("moment", ["before the move", "in quarantine", "removed"])
@pytest.mark.parametrize("at", range(4))
def test_an_interrupted_deletion_is_settled(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, interrupt: type[BaseException], moment: str, at: int
) -> None:
    for number in range(4):
        platform.file(f"{number}.log", str(number))
    platform.back_up(platform.verdicts())
    remove = Quarantine.remove

    def strike(name: str) -> None:
        if name == f"{at}.log":
            raise interrupt

    def removing(self: Quarantine, slot: str) -> None:
        remove(self, slot)
        if slot.endswith(f".{at}"):
            raise interrupt

    if moment == "removed":
        monkeypatch.setattr(Quarantine, "remove", removing)
    else:
        around_take(monkeypatch, **{"before" if moment == "before the move" else "after": strike})
    with pytest.raises(interrupt):
        platform.delete()
    monkeypatch.undo()
    written = states(platform.outcomes())
    assert list(written) == [f"{number}.log" for number in range(at)]
    monkeypatch.setattr(deletion, "BATCH", 2)
    monkeypatch.setattr(FileBackups, "batch_files", 2)
    recovered = states(platform.recover())
    if moment == "before the move":
        assert recovered == {}
    elif moment == "in quarantine":
        assert recovered == {f"{at}.log": (State.DELETED, "")}
    else:
        assert recovered == {f"{at}.log": (State.DELETED, "by the interrupted run")}
    gone = {name for name, (state, _) in {**written, **recovered}.items() if state is State.DELETED}
    assert set(platform.files()) == {f"{number}.log" for number in range(4)} - gone
    assert set(platform.copies().values()) >= {name[0] for name in gone}
    assert not (platform.root / QUARANTINE).exists()


def interrupt_after_taking(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete, and be interrupted when the first file has been moved into quarantine."""

    def strike(_: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        around_take(patch, after=strike)
        with pytest.raises(KeyboardInterrupt):
            platform.delete()


@pytest.fixture
def in_quarantine(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that an interrupted run left in its quarantine; the path of it there."""
    platform.file("d/a.log")
    platform.back_up(platform.verdicts())
    interrupt_after_taking(platform, monkeypatch)
    return platform.root / QUARANTINE / f"{platform.run}.0"


@pytest.mark.usefixtures("in_quarantine")
def test_recovery_finishes_what_is_unchanged(platform: Platform) -> None:
    assert states(platform.recover()) == {"d/a.log": (State.DELETED, "")}
    assert platform.files() == {}


def test_recovery_puts_back_what_changed(platform: Platform, in_quarantine: Path) -> None:
    append(in_quarantine)
    assert states(platform.recover()) == {"d/a.log": (State.DRIFTED, WRITTEN)}
    assert platform.files() == {"d/a.log": "content more"}
    assert not in_quarantine.parent.exists()


def test_recovery_compares_the_very_bytes(platform: Platform, in_quarantine: Path) -> None:
    mtime = in_quarantine.stat().st_mtime_ns
    in_quarantine.write_text("CONTENT")
    os.utime(in_quarantine, ns=(mtime, mtime))
    assert states(platform.recover()) == {"d/a.log": (State.DRIFTED, "its bytes are not those of its backup")}
    assert platform.files() == {"d/a.log": "CONTENT"}


def test_recovery_leaves_what_is_in_use(platform: Platform, in_quarantine: Path) -> None:
    with other_process("out = open(sys.argv[1], 'a')", in_quarantine):
        assert states(platform.recover()) == {"d/a.log": (State.BUSY, "another process has it open for writing")}
    assert platform.files() == {"d/a.log": "content"}


@pytest.mark.usefixtures("in_quarantine")
def test_recovery_returns_what_is_held_by_now(platform: Platform) -> None:
    platform.holds = [Hold(3, f"{platform.root}/d", "evidence")]
    assert states(platform.recover()) == {"d/a.log": (State.HELD, "hold 3: evidence")}
    assert platform.files() == {"d/a.log": "content"}


def test_recovery_replaces_nothing(platform: Platform, in_quarantine: Path) -> None:
    append(in_quarantine)
    platform.file("d/a.log", "new")
    assert states(platform.recover())["d/a.log"][0] is State.CONFLICT
    assert platform.files() == {"d/a.log": "new", f"{QUARANTINE}/{platform.run}.0": "content more"}


def test_recovery_returns_what_is_held_by_now_but_replaces_nothing(platform: Platform, in_quarantine: Path) -> None:
    platform.holds = [Hold(3, f"{platform.root}/d", "evidence")]
    platform.file("d/a.log", "new")
    assert states(platform.recover())["d/a.log"][0] is State.CONFLICT
    assert platform.files()["d/a.log"] == "new"
    assert in_quarantine.read_text() == "content"


def test_recovery_of_a_file_whose_directory_is_gone(platform: Platform, in_quarantine: Path) -> None:
    (platform.root / "d").rmdir()
    state, detail = states(platform.recover())["d/a.log"]
    assert (state, detail) == (State.FAILED, f"its directory is gone; it stays whole in {QUARANTINE}/{platform.run}.0")
    assert in_quarantine.read_text() == "content"


@pytest.fixture
def untouched(platform: Platform) -> Path:
    """A file with a committed intent, which the run never came to delete."""
    file = platform.file("d/a.log")
    platform.back_up(platform.verdicts())
    return file


@pytest.mark.usefixtures("untouched")
def test_recovery_has_nothing_to_say_about_what_was_never_touched(platform: Platform) -> None:
    for _ in range(2):
        assert platform.recover() == []
        assert platform.files() == {"d/a.log": "content"}


def test_recovery_accounts_for_what_is_gone_from_both(platform: Platform, untouched: Path) -> None:
    untouched.unlink()
    for _ in range(2):
        assert states(platform.recover()) == {"d/a.log": (State.DELETED, "by the interrupted run")}
    assert platform.copies() == {"d/a.log.backup": "content"}


def test_recovery_leaves_a_new_file_alone(platform: Platform, untouched: Path) -> None:
    replace(untouched)
    detail = "something else has its name now; its backup is kept"
    assert states(platform.recover()) == {"d/a.log": (State.DRIFTED, detail)}
    assert platform.files() == {"d/a.log": "content"}


@pytest.mark.parametrize("code", [24, 5, 13])
def test_recovery_claims_nothing_about_a_directory_it_cannot_look_into(
    platform: Platform, untouched: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    whole = os.open

    def failing(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "d":
            raise OSError(code, os.strerror(code))
        return whole(path, flags, mode, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing)
        with pytest.raises(OSError, match=os.strerror(code)):
            platform.recover()
    assert untouched.read_text() == "content"
    assert platform.recover() == []


def test_recovery_without_a_backup_goes_by_identity(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.file("a.log")
    platform.back_up(platform.verdicts(), skip_backup=True)
    interrupt_after_taking(platform, monkeypatch)
    assert states(platform.recover()) == {"a.log": (State.DELETED, "")}


# Directories


def test_directories_that_the_run_emptied_are_removed(platform: Platform) -> None:
    for name in ("a/b/c/1.log", "a/b/c/2.log", "d/3.log", "e/4.log", "e/kept.log"):
        platform.file(name)
    (platform.root / "was-empty").mkdir()
    (platform.root / "d/also-empty").mkdir()
    platform.remove_empty_directories = True
    platform.back_up(platform.verdicts("a/b/c/1.log", "a/b/c/2.log", "d/3.log", "e/4.log"))
    totals = platform.delete()
    assert totals.directories_removed == 3
    left = sorted(str(path.relative_to(platform.root)) for path in platform.root.rglob("*"))
    assert left == ["d", "d/also-empty", "e", "e/kept.log", "was-empty"]


def test_directories_stay_unless_asked(platform: Platform) -> None:
    platform.file("a/1.log")
    platform.back_up(platform.verdicts())
    assert platform.delete().directories_removed == 0
    assert (platform.root / "a").is_dir()


def test_a_directory_that_somebody_else_emptied_stays(platform: Platform) -> None:
    file = platform.file("a/1.log")
    platform.remove_empty_directories = True
    platform.back_up(platform.verdicts())
    file.unlink()
    assert platform.delete().directories_removed == 0
    assert (platform.root / "a").is_dir()


@pytest.mark.usefixtures("small_batches")
def test_a_directory_emptied_over_several_batches_goes_with_the_last(platform: Platform) -> None:
    for number in range(5):
        platform.file(f"a/b/{number}.log")
    platform.remove_empty_directories = True
    platform.back_up(platform.verdicts())
    assert platform.delete().directories_removed == 2
    assert list(platform.root.iterdir()) == []
