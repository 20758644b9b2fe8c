"""A backup directory that is not ours alone: nothing is deleted, and the run fails saying what to do."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from service_helpers import EMERGENCY, Platform, files, left_behind

from cleanup_dagster.backups import files as store
from cleanup_dagster.backups.files import FileBackups
from cleanup_dagster.filesystem import flushing

NOBODY = 65_534


def somebody_elses(path: Path) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, NOBODY, NOBODY)


def too_open(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)


def symlink(path: Path) -> None:
    (path.parent / "real").mkdir(mode=0o700)
    path.symlink_to(path.parent / "real")


def dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nothing")


def a_file(path: Path) -> None:
    path.write_text("")


UNSAFE = [
    pytest.param(
        somebody_elses,
        f"the backup directory {{}} belongs to uid {NOBODY}, not to this process (uid 0); remove it or name another",
        marks=pytest.mark.needs_root,
    ),
    pytest.param(too_open, "the backup directory {} has mode 0755, open to others; chmod 700 it or name another"),
    pytest.param(symlink, "the backup directory {} is a symbolic link; remove it or name another"),
    pytest.param(dangling, "the backup directory {} is a symbolic link; remove it or name another"),
    pytest.param(a_file, "the backup directory {} is not a directory; remove it or name another"),
]


def repair(platform: Platform) -> None:
    platform.backups.rename(platform.home / "unsafe")


@pytest.mark.parametrize(("make", "said"), UNSAFE)
def test_nothing_is_deleted(platform: Platform, make: Callable[[Path], None], said: str) -> None:
    platform.log("a.log", 31)
    platform.operation("done", 91)
    make(platform.backups)
    ended = platform.run()
    said = said.format(platform.backups)
    assert files(platform.logs) == {"a.log"}
    assert files(platform.operations) == {"operation_done.json"}
    assert ended.report.status == "failed"
    assert ended.report.problems[:2] == (
        f"operations: {said}; nothing of it was deleted",
        f"logs: {said}; nothing of it was deleted",
    )
    assert platform.ask("SELECT outcome, records_deleted FROM cleanup_audit WHERE data_type = 'system_logs'") == [
        ("failed", 0)
    ]
    assert platform.ask("SELECT status FROM cleanup_runs") == [("failed",)]
    repair(platform)
    assert platform.run().report.status == "done"
    assert files(platform.logs) == set()


def test_an_emergency_does_not_trust_it_either(platform: Platform) -> None:
    platform.log("a.log", 31)
    too_open(platform.backups)
    assert platform.run(cleanup_type=EMERGENCY).report.status == "failed"
    assert files(platform.logs) == {"a.log"}


def test_a_way_to_it_that_others_can_change(platform: Platform) -> None:
    shared = platform.home / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    platform.config["backup"]["directory"] = str(shared / "backups")
    platform.log("a.log", 31)
    ended = platform.run()
    assert files(platform.logs) == {"a.log"}
    assert (
        f"the backup directory {shared}/backups lies below {shared}, which others can change (uid 0, mode 0777); "
        "name a directory below one that only root or you can change"
    ) in ended.problems


def test_old_logs_behind_a_link_in_its_place_stay(platform: Platform) -> None:
    """With nothing to delete no run needs the directory; and yet logs are pruned there."""
    elsewhere = platform.home / "elsewhere"
    elsewhere.mkdir()
    old = platform.file(elsewhere / "cleanup_of_another_program.log", 400, "its log")
    platform.backups.symlink_to(elsewhere)
    ended = platform.run()
    assert old.exists()
    assert f"logs were not pruned: the backup directory {platform.backups} is a symbolic link" in ended.problems


def test_it_is_made_with_its_parents_for_its_owner_alone(platform: Platform) -> None:
    platform.config["backup"]["directory"] = str(platform.home / "new/deep/backups")
    platform.log("a.log", 31)
    assert platform.run().report.status == "done"
    assert (platform.home / "new/deep/backups").stat().st_mode & 0o777 == 0o700
    assert (platform.home / "new/deep/backups/a.log.backup").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("call", ["fsync", "write", "mkdir"])
def test_a_disk_that_fails_while_copying_deletes_nothing_and_leaves_no_copies(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Fails inside the store only: the manifests lie on another disk."""
    monkeypatch.setattr(FileBackups, "worth_whole", 1_000)  # each has an fsync of its own
    for number in range(200):
        platform.log(f"{number}.log", 31)
    true = getattr(os, call)
    calls = 0

    def failing(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if call == "mkdir" or calls > 150:
            raise OSError(28, "No space left on device")
        return true(*args, **kwargs)

    class FailingOs:
        """The store's own view of `os`."""

        def __getattr__(self, name: str) -> object:
            return failing if name == call else getattr(os, name)

    with monkeypatch.context() as patch:
        patch.setattr(store, "os", FailingOs())
        patch.setattr(flushing, "os", FailingOs())
        ended = platform.run()
    assert len(files(platform.logs)) == 200
    assert ended.report.status == "failed"
    assert "No space left on device; nothing of it was deleted" in ended.problems
    assert not list(platform.backups.rglob("*.backup"))
    assert not left_behind(platform.home)
    assert platform.run().report.counts["system_logs"].deleted.files == 200


def test_a_copy_that_does_not_read_back_as_written_deletes_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.log("a.log", 31)
    with monkeypatch.context() as patch:
        patch.setattr(store, "_read_back", str)
        ended = platform.run()
    assert files(platform.logs) == {"a.log"}
    assert "does not read back as written; the disk is failing; nothing of it was deleted" in ended.problems
    assert not list(platform.backups.rglob("*.backup"))
