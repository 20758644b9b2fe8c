"""A restore that dies, and filesystems and users that cannot do everything."""

import ctypes
import errno
import json
import os
import stat
from pathlib import Path

import msgspec
import pytest
from service_helpers import Platform, files, left_behind
from undo_helpers import (
    clean,
    contents,
    counts,
    killed,
    receipts_of,
    three_logs,
    undo,
    without_nameless_files,
)

from cleanup_dagster.backups import restore as restoring_one
from cleanup_dagster.backups.files import FileBackups
from cleanup_dagster.backups.restore import Restorer
from cleanup_dagster.filesystem.tree import open_root
from cleanup_dagster.retention.models import RestoreState

RESTORED = RestoreState.RESTORED
PRESENT = RestoreState.PRESENT
NOBODY = 65534


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL])
def test_without_nameless_files_it_comes_back_all_the_same(
    each_format: Platform, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    before = three_logs(each_format)
    run_id = clean(each_format)
    without_nameless_files(monkeypatch, code)
    seen: list[str] = []
    true = restoring_one.rename_noreplace

    def watched(source: str, destination: str, *, source_dir: int, destination_dir: int) -> None:
        seen.append(Path(f"/proc/self/fd/{source_dir}").readlink().name)
        true(source, destination, source_dir=source_dir, destination_dir=destination_dir)

    monkeypatch.setattr(restoring_one, "rename_noreplace", watched)
    assert counts(undo(each_format, run_id)) == {RESTORED: 3}
    assert contents(each_format) == before
    assert set(seen) == {f".cleanup-q-{os.geteuid()}"}
    assert left_behind(each_format.home) == []


def test_a_full_disk_is_said_and_leaves_nothing(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    three_logs(platform)
    run_id = clean(platform)
    without_nameless_files(monkeypatch, errno.ENOSPC)
    report = undo(platform, run_id)
    assert counts(report) == {RestoreState.FAILED: 3}
    assert report.troubled[0].detail == os.strerror(errno.ENOSPC)
    assert left_behind(platform.home) == []
    assert files(platform.logs) == set()


@pytest.mark.parametrize("nameless", [True, False])
@pytest.mark.parametrize(("at", "back"), [("_give_back", 4), ("_ended", 6)])
def test_a_restore_killed_midway_is_finished_by_the_next(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, *, nameless: bool, at: str, back: int
) -> None:
    monkeypatch.setattr(restoring_one, "BATCH_FILES", 2)
    before = {str(platform.log(f"{number}.log", 31, str(number))): str(number) for number in range(8)}
    run_id = clean(platform)
    if not nameless:
        without_nameless_files(monkeypatch)
    killed(restoring_one, at, 5, lambda: undo(platform, run_id))  # in the third batch
    midway = {path: text for path, text in contents(platform).items() if ".cleanup-q-" not in path}
    assert midway.items() <= before.items()
    assert len(midway) == back
    report = undo(platform, run_id)
    assert sum(counts(report).values()) == counts(report).get(RESTORED, 0) + counts(report).get(PRESENT, 0) == 8
    assert contents(platform) == before
    assert left_behind(platform.home) == []
    assert platform.ask("SELECT status FROM cleanup_runs WHERE cleanup_type = 'restore' ORDER BY started_at") == [
        ("interrupted",),
        ("done",),
    ]


def test_what_a_killed_restore_left_is_no_garbage_for_the_next_run_which_removes_it(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.log("a.log", 31)
    run_id = clean(platform)
    without_nameless_files(monkeypatch)
    killed(restoring_one, "rename_noreplace", 1, lambda: undo(platform, run_id))
    monkeypatch.undo()
    left = files(platform.logs)
    assert [name.split("/")[0] for name in left] == [f".cleanup-q-{os.geteuid()}"]
    platform.sql("DELETE FROM cleanup_holds")
    assert platform.dry().plans["logs"].expired == {}
    clean(platform)
    assert files(platform.logs) == set()
    assert left_behind(platform.home) == []


@pytest.mark.needs_root
def test_without_root_the_owner_stays_ours_and_it_is_said(platform: Platform) -> None:
    path = platform.log("d/a.log", 31)
    os.chown(path, 1234, 2345)
    path.chmod(0o640)
    run_id = clean(platform)
    platform.logs.joinpath("d").rmdir()
    (receipt,) = receipts_of(platform, run_id)
    os.chown(platform.logs, NOBODY, NOBODY)
    for place in (platform.backups, *platform.backups.rglob("*")):
        os.chown(place, NOBODY, NOBODY)
    reading, writing = os.pipe()
    with open_root(platform.logs) as root, open_root(platform.backups) as directory:
        pid = os.fork()
        if pid == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE: or /proc/self would still be root's
            store = FileBackups(directory, platform.backups, "x")
            restored = next(Restorer(root, store, dry_run=False).restore([receipt]))
            os.write(writing, msgspec.json.encode(restored))
            os._exit(0)
        os.waitpid(pid, 0)
    os.close(writing)
    said = json.loads(os.read(reading, 10_000))
    os.close(reading)
    assert (said["state"], said["detail"]) == ("restored", "the owner 1234:2345 could not be restored")
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (NOBODY, NOBODY, 0o640)
    assert path.read_text() == "d/a.log\n"
