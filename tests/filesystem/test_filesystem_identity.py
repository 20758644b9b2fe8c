"""What is never touched, and by what a file is known again."""

import hashlib
import os
import socket
import stat
from pathlib import Path

import pytest

from cleanup_dagster.filesystem.identity import OPEN_FILE, difference, hash_open, identify, obstacle
from cleanup_dagster.retention.models import Reason


def obstacle_at(path: Path) -> tuple[Reason, str] | None:
    return obstacle(path.lstat())


def test_a_regular_file_with_one_name_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert obstacle_at(tmp_path / "file") is None


def test_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("anything")
    assert obstacle_at(tmp_path / "link") == (Reason.SYMLINK, "")


def test_a_hard_link(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    assert obstacle_at(tmp_path / "one") == (Reason.HARD_LINKED, "2 links")


def test_a_directory_and_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert obstacle_at(tmp_path) == (Reason.NOT_REGULAR, "directory")
    assert obstacle_at(tmp_path / "fifo") == (Reason.NOT_REGULAR, "FIFO")


def test_a_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        assert obstacle_at(tmp_path / "s") == (Reason.NOT_REGULAR, "socket")


@pytest.mark.needs_root
@pytest.mark.parametrize(("kind", "word"), [(stat.S_IFCHR, "character device"), (stat.S_IFBLK, "block device")])
def test_a_device(tmp_path: Path, kind: int, word: str) -> None:
    os.mknod(tmp_path / "device", kind | 0o600, os.makedev(1, 3))
    assert obstacle_at(tmp_path / "device") == (Reason.NOT_REGULAR, word)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("content")
    return path


def test_an_untouched_file_does_not_differ(file: Path) -> None:
    before = identify(file.lstat())
    file.read_text()
    file.rename(file.with_name("elsewhere"))
    assert difference(before, file.with_name("elsewhere").lstat()) is None


def test_appending_is_noticed(file: Path) -> None:
    before = identify(file.lstat())
    with file.open("a") as out:
        out.write("more")
    assert difference(before, file.lstat()) == "it was written to since it was judged"


def test_rewriting_to_the_same_length_is_noticed(file: Path) -> None:
    os.utime(file, ns=(0, 0))
    before = identify(file.lstat())
    file.write_text("CONTENT")
    assert difference(before, file.lstat()) == "it was written to since it was judged"


def test_a_nanosecond_of_mtime_is_noticed(file: Path) -> None:
    os.utime(file, ns=(0, 1_000_000_000))
    before = identify(file.lstat())
    os.utime(file, ns=(0, 1_000_000_001))
    assert difference(before, file.lstat()) == "it was written to since it was judged"


def test_a_replacement_is_noticed(file: Path) -> None:
    before = identify(file.lstat())
    other = file.with_name("other")
    other.write_text("content")
    os.utime(other, ns=(0, before.mtime_ns))
    other.replace(file)
    assert difference(before, file.lstat()) == "another file has its name now"


def test_a_mode_is_noticed(file: Path) -> None:
    before = identify(file.lstat())
    file.chmod(0o4755)
    assert difference(before, file.lstat()) == "its owner or mode changed since it was judged"


@pytest.mark.needs_root
@pytest.mark.parametrize(("uid", "gid"), [(65_534, -1), (-1, 65_534)])
def test_an_owner_or_group_is_noticed(file: Path, uid: int, gid: int) -> None:
    before = identify(file.lstat())
    os.chown(file, uid, gid)
    assert difference(before, file.lstat()) == "its owner or mode changed since it was judged"


def test_a_new_hard_link_is_noticed(file: Path) -> None:
    before = identify(file.lstat())
    file.with_name("link").hardlink_to(file)
    assert difference(before, file.lstat()) == "it has another hard link now"


def test_opening_follows_no_symlink_and_waits_for_no_fifo(tmp_path: Path, file: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(OSError, match="symbolic links"):
        os.open(tmp_path / "link", OPEN_FILE)
    os.mkfifo(tmp_path / "fifo")
    fd = os.open(tmp_path / "fifo", OPEN_FILE)  # would wait for a writer for ever
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_the_hash_is_of_the_whole_file_wherever_the_descriptor_stands(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 2_500_000)
    fd = os.open(tmp_path / "big", OPEN_FILE)
    os.lseek(fd, 1_000, os.SEEK_SET)
    assert hash_open(fd) == hashlib.sha256(b"x" * 2_500_000).hexdigest()
    os.close(fd)


def test_a_device_that_never_ends_is_not_hashed() -> None:
    fd = os.open("/dev/zero", OPEN_FILE)
    with pytest.raises(OSError, match="not a regular file"):
        hash_open(fd)
    os.close(fd)
