"""What is damaged, lost or tampered with restores nothing wrong and nothing elsewhere, and is named."""

import os
from pathlib import Path

import msgspec
import pytest
from service_helpers import Platform, files, tree
from undo_helpers import clean, contents, copies, counts, flip, manifest_of, receipts_of, three_logs, undo, undo_request

from cleanup_dagster.backups import restore as restoring_one
from cleanup_dagster.backups.files import open_file_backups
from cleanup_dagster.backups.manifest import ManifestError
from cleanup_dagster.backups.restore import Restorer
from cleanup_dagster.filesystem.tree import RootError, open_root
from cleanup_dagster.installation import RunRefusedError
from cleanup_dagster.retention.models import Identity, Receipt, Restored, RestoreState

RESTORED = RestoreState.RESTORED


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


def test_receipts_of_another_targets_root_restore_nothing_there(platform: Platform) -> None:
    platform.log("a.log", 31)
    run_id = clean(platform)
    platform.sql(f"UPDATE cleanup_run_targets SET root = '{platform.operations}'")  # noqa: S608
    with pytest.raises(ManifestError, match=r"the receipts of logs tell of files in .*/logs, not in .*/operations"):
        undo(platform, run_id)
    assert files(platform.logs) == files(platform.operations) == set()


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
