"""Undo: what a run deleted comes back as it was, to its own place or nowhere."""

import ctypes
import errno
import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from service_helpers import EMERGENCY, Platform, files, left_behind, request, tree, whole_run
from undo_helpers import clean, copies, counts, flip, killed, undo, undo_request

from cleanup_dagster.backups import restore as restoring_one
from cleanup_dagster.backups.files import FileBackups, open_file_backups
from cleanup_dagster.backups.manifest import ManifestError, read_manifest
from cleanup_dagster.backups.restore import Restorer
from cleanup_dagster.filesystem.tree import RootError, open_root
from cleanup_dagster.handles import BackedUp, Deleted
from cleanup_dagster.installation import RunLockedError, RunRefusedError
from cleanup_dagster.retention.models import Identity, Receipt, Restored, RestoreState

RESTORED = RestoreState.RESTORED
PRESENT = RestoreState.PRESENT
EXISTS = RestoreState.EXISTS
NOBODY = 65534


def three_logs(platform: Platform) -> dict[str, str]:
    return {str(platform.log(name, 31)): f"{name}\n" for name in ("a.log", "d/e/b.log", "d/c.txt")}


def contents(platform: Platform) -> dict[str, str]:
    return {str(platform.logs / name): (platform.logs / name).read_text() for name in files(platform.logs)}


def receipts_of(platform: Platform, run_id: str, target: str = "logs") -> list[Receipt]:
    return list(read_manifest(manifest_of(platform, run_id, target), Receipt))


def manifest_of(platform: Platform, run_id: str, target: str = "logs") -> Path:
    return platform.state / "manifests" / run_id / f"{target}.receipts.jsonl.zst"


# What comes back


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


# Directories that are missing


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


# Never over anything


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


# Verified before anything is written


def test_a_flipped_byte_is_damage_and_nothing_appears(platform: Platform) -> None:
    path = platform.log("d/a.log", 31)
    platform.log("b.log", 31)
    run_id = clean(platform)
    platform.logs.joinpath("d").rmdir()
    flip(platform.backups / "d/a.log.backup", 3)
    report = undo(platform, run_id)
    assert counts(report) == {RESTORED: 1, RestoreState.DAMAGED: 1}
    assert not path.parent.exists()
    assert "other bytes than were written" in report.problems[0]


@pytest.mark.parametrize("where", [0, 100, -1])
def test_a_flipped_byte_of_an_archive_restores_nothing_wrong(platform: Platform, where: int) -> None:
    platform.target("logs")["format"] = "archive"
    before = {str(platform.log(f"{n}.log", 31, str(n) * 100)): str(n) * 100 for n in range(20)}
    run_id = clean(platform)
    (archive,) = copies(platform)
    flip(archive, where)
    undo(platform, run_id)
    assert contents(platform).items() <= before.items()


def test_a_missing_copy_is_named_and_the_others_come_back(platform: Platform) -> None:
    three_logs(platform)
    run_id = clean(platform)
    (platform.backups / "a.log.backup").unlink()
    report = undo(platform, run_id)
    assert counts(report) == {RESTORED: 2, RestoreState.MISSING: 1}
    assert [restored.path for restored in report.troubled] == ["a.log"]


def test_a_backup_that_changes_while_it_is_copied_leaves_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = platform.log("a.log", 31)
    run_id = clean(platform)

    def other_hash(*_: object) -> str:
        return "0" * 64

    monkeypatch.setattr(restoring_one, "write_blocks", other_hash)
    assert counts(undo(platform, run_id)) == {RestoreState.FAILED: 1}
    assert not path.exists()


def test_a_backup_directory_that_is_not_mounted_is_said_and_not_made(platform: Platform) -> None:
    platform.log("a.log", 31)
    run_id = clean(platform)
    platform.backups.rename(platform.home / "elsewhere")
    with pytest.raises(RunRefusedError, match=r"backups is not there; mount it, or put it back"):
        undo(platform, run_id)
    assert not platform.backups.exists()


# Manifests that were tampered with


