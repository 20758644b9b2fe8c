"""Undo: what a run deleted comes back as it was, to its own place or nowhere, and over nothing."""

import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from service_helpers import Platform, files, left_behind, request, whole_run
from undo_helpers import clean, contents, copies, counts, receipts_of, three_logs, undo, without_nameless_files

from cleanup_dagster import applying
from cleanup_dagster.backups import manifest
from cleanup_dagster.backups import restore as restoring_one
from cleanup_dagster.handles import BackedUp, Deleted
from cleanup_dagster.retention.models import RestoreState

RESTORED = RestoreState.RESTORED
PRESENT = RestoreState.PRESENT
EXISTS = RestoreState.EXISTS


def test_a_whole_run_comes_back_byte_for_byte(each_format: Platform) -> None:
    before = three_logs(each_format)
    operation = each_format.operation("old", 91)
    said = operation.read_bytes()
    run_id = clean(each_format)
    assert files(each_format.logs) == files(each_format.operations) == set()
    report = undo(each_format, run_id)
    assert counts(report) == {RESTORED: 4}
    assert report.problems == ()
    assert contents(each_format) == before
    assert operation.read_bytes() == said
    assert left_behind(each_format.home) == []


@pytest.mark.needs_root
def test_owner_mode_and_mtime_come_back_and_no_setuid(each_format: Platform) -> None:
    path = each_format.log("tool.log", 31)
    os.chown(path, 1234, 2345)
    path.chmod(0o6751)
    os.utime(path, ns=(0, time.time_ns() - 31 * 86_400 * 10**9 + 123))
    before = path.stat()
    run_id = clean(each_format)
    undo(each_format, run_id)
    after = path.stat()
    assert stat.S_IMODE(after.st_mode) == 0o751
    assert (after.st_uid, after.st_gid, after.st_mtime_ns) == (1234, 2345, before.st_mtime_ns)


#: cap_setuid for whoever runs the file, as setcap writes it.
CAPABILITY = bytes.fromhex("0100000280000000000000000000000000000000")


@pytest.mark.needs_root
@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="file capabilities are Linux's")
def test_capabilities_are_neither_copied_nor_restored(each_format: Platform) -> None:
    path = each_format.log("tool.log", 31)
    os.setxattr(path, "security.capability", CAPABILITY)
    run_id = clean(each_format)
    kept = [name for copy in copies(each_format) for name in os.listxattr(copy)]
    undo(each_format, run_id)
    assert "security.capability" not in [*kept, *os.listxattr(path)]


def test_holes_stay_holes_and_large_files_come_back(each_format: Platform) -> None:
    path = each_format.logs / "large.log"
    with path.open("wb") as file:
        file.write(os.urandom(3 << 20))
        file.truncate(64 << 20)
        file.seek(48 << 20)
        file.write(b"end")
    os.utime(path, (0, time.time() - 31 * 86_400))
    before = path.read_bytes()
    run_id = clean(each_format)
    undo(each_format, run_id)
    assert path.read_bytes() == before
    assert path.stat().st_blocks * 512 < 8 << 20


@pytest.mark.parametrize(
    ("paths", "data_types", "back"),
    [
        (["{logs}/d/e/b.log"], (), {"d/e/b.log"}),
        (["{logs}/**/*.log"], (), {"a.log", "d/e/b.log"}),
        (["{logs}/d"], (), {"d/e/b.log", "d/c.txt"}),
        (["{logs}/d/"], (), {"d/e/b.log", "d/c.txt"}),
        (["{logs}/a.log", "**/c.txt"], (), {"a.log", "d/c.txt"}),
        ([], ("system_logs",), {"a.log", "d/e/b.log", "d/c.txt"}),
        (["{logs}/a.log"], ("system_logs", "completed_operations"), {"a.log"}),
    ],
)
def test_a_selection_comes_back_and_nothing_else(
    platform: Platform, paths: list[str], data_types: tuple[str, ...], back: set[str]
) -> None:
    three_logs(platform)
    platform.operation("old", 91)
    run_id = clean(platform)
    report = undo(platform, run_id, *(path.format(logs=platform.logs) for path in paths), data_types=data_types)
    assert counts(report) == {RESTORED: len(back)}
    assert files(platform.logs) == back
    assert files(platform.operations) == set()


