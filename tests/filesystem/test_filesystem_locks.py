"""The lock of live runs: one holder, and none once it is dead."""

import os
import stat
from collections.abc import Generator
from pathlib import Path

import pytest
from filesystem_helpers import other_process

from cleanup_dagster.filesystem.locks import host_lock

HOLD = """
import os
from cleanup_dagster.filesystem.locks import host_lock
lock = host_lock(os.open(sys.argv[1], os.O_RDONLY))
assert lock.__enter__()
"""


@pytest.fixture
def state(tmp_path: Path) -> Generator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_one_holder_at_a_time(state: int) -> None:
    with host_lock(state) as first:
        with host_lock(state) as second:
            assert first is not None
            assert second is None
        with host_lock(state) as third:  # the one that did not get it did not let go of it either
            assert not third
    with host_lock(state) as again:
        assert again


def test_another_process_holds_it(tmp_path: Path, state: int) -> None:
    with other_process(HOLD, tmp_path), host_lock(state) as free:
        assert not free
    with host_lock(state) as free:
        assert free


def test_a_holder_that_is_killed_lets_go(tmp_path: Path, state: int) -> None:
    with other_process(HOLD, tmp_path) as holder:
        holder.kill()
        holder.wait()
        with host_lock(state) as free:
            assert free


def test_the_file_is_ours_alone_and_a_symlink_is_not_followed(tmp_path: Path, state: int) -> None:
    with host_lock(state):
        assert stat.S_IMODE((tmp_path / "live.lock").stat().st_mode) == 0o600
    (tmp_path / "live.lock").unlink()
    (tmp_path / "live.lock").symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        host_lock(state).__enter__()
    assert not (tmp_path / "elsewhere").exists()
