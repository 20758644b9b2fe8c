"""What the kernel's table of mounts tells."""

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from cleanup_dagster.filesystem import flushing, mounts, syscalls
from cleanup_dagster.filesystem.flushing import syncs_whole
from cleanup_dagster.filesystem.identity import OPEN_DIRECTORY
from cleanup_dagster.filesystem.mounts import filesystem_of, has_mounts_below


@contextmanager
def opened(path: Path) -> Generator[int]:
    fd = os.open(path, OPEN_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def tmpfs(place: Path) -> Generator[None]:
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.needs_root
@pytest.mark.parametrize(
    "root", ["plain", "with a blank", "back\\slash", "line\nbreak", "line\u2028break", "return\r", "tab\t"]
)
def test_a_mount_below_is_seen_and_one_beside_is_not(tmp_path: Path, root: str) -> None:
    (tmp_path / root).mkdir()
    with opened(tmp_path / root) as fd:
        with tmpfs(tmp_path / f"{root}er/a"):
            assert not has_mounts_below(fd)
        with tmpfs(tmp_path / root / "a/b"):
            assert has_mounts_below(fd)
        assert not has_mounts_below(fd)


def test_without_the_table_there_may_be_a_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "missing")
    with opened(tmp_path) as fd:
        assert has_mounts_below(fd)
        assert filesystem_of(fd) == ""


def test_a_device_is_not_taken_for_a_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where statx is forbidden, a device's number stands in for the mount's; another mount may have it."""
    monkeypatch.setattr(syscalls, "_statx", None)
    table = tmp_path / "mountinfo"
    table.write_text(f"{tmp_path.stat().st_dev} 1 8:1 / /elsewhere rw - ext4 /dev/sda1 rw\n")
    monkeypatch.setattr(mounts, "_MOUNTS", table)
    with opened(tmp_path) as fd:
        assert filesystem_of(fd) == ""


@pytest.mark.needs_root
def test_what_a_directory_lies_on(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "memory"), opened(tmp_path / "memory") as fd:
        assert filesystem_of(fd) == "tmpfs"
        assert not syncs_whole(fd)


@pytest.mark.parametrize(
    ("kind", "release", "has_it", "relied_on"),
    [
        ("ext4", "6.1.0-13-amd64", True, True),
        ("xfs", "5.8.0", True, True),
        ("ext4", "5.7.19", True, False),  # which did not tell of writes that had failed
        ("ext4", "4.4.0", True, False),
        ("fuse.sshfs", "6.1.0", True, False),  # which need not pass it on
        ("overlay", "6.1.0", True, False),
        ("", "6.1.0", True, False),
        ("ext4", "6.1.0", False, False),
        ("ext4", "strange", True, False),
    ],
)
def test_where_one_call_makes_everything_durable(
    monkeypatch: pytest.MonkeyPatch, kind: str, release: str, has_it: bool, relied_on: bool
) -> None:
    def lies_on(_: int) -> str:
        return kind

    monkeypatch.setattr(flushing, "filesystem_of", lies_on)
    monkeypatch.setattr(flushing, "HAS_SYNCFS", has_it)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    assert syncs_whole(0) is relied_on
