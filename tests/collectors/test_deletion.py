"""The deletion protocol, the ordinary way: what is backed up and deleted, and which directories go with it."""

import os

import pytest
from deletion_helpers import DATA_TYPE, NOBODY, QUARANTINE, Platform, states

from cleanup_dagster.retention.models import Reason, State, Tally, Verdict


def test_files_are_backed_up_and_deleted(platform: Platform) -> None:
    platform.file("a.log", "one")
    platform.file("d/b.log", "two")
    platform.file("kept.log", "three")
    backed_up = platform.back_up(platform.verdicts("a.log", "d/b.log"))
    assert backed_up.by_state == {}
    assert platform.files() == {"a.log": "one", "d/b.log": "two", "kept.log": "three"}
    totals = platform.delete()
    assert totals.by_state == {(DATA_TYPE, State.DELETED): Tally(2, 6)}
    assert totals.open_checks == {"lease+flock": 2}
    assert platform.files() == {"kept.log": "three"}
    assert platform.copies() == {"a.log.backup": "one", "d/b.log.backup": "two"}
    assert states(platform.outcomes()) == {"a.log": (State.DELETED, ""), "d/b.log": (State.DELETED, "")}
    assert not (platform.root / QUARANTINE).exists()
    assert platform.recover() == []


def test_only_what_the_verdicts_delete(platform: Platform) -> None:
    platform.file("a.log")
    keep = Verdict(platform.verdict("a.log").candidate, False, Reason.NOT_EXPIRED, 1)
    platform.back_up([keep])
    platform.delete()
    assert platform.files() == {"a.log": "content"}
    assert platform.copies() == {}


@pytest.mark.usefixtures("small_batches")
def test_many_batches_and_awkward_names(platform: Platform) -> None:
    names = ["a\nb", "\x1b[31m", "n" * 255, "\udcff\udcfe", "back\\slash", "-rf", " "]
    for number, name in enumerate(names):
        platform.file(f"{name[:200]}/{name}", str(number))
    platform.back_up(platform.verdicts())
    platform.delete()
    assert platform.files() == {}
    assert sorted(platform.copies().values()) == [str(number) for number in range(len(names))]
    assert len({receipt.backup for receipt in platform.receipts()}) == len(names)


def test_two_runs_keep_both_copies(platform: Platform) -> None:
    for content in ("one", "two"):
        platform.file("a.log", content)
        platform.back_up(platform.verdicts())
        platform.delete()
    assert platform.copies() == {"a.log.backup": "one", "a.log.00000001.backup": "two"}


def test_without_a_backup_the_receipt_says_so(platform: Platform) -> None:
    platform.file("a.log")
    platform.back_up(platform.verdicts(), skip_backup=True)
    assert [(r.backup, r.sha256) for r in platform.receipts()] == [("", "")]
    platform.delete()
    assert platform.files() == {}
    assert not platform.backups.exists()


def test_an_empty_and_a_sparse_file(platform: Platform) -> None:
    platform.file("empty", "")
    platform.file("sparse", "x")
    os.truncate(platform.root / "sparse", 10 * 1024**2)
    platform.back_up(platform.verdicts())
    platform.delete()
    assert platform.files() == {}
    assert (platform.backups / "sparse.backup").stat().st_size == 10 * 1024**2


@pytest.mark.needs_root
def test_a_setuid_file_leaves_no_setuid_copy(platform: Platform) -> None:
    file = platform.file("shell")
    os.chown(file, NOBODY, NOBODY)
    file.chmod(0o4755)
    platform.back_up(platform.verdicts())
    platform.delete()
    copy = (platform.backups / "shell.backup").stat()
    assert (copy.st_mode & 0o7777, copy.st_uid) == (0o600, os.geteuid())


def test_directories_that_the_run_emptied_are_removed(platform: Platform) -> None:
    for name in ("a/b/c/1.log", "a/b/c/2.log", "d/3.log", "e/4.log", "e/kept.log"):
        platform.file(name)
    (platform.root / "was-empty").mkdir()
    (platform.root / "d/also-empty").mkdir()
    platform.remove_empty_directories = True
    platform.back_up(platform.verdicts("a/b/c/1.log", "a/b/c/2.log", "d/3.log", "e/4.log"))
    totals = platform.delete()
    assert totals.directories_removed == 3
    left = sorted(str(path.relative_to(platform.root)) for path in platform.root.rglob("*"))
    assert left == ["d", "d/also-empty", "e", "e/kept.log", "was-empty"]


def test_directories_stay_unless_asked(platform: Platform) -> None:
    platform.file("a/1.log")
    platform.back_up(platform.verdicts())
    assert platform.delete().directories_removed == 0
    assert (platform.root / "a").is_dir()


def test_a_directory_that_somebody_else_emptied_stays(platform: Platform) -> None:
    file = platform.file("a/1.log")
    platform.remove_empty_directories = True
    platform.back_up(platform.verdicts())
    file.unlink()
    assert platform.delete().directories_removed == 0
    assert (platform.root / "a").is_dir()


@pytest.mark.usefixtures("small_batches")
def test_a_directory_emptied_over_several_batches_goes_with_the_last(platform: Platform) -> None:
    for number in range(5):
        platform.file(f"a/b/{number}.log")
    platform.remove_empty_directories = True
    platform.back_up(platform.verdicts())
    assert platform.delete().directories_removed == 2
    assert list(platform.root.iterdir()) == []
