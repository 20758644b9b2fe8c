"""A sector that cannot be read costs one file its turn, and no other; one that cannot be written stops everything."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from service_helpers import Platform, files

from cleanup_dagster.backups.archive import FRAME_BYTES
from cleanup_dagster.handles import RestoreRequest
from cleanup_dagster.retention.models import RestoreState, State

both_formats = pytest.mark.parametrize("store", ["files", "archive"])


@pytest.fixture
def platform(tmp_path: Path, store: str) -> Platform:
    platform = Platform(tmp_path)
    platform.target("logs")["format"] = store
    for name in ("a.log", "c.log"):
        platform.log(name, 40)
    platform.log("d/large.log", 40, "large " * FRAME_BYTES)
    return platform


def unreadable_from(bad: Path, offset: int) -> Callable[[int, int], bytes]:
    """Return an os.read to which one file has a bad sector."""
    inode, read = bad.stat().st_ino, os.read

    def failing(fd: int, size: int) -> bytes:
        if os.fstat(fd).st_ino == inode and os.lseek(fd, 0, os.SEEK_CUR) >= offset:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(fd, size)

    return failing


@both_formats
@pytest.mark.parametrize(("size", "offset"), [(1_000, 0), (3 * FRAME_BYTES, 0), (3 * FRAME_BYTES, FRAME_BYTES)])
def test_a_file_that_cannot_be_read_stays_and_the_others_go(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, size: int, offset: int
) -> None:
    bad = platform.log("b.log", 40, "b" * size)
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", unreadable_from(bad, offset))
        ended = platform.run()
        assert files(platform.logs) == {"b.log"}
        states = ended.report.counts["system_logs"].states
        assert {state: tally.files for state, tally in states.items()} == {State.DELETED: 3, State.FAILED: 1}
        assert ended.report.status == "failed"
        assert platform.run().report.counts["system_logs"].failed.files == 1
    assert bad.read_text() == "b" * size
    with platform.service() as service:
        assert service.verify_backups().damaged == ()
        report = service.restore(RestoreRequest("undo", ended.run.request.run_id, "bob", dry_run=False))
    assert {state: tally.files for state, tally in report.states.items()} == {RestoreState.RESTORED: 3}
    assert files(platform.logs) == {"a.log", "b.log", "c.log", "d/large.log"}


@both_formats
def test_a_copy_that_cannot_be_written_stops_the_whole_target(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    call = "write" if store == "files" else "pwrite"
    whole = getattr(os, call)

    def failing(fd: int, *arguments: object) -> int:
        if "backups" in str(Path(f"/proc/self/fd/{fd}").readlink()):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return whole(fd, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        ended = platform.run()
    assert "Input/output error; nothing of it was deleted" in ended.problems
    assert files(platform.logs) == {"a.log", "c.log", "d/large.log"}
    assert not list(platform.backups.rglob("*.backup"))
