"""The deletion protocol from batch to batch: holds that come meanwhile, and a back-up that breaks."""

import time
from pathlib import Path

import pytest
from deletion_helpers import Platform, states

from cleanup_dagster.backups.files import BackupError, FileBackups
from cleanup_dagster.filesystem.quarantine import Quarantine
from cleanup_dagster.retention.models import Hold, State


@pytest.mark.usefixtures("small_batches")
def test_a_hold_placed_during_the_run_wins_from_the_next_batch_on(platform: Platform) -> None:
    for number in range(4):
        platform.file(f"{number}.log")
    platform.back_up(platform.verdicts())

    def hold_after_the_first_batch() -> None:
        if not (platform.root / "0.log").exists():
            platform.holds = [Hold(7, f"{platform.root}/*.log", "evidence")]

    platform.delete(between=hold_after_the_first_batch)
    held = (State.HELD, "hold 7: evidence")
    deleted = (State.DELETED, "")
    assert states(platform.outcomes()) == {"0.log": deleted, "1.log": deleted, "2.log": held, "3.log": held}
    assert list(platform.files()) == ["2.log", "3.log"]


def test_on_a_slow_disk_holds_are_asked_for_just_as_often(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        platform.file(f"{number}.log")
    platform.back_up(platform.verdicts())
    take, began = Quarantine.take, time.monotonic()

    def slowly(self: Quarantine, directory: int, name: str, slot: str) -> None:
        time.sleep(0.3)
        take(self, directory, name, slot)

    def hold_soon() -> None:
        if time.monotonic() > began + 0.5:
            platform.holds = [Hold(7, f"{platform.root}/*.log", "evidence")]

    monkeypatch.setattr(Quarantine, "take", slowly)
    platform.delete(between=hold_soon)
    assert set(platform.files()) >= {"2.log", "3.log"}
    assert platform.outcomes()[0].state is State.DELETED


def test_what_cannot_learn_the_holds_deletes_nothing(platform: Platform) -> None:
    platform.file("a.log")
    platform.back_up(platform.verdicts())

    def lost() -> None:
        raise ConnectionError("the database is gone")

    with pytest.raises(ConnectionError):
        platform.delete(between=lost)
    assert platform.files() == {"a.log": "content"}
    assert platform.outcomes() == []


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("step", ["make_durable", "publish", "choose_place", "stage"])
def test_a_batch_that_cannot_be_backed_up_leaves_every_original(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    for number in range(5):
        platform.file(f"{number}.log", str(number))
    before = platform.files()
    calls = 0
    whole = getattr(FileBackups, step)

    def failing(self: FileBackups, *arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise BackupError("the disk is full")
        return whole(self, *arguments)

    monkeypatch.setattr(FileBackups, step, failing)
    open_before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    with pytest.raises(BackupError, match="the disk is full"):
        platform.back_up(platform.verdicts())
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == open_before
    assert platform.files() == before
    assert platform.recover() == []
    assert platform.files() == before
    assert platform.copies() == {}


def test_withdrawing_a_backup_leaves_the_copies_of_others(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another installation with the same backup directory got the place in the moment between choice and name."""
    platform.file("a.log", "ours")
    publish = FileBackups.publish

    def too_late(self: FileBackups, places: object) -> None:
        (platform.backups / "a.log.backup").write_text("theirs")
        publish(self, places)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(FileBackups, "publish", too_late)
    with pytest.raises(BackupError, match="File exists"):
        platform.back_up(platform.verdicts())
    platform.recover()
    assert platform.copies() == {"a.log.backup": "theirs"}
    assert platform.files() == {"a.log": "ours"}