def test_one_changed_manifest_stops_the_whole_restore_before_it_begins(platform: Platform) -> None:
    three_logs(platform)
    platform.operation("old", 91)
    run_id = clean(platform)
    flip(manifest_of(platform, run_id, "operations"), -1)
    runs = platform.ask("SELECT count(*) FROM cleanup_runs")
    with pytest.raises(ManifestError, match="not the recorded one"):
        undo(platform, run_id)
    assert files(platform.logs) == files(platform.operations) == set()
    assert platform.ask("SELECT count(*) FROM cleanup_holds") == [(0,)]
    assert platform.ask("SELECT count(*) FROM cleanup_runs") == runs


HOSTILE = [
    "../outside/x",
    "../../etc/x",
    "/outside/x",
    "d/../../outside/x",
    "d/./x",
    "d//x",
    "..",
    ".",
    "",
    "d/",
    "d/..",
    "link/x",
    "nul\0.log",
    "d\0/x",
    r"escape\u002fx",
    r"bad\q",
    "x" * 300,
]


@pytest.mark.parametrize("path", HOSTILE)
def test_a_path_that_leads_elsewhere_restores_nothing(platform: Platform, path: str) -> None:
    outside = platform.home / "outside"
    outside.mkdir()
    platform.log("a.log", 31)
    run_id = clean(platform)
    (platform.logs / "link").symlink_to(outside)
    (platform.logs / "d").mkdir()
    (receipt,) = receipts_of(platform, run_id)
    before = tree(platform.home)
    for dry in (True, False):
        assert one(platform, msgspec.structs.replace(receipt, path=path), dry=dry).state is RestoreState.FAILED
        copied_from = one(platform, msgspec.structs.replace(receipt, backup=path), dry=dry).state
        assert copied_from in {RestoreState.MISSING, RestoreState.DAMAGED, RestoreState.NO_BACKUP}
    assert {k: v for k, v in tree(platform.home).items() if v != before.get(k)} == {}


def one(platform: Platform, receipt: Receipt, *, dry: bool = False, backup: Path | None = None) -> Restored:
    """Restore by one receipt, as a manifest that somebody forged along with the database would have it."""
    with (
        open_root(platform.logs) as root,
        open_file_backups(backup or platform.backups, "some-run") as store,
    ):
        restorer = Restorer(root, store, dry_run=dry)
        try:
            return next(restorer.restore([receipt]))
        finally:
            restorer.close()


def test_a_receipt_without_a_copy_says_that_there_is_none(platform: Platform) -> None:
    receipt = Receipt(0, "a.log", Identity(1, 1, 1, 1, 0, 0, 0o644), "system_logs", "", "", "flock")
    assert one(platform, receipt).state is RestoreState.NO_BACKUP
    assert files(platform.logs) == set()


def test_a_manifest_of_another_root_is_refused(platform: Platform) -> None:
    platform.log("a.log", 31)
    run_id = clean(platform)
    other = platform.home / "other"
    other.mkdir()
    platform.sql(f"UPDATE cleanup_run_targets SET root = '{other}'")  # noqa: S608
    with pytest.raises(RunRefusedError, match=r"/other is not the root of a configured target any more"):
        undo(platform, run_id)
    assert list(other.iterdir()) == []


def test_a_root_that_is_configured_no_longer_is_refused(platform: Platform) -> None:
    platform.log("a.log", 31)
    run_id = clean(platform)
    moved = platform.home / "moved"
    moved.mkdir()
    platform.target("logs")["root"] = str(moved)
    with pytest.raises(RunRefusedError, match=r"/logs is not the root of a configured target any more"):
        undo(platform, run_id)


def test_a_root_that_leads_through_a_link_now_is_refused(platform: Platform) -> None:
    platform.log("a.log", 31)
    run_id = clean(platform)
    with platform.service() as service:
        platform.logs.rename(platform.home / "real")
        platform.logs.symlink_to(platform.home / "real")
        with pytest.raises(RootError, match="symbolic link 'logs'"):
            service.restore(undo_request(run_id))
    assert files(platform.home / "real") == set()
    (row,) = platform.ask("SELECT status, message FROM cleanup_runs WHERE cleanup_type = 'restore'")
    assert row[0] == "failed"
    assert "it broke off" in str(row[1])