@pytest.mark.parametrize(
    "name", ["new\nline.log", "back\\slash.log", "[a-z]*?.log", "\udcff.log", "\u202egpj.log", "x" * 255]
)
def test_a_file_of_any_name_comes_back_by_the_name_that_is_shown(each_format: Platform, name: str) -> None:
    each_format.log(name, 31, "hostile")
    each_format.log("1.log", 31)
    run_id = clean(each_format)
    (shown,) = [receipt.path for receipt in receipts_of(each_format, run_id) if receipt.path != "1.log"]
    assert counts(undo(each_format, run_id, f"{each_format.logs}/{shown}")) == {RESTORED: 1}
    assert os.listdir(each_format.logs) == [name]  # noqa: PTH208 names that are not UTF-8
    assert (each_format.logs / name).read_text() == "hostile"


def test_what_the_run_left_in_place_is_not_its_to_undo_unless_it_is_named(platform: Platform) -> None:
    for name in ("gone.log", "drifted.log", "deleted.log"):
        platform.log(name, 31)
    with platform.service() as service, pytest.MonkeyPatch.context() as patch:
        true = service.delete

        def meanwhile(backed_up: BackedUp) -> Deleted:
            if backed_up.plan.target == "logs":
                platform.logs.joinpath("gone.log").unlink()
                platform.logs.joinpath("drifted.log").write_text("newer")
            return true(backed_up)

        patch.setattr(service, "delete", meanwhile)
        ended = whole_run(service, request())
    assert ended.report.status == "done"
    run_id = ended.run.request.run_id
    report = undo(platform, run_id)
    assert counts(report) == {RESTORED: 1}
    assert files(platform.logs) == {"deleted.log", "drifted.log"}
    assert counts(undo(platform, run_id, platform.logs / "gone.log")) == {RESTORED: 1}
    assert counts(undo(platform, run_id, platform.logs / "drifted.log")) == {EXISTS: 1}


@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("above", "expected"),
    [
        ((0, 0, 0o755), (0, 0, 0o755)),  # the file's owner could not have made it: no new rights for him
        ((1234, 99, 0o755), (1234, 2345, 0o755)),
        ((7, 8, 0o755), (7, 8, 0o755)),
        ((0, 0, 0o1777), (1234, 2345, 0o755)),
        ((1234, 99, 0o2755), (1234, 99, 0o2755)),
    ],
)
def test_a_missing_directory_gets_an_owner_who_could_have_made_it(
    platform: Platform, above: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    path = platform.log("d/e/a.log", 31)
    os.chown(path, 1234, 2345)
    run_id = clean(platform)
    platform.logs.joinpath("d/e").rmdir()
    platform.logs.joinpath("d").rmdir()
    os.chown(platform.logs, *above[:2])
    platform.logs.chmod(above[2])
    assert counts(undo(platform, run_id)) == {RESTORED: 1}
    status = platform.logs.joinpath("d").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == expected
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)


