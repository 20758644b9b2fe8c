"""Renaming without replacing, and telling mounts apart."""

import errno
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from filesystem_helpers import mounted

from cleanup_dagster.filesystem import syscalls
from cleanup_dagster.filesystem.syscalls import mount_id, rename_noreplace


@pytest.fixture
def directory(tmp_path: Path) -> Generator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture(params=["system call", "not in the C library", "refused by the filesystem"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every way by which a name is changed: the system call, and the link and unlink that stand in for it."""

    def refused(*_: object) -> int:
        syscalls.ctypes.set_errno(errno.EINVAL)
        return -1

    if request.param != "system call":
        monkeypatch.setattr(syscalls, "_rename", None if "library" in request.param else refused)
    return request.param


@pytest.mark.usefixtures("way")
def test_a_name_moves(tmp_path: Path, directory: int) -> None:
    (tmp_path / "a\udcff").write_text("content")
    rename_noreplace("a\udcff", "b\n", source_dir=directory, destination_dir=directory)
    assert [p.name for p in tmp_path.iterdir()] == ["b\n"]
    assert (tmp_path / "b\n").read_text() == "content"


@pytest.mark.usefixtures("way")
def test_nothing_is_ever_replaced(tmp_path: Path, directory: int) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "new").write_text("new")
    with pytest.raises(FileExistsError):
        rename_noreplace("new", "old", source_dir=directory, destination_dir=directory)
    assert (tmp_path / "old").read_text() == "old"
    assert (tmp_path / "new").read_text() == "new"


@pytest.mark.usefixtures("way")
def test_a_symlink_moves_as_itself(tmp_path: Path, directory: int) -> None:
    (tmp_path / "target").write_text("t")
    (tmp_path / "link").symlink_to("target")
    rename_noreplace("link", "moved", source_dir=directory, destination_dir=directory)
    assert (tmp_path / "moved").readlink() == Path("target")


@pytest.mark.usefixtures("way")
def test_a_missing_name_is_said_to_be_missing(directory: int) -> None:
    with pytest.raises(FileNotFoundError):
        rename_noreplace("no", "where", source_dir=directory, destination_dir=directory)


def test_one_mount_has_one_id(tmp_path: Path, directory: int) -> None:
    (tmp_path / "below").mkdir()
    fd = os.open(tmp_path / "below", os.O_RDONLY)
    assert mount_id(fd) == mount_id(directory)
    os.close(fd)


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_another_mount_has_another_id(tmp_path: Path, directory: int, kind: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "source").mkdir()
    with mounted(kind, tmp_path / "source", tmp_path / "other"):
        fd = os.open(tmp_path / "other", os.O_RDONLY)
        same_device = os.fstat(fd).st_dev == os.fstat(directory).st_dev
        assert mount_id(fd) != mount_id(directory)
        os.close(fd)
    assert same_device == (kind == "bind")  # which is why the device does not do


def test_without_statx_the_device_has_to_do(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "_statx", None)
    assert mount_id(directory) == os.fstat(directory).st_dev
