"""Room for the copies, and whether a power cut would take them."""

import os
from pathlib import Path

import pytest
from filesystem_helpers import mounted

from cleanup_dagster.filesystem.space import bytes_in_archive, bytes_on_disk, free_bytes, is_volatile


def test_what_is_free_where_it_will_be_created(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    assert free_bytes(tmp_path / "not/there/yet") == pytest.approx(status.f_bavail * status.f_frsize, rel=0.05)


def test_what_goes_while_it_is_looked_at_was_never_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "going").mkdir()
    statvfs = os.statvfs

    def removing(path: Path) -> os.statvfs_result:
        (tmp_path / "going").rmdir() if path.name == "going" else None
        return statvfs(path)

    monkeypatch.setattr(os, "statvfs", removing)
    assert free_bytes(tmp_path / "going") == pytest.approx(free_bytes(tmp_path), rel=0.05)


@pytest.mark.parametrize("loop", [True, False])
def test_what_leads_nowhere_is_not_there(tmp_path: Path, loop: bool) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert is_volatile(tmp_path / ("loop" if loop else "file/below")) == is_volatile(tmp_path)


def test_a_copy_takes_up_to_a_block_more_than_its_bytes() -> None:
    assert bytes_on_disk(3, 10) == 10 + 3 * 4_096
    assert bytes_on_disk(0, 0) == 0


def test_a_file_in_an_archive_takes_up_to_a_header_and_its_padding_more() -> None:
    assert bytes_in_archive(3, 10) == 10 + 3 * 1_024 + 4_096


@pytest.mark.needs_root
def test_memory_is_volatile_and_a_disk_is_not(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    before = is_volatile(tmp_path / "m")
    with mounted("tmpfs", "none", tmp_path / "m"):
        assert is_volatile(tmp_path / "m")
        assert is_volatile(tmp_path / "m/not/there/yet")
        assert is_volatile(tmp_path) == before


@pytest.mark.needs_root
def test_a_full_filesystem_has_nothing_free(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with mounted("tmpfs", "none", tmp_path / "m"):
        free = free_bytes(tmp_path / "m")
        (tmp_path / "m/file").write_bytes(b"x" * 1_000_000)
        assert 0 < free - free_bytes(tmp_path / "m") - 1_000_000 < 100_000
