"""The deletion protocol and what changes: a file is left alone from the moment on in which it is another one."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from deletion_helpers import QUARANTINE, WRITTEN, Platform, append, around_take, no_lease, replace, states

from cleanup_dagster.backups.files import FileBackups
from cleanup_dagster.collectors import deletion
from cleanup_dagster.filesystem import busy
from cleanup_dagster.filesystem.busy import OpenCheck
from cleanup_dagster.retention.models import Identity, State


def overwrite(file: Path) -> None:
    file.write_text("CONTENT")


def rewrite_and_set_the_mtime_back(file: Path) -> None:
    status = file.stat()
    file.write_text("CONTENT")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def touch(file: Path) -> None:
    file.touch()


def chmod(file: Path) -> None:
    file.chmod(0o4755)


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
    if drift in UNOPENABLE:
        detail = f"it cannot be opened: {UNOPENABLE[drift]}"
    assert states(platform.outcomes()) == {"d/a.log": (State.DRIFTED, detail)}
    assert described(file) == before


@drifts
def test_changed_in_the_very_moment_of_deletion(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, drift: Callable[[Path], None], detail: str
) -> None:
    """A file of somebody else's, on which an ordinary user gets no lease: who writes to a leased one has to wait."""
    monkeypatch.setattr(busy, "_lease", no_lease)
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