@pytest.mark.needs_root
def test_a_directory_on_another_mount_is_not_restored_into(platform: Platform) -> None:
    platform.log("d/a.log", 31)
    run_id = clean(platform)
    with pytest.MonkeyPatch.context() as patch:
        true = restoring_one.mount_id
        inner = (platform.logs / "d").stat().st_ino
        patch.setattr(restoring_one, "mount_id", lambda fd: -1 if os.fstat(fd).st_ino == inner else true(fd))  # type: ignore[misc]
        report = undo(platform, run_id)
    assert counts(report) == {RestoreState.FAILED: 1}
    assert "on another mount" in report.troubled[0].detail


# Which runs


def test_runs_that_cannot_be_undone_say_why(platform: Platform) -> None:
    platform.log("a.log", 31)
    dry = platform.dry().run.request.run_id
    run_id = clean(platform)
    restored = undo(platform, run_id).request.run_id
    platform.sql("DELETE FROM cleanup_holds")
    platform.log("b.log", 31)
    unsaved = clean(platform, cleanup_type=EMERGENCY, skip_backup=True)
    nothing = clean(platform)
    for wrong, why in {
        "no-such-run": "there is no run 'no-such-run'",
        "": "there is no run ''",
        "../../etc": "there is no run",
        dry: "was a dry run: it deleted nothing",
        restored: "was a restore: it deleted nothing",
        unsaved: "has no backups: it was told to skip them",
        nothing: "deleted nothing",
    }.items():
        for is_dry in (True, False):
            with pytest.raises(RunRefusedError, match=why):
                undo(platform, wrong, dry=is_dry)


def test_a_run_whose_backups_were_pruned_says_so(platform: Platform) -> None:
    platform.log("a.log", 31)
    run_id = clean(platform)
    platform.clock.advance(days=8)
    platform.run()
    with pytest.raises(RunRefusedError, match="they were pruned after their retention"):
        undo(platform, run_id)


def test_a_run_of_another_state_directory_is_left_to_its_host(platform: Platform) -> None:
    platform.log("a.log", 31)
    run_id = clean(platform)
    platform.sql("UPDATE cleanup_runs SET state_id = 'theirs', host = 'elsewhere'")
    with pytest.raises(RunRefusedError, match="belongs to elsewhere, whose state directory has its manifests"):
        undo(platform, run_id)


def test_a_database_of_another_installation_is_refused_before_anything_is_settled_in_it(platform: Platform) -> None:
    platform.log("a.log", 31)
    run_id = clean(platform)
    (platform.state / "installation_id").write_text("another")
    (platform.state / "manifests" / run_id / "ended").unlink()
    for dry in (True, False):
        with pytest.raises(RunRefusedError, match="belongs to installation another"):
            undo(platform, run_id, dry=dry)


@pytest.mark.parametrize(
    ("paths", "data_types", "why"),
    [
        (["logs/a.log"], (), "matches no absolute path"),
        (["/x/../y"], (), "holds '..'"),
        (["/**/a/**/b/**/c/**"], (), "more than 3"),
        (["/x\n"], (), "as an escape"),
        ([], ("system_log",), "there is no data type 'system_log'"),
    ],
)
def test_a_selection_that_can_match_nothing_is_refused(
    platform: Platform, paths: list[str], data_types: tuple[str, ...], why: str
) -> None:
    platform.log("a.log", 31)
    run_id = clean(platform)
    with pytest.raises(RunRefusedError, match=why):
        undo(platform, run_id, *paths, data_types=data_types)
    assert files(platform.logs) == set()
    assert platform.ask("SELECT count(*) FROM cleanup_holds") == [(0,)]
    assert platform.ask("SELECT count(*) FROM cleanup_runs WHERE status = 'running'") == [(0,)]


def test_a_selection_that_matches_nothing_fails_and_holds_nothing(platform: Platform) -> None:
    platform.log("a.log", 31)
    run_id = clean(platform)
    report = undo(platform, run_id, platform.logs / "b.log")
    assert report.problems == ("nothing of the run is selected",)
    assert report.holds == ()
    assert platform.ask("SELECT count(*) FROM cleanup_holds") == [(0,)]


def test_a_restore_while_a_cleanup_is_at_work_is_refused(platform: Platform) -> None:
    platform.log("a.log", 31)
    run_id = clean(platform)
    with platform.service() as cleaning:
        cleaning.begin(request(run_id="at-work"))
        with pytest.raises(RunLockedError, match="run at-work is at work: process"):
            undo(platform, run_id)
        assert counts(undo(platform, run_id, dry=True)) == {RestoreState.WOULD_RESTORE: 1}
        assert files(platform.logs) == set()