@pytest.mark.needs_root
def test_a_directory_swapped_in_while_one_is_made_is_not_given_away(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = platform.log("d/a.log", 31)
    os.chown(path, 1234, 2345)
    run_id = clean(platform)
    platform.logs.joinpath("d").rmdir()
    secret = platform.file(platform.logs / "secret" / "key", 0, "key").parent
    secret.chmod(0o700)
    os.chown(platform.logs, 1234, 2345)
    true = os.mkdir

    def swapped(name: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        true(name, mode, dir_fd=dir_fd)
        if name == "d":
            os.rmdir(name, dir_fd=dir_fd)
            secret.rename(platform.logs / "d")

    monkeypatch.setattr(os, "mkdir", swapped)
    undo(platform, run_id)
    status = platform.logs.joinpath("d").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o700)


def test_a_link_or_a_file_where_a_directory_was_stops_that_file_only(platform: Platform) -> None:
    outside = platform.home / "outside"
    outside.mkdir()
    for name in ("d/a.log", "e/b.log", "c.log"):
        platform.log(name, 31)
    run_id = clean(platform)
    platform.logs.joinpath("d").rmdir()
    platform.logs.joinpath("d").symlink_to(outside)
    platform.logs.joinpath("e").rmdir()
    platform.logs.joinpath("e").write_text("a file")
    report = undo(platform, run_id)
    assert counts(report) == {RESTORED: 1, RestoreState.FAILED: 2}
    assert {restored.path for restored in report.troubled} == {"d/a.log", "e/b.log"}
    assert list(outside.iterdir()) == []


def test_a_newer_file_stays_and_the_same_bytes_count_as_present(each_format: Platform) -> None:
    for name in ("a.log", "b.log", "c.log"):
        each_format.log(name, 31)
    run_id = clean(each_format)
    each_format.log("a.log", 0, "newer")
    each_format.log("b.log", 0, "b.log\n")
    report = undo(each_format, run_id)
    assert counts(report) == {RESTORED: 1, PRESENT: 1, EXISTS: 1}
    assert report.problems == ("1 files: a newer file has the name; move it away to restore the old one",)
    assert [(restored.path, restored.state) for restored in report.troubled] == [("a.log", EXISTS)]
    assert contents(each_format)[str(each_format.logs / "a.log")] == "newer"


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_whatever_has_the_name_stays(platform: Platform, kind: str) -> None:
    path = platform.log("a.log", 31)
    run_id = clean(platform)
    make: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to("/nowhere"),
        "fifo": lambda: os.mkfifo(path),
        "directory": path.mkdir,
    }
    make[kind]()
    before = path.lstat()
    assert counts(undo(platform, run_id)) == {EXISTS: 1}
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)


@pytest.mark.parametrize("nameless", [True, False])
def test_a_file_that_appears_at_the_last_moment_stays(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, *, nameless: bool
) -> None:
    path = platform.log("a.log", 31)
    run_id = clean(platform)
    true = os.utime

    def publish(*args: object, **kwargs: object) -> None:
        path.write_text("newer")
        true(*args, **kwargs)  # type: ignore[arg-type]

    if not nameless:
        without_nameless_files(monkeypatch)
    monkeypatch.setattr(restoring_one.os, "utime", publish)
    assert counts(undo(platform, run_id)) == {EXISTS: 1}
    assert path.read_text() == "newer"
    assert left_behind(platform.home) == []


@pytest.mark.skipif(not shutil.which("zstd"), reason="GNU tar asks the program zstd, which is not here")
def test_the_commands_that_are_shown_put_archives_back_and_the_next_run_leaves_them(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "_ROWS_PER_FRAME", 3)
    monkeypatch.setattr(applying, "WORTH_WORKERS", 1)
    platform.config["workers"] = 2
    platform.target("logs")["format"] = "archive"
    for name in ("run/shop/orders.sql", "-rf", "new\nline", os.fsdecode(b"\xff\xfe"), "n" * 200, "newer", "space "):
        platform.log(name, 31, f"{name!r}")
    before = {name: (platform.logs / name).read_bytes() for name in files(platform.logs)}
    run_id = clean(platform)
    assert len(copies(platform)) == 2
    assert files(platform.logs) == set()
    newer = platform.log("newer", 0, "newer than the backup")
    shown = (Path(__file__).parents[2] / "docs/operating.md").read_text(encoding="utf-8")
    (commands,) = (block for block in re.findall(r"```sh\n(.*?)```", shown, re.DOTALL) if "tar --zstd" in block)
    for example, ours in (
        ("/tmp/cleanup_backups/dbt_target.1a2b3c4d-", f"{platform.backups}/logs.{run_id[:8]}-"),  # noqa: S108
        ("/srv/dbt/target", str(platform.logs)),
    ):
        assert example in commands
        commands = commands.replace(example, ours)
    listed = subprocess.run(["sh", "-ec", commands], check=True, capture_output=True, text=True).stdout
    assert len(listed.splitlines()) == len(before)
    assert newer.read_text() == "newer than the backup"
    platform.run()
    there = {name: (platform.logs / name).read_bytes() for name in files(platform.logs)}
    assert there == before | {"newer": b"newer than the backup"}