# What stays of it


def test_what_was_restored_is_held_until_hold_and_backup_are_over(platform: Platform) -> None:
    platform.config["backup"]["restore_hold_days"] = 2
    platform.log("a.log", 31)
    run_id = clean(platform)
    report = undo(platform, run_id)
    assert platform.ask("SELECT pattern, reason, placed_by FROM cleanup_holds") == [
        (f"{platform.logs}/**", f"restored from run {run_id}", "bob")
    ]
    assert len(report.holds) == 1
    for days, kept in ((0, {"a.log"}), (1.9, {"a.log"}), (2.1, {"a.log"}), (7.1, set[str]())):
        platform.clock.ahead_ns = int(days * 86_400 * 10**9)
        clean(platform)
        assert files(platform.logs) == kept, days


def test_the_hold_alone_keeps_what_was_restored_and_then_changed_its_mtime(platform: Platform) -> None:
    path = platform.log("a.log", 31)
    platform.log("b.log", 31)
    run_id = clean(platform)
    undo(platform, run_id, path)
    platform.log("a.log", 40, "written since, and dated back")
    platform.log("b.log", 31, "other bytes than its backup")
    clean(platform, cleanup_type=EMERGENCY)
    assert files(platform.logs) == {"a.log"}


def test_a_restore_is_in_runs_and_audit_with_what_it_did(platform: Platform) -> None:
    three_logs(platform)
    platform.operation("old", 91)
    run_id = clean(platform)
    platform.log("a.log", 0, "newer")
    report = undo(platform, run_id)
    size = platform.operations.joinpath("operation_old.json").stat().st_size
    ended = ("restore", "failed", "bob", 0, 1)
    assert platform.ask(
        "SELECT data_type, cleanup_type, outcome, executed_by, records_deleted, records_failed, manifest, message "
        "FROM cleanup_audit WHERE cleanup_type = 'restore' ORDER BY data_type"
    ) == [
        ("completed_operations", *ended[:-1], 0, report.manifests, f"restored 1 files ({size} bytes) of run {run_id}"),
        ("system_logs", *ended, report.manifests, f"restored 2 files (18 bytes) of run {run_id}"),
    ]
    assert platform.ask("SELECT run_id, dry_run, status FROM cleanup_runs WHERE cleanup_type = 'restore'") == [
        (report.request.run_id, 0, "failed")
    ]
    restored = list(read_manifest(Path(report.manifests) / "logs.restored.jsonl.zst", Restored))
    assert {(row.path, row.state) for row in restored} == {
        ("a.log", EXISTS),
        ("d/e/b.log", RESTORED),
        ("d/c.txt", RESTORED),
    }


def test_a_dry_restore_verifies_and_writes_nothing_but_its_row(each_format: Platform) -> None:
    three_logs(each_format)
    run_id = clean(each_format)
    (each_format.logs / "d/e").rmdir()
    before = tree(each_format.logs, each_format.backups)
    report = undo(each_format, run_id, dry=True)
    assert counts(report) == {RestoreState.WOULD_RESTORE: 3}
    assert tree(each_format.logs, each_format.backups) == before
    assert each_format.ask("SELECT count(*) FROM cleanup_holds") == [(0,)]
    assert each_format.ask("SELECT count(*) FROM cleanup_audit WHERE cleanup_type = 'restore'") == [(0,)]
    assert each_format.ask("SELECT dry_run, status FROM cleanup_runs WHERE cleanup_type = 'restore'") == [(1, "done")]
    for copy in copies(each_format):
        copy.write_bytes(bytes(copy.stat().st_size))
    assert RestoreState.DAMAGED in counts(undo(each_format, run_id, dry=True))


# Dying, and filesystems that cannot do everything


def without_nameless_files(patch: pytest.MonkeyPatch, code: int = errno.EOPNOTSUPP) -> None:
    true = os.open

    def refusing(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(code, os.strerror(code))
        return true(path, flags, mode, dir_fd=dir_fd)

    patch.setattr(restoring_one.os, "open", refusing)


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
