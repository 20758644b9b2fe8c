"""The deletion protocol interrupted: how the next run settles what is in place, in quarantine or gone."""

import os
from pathlib import Path

import pytest
from deletion_helpers import QUARANTINE, WRITTEN, Platform, append, around_take, other_process, replace, states

from cleanup_dagster.backups.files import FileBackups
from cleanup_dagster.collectors import deletion
from cleanup_dagster.filesystem.quarantine import Quarantine
from cleanup_dagster.retention.models import Hold, State


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, RuntimeError])
@pytest.mark.parametrize("moment", ["before the move", "in quarantine", "removed"])
@pytest.mark.parametrize("at", range(4))
def test_an_interrupted_deletion_is_settled(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, interrupt: type[BaseException], moment: str, at: int
) -> None:
    for number in range(4):
        platform.file(f"{number}.log", str(number))
    platform.back_up(platform.verdicts())
    remove = Quarantine.remove

    def strike(name: str) -> None:
        if name == f"{at}.log":
            raise interrupt

    def removing(self: Quarantine, slot: str) -> None:
        remove(self, slot)
        if slot.endswith(f".{at}"):
            raise interrupt

    if moment == "removed":
        monkeypatch.setattr(Quarantine, "remove", removing)
    else:
        around_take(monkeypatch, **{"before" if moment == "before the move" else "after": strike})
    with pytest.raises(interrupt):
        platform.delete()
    monkeypatch.undo()
    written = states(platform.outcomes())
    assert list(written) == [f"{number}.log" for number in range(at)]
    monkeypatch.setattr(deletion, "BATCH", 2)
    monkeypatch.setattr(FileBackups, "batch_files", 2)
    recovered = states(platform.recover())
    if moment == "before the move":
        assert recovered == {}
    elif moment == "in quarantine":
        assert recovered == {f"{at}.log": (State.DELETED, "")}
    else:
        assert recovered == {f"{at}.log": (State.DELETED, "by the interrupted run")}
    gone = {name for name, (state, _) in {**written, **recovered}.items() if state is State.DELETED}
    assert set(platform.files()) == {f"{number}.log" for number in range(4)} - gone
    assert set(platform.copies().values()) >= {name[0] for name in gone}
    assert not (platform.root / QUARANTINE).exists()


def interrupt_after_taking(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete, and be interrupted when the first file has been moved into quarantine."""

    def strike(_: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        around_take(patch, after=strike)
        with pytest.raises(KeyboardInterrupt):
            platform.delete()


@pytest.fixture
def in_quarantine(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that an interrupted run left in its quarantine; the path of it there."""
    platform.file("d/a.log")
    platform.back_up(platform.verdicts())
    interrupt_after_taking(platform, monkeypatch)
    return platform.root / QUARANTINE / f"{platform.run}.0"


@pytest.mark.usefixtures("in_quarantine")
def test_recovery_finishes_what_is_unchanged(platform: Platform) -> None:
    assert states(platform.recover()) == {"d/a.log": (State.DELETED, "")}
    assert platform.files() == {}


def test_recovery_puts_back_what_changed(platform: Platform, in_quarantine: Path) -> None:
    append(in_quarantine)
    assert states(platform.recover()) == {"d/a.log": (State.DRIFTED, WRITTEN)}
    assert platform.files() == {"d/a.log": "content more"}
    assert not in_quarantine.parent.exists()


def test_recovery_compares_the_very_bytes(platform: Platform, in_quarantine: Path) -> None:
    mtime = in_quarantine.stat().st_mtime_ns
    in_quarantine.write_text("CONTENT")
    os.utime(in_quarantine, ns=(mtime, mtime))
    assert states(platform.recover()) == {"d/a.log": (State.DRIFTED, "its bytes are not those of its backup")}
    assert platform.files() == {"d/a.log": "CONTENT"}


def test_recovery_leaves_what_is_in_use(platform: Platform, in_quarantine: Path) -> None:
    with other_process("out = open(sys.argv[1], 'a')", in_quarantine):
        assert states(platform.recover()) == {"d/a.log": (State.BUSY, "another process has it open for writing")}
    assert platform.files() == {"d/a.log": "content"}


@pytest.mark.usefixtures("in_quarantine")
def test_recovery_returns_what_is_held_by_now(platform: Platform) -> None:
    platform.holds = [Hold(3, f"{platform.root}/d", "evidence")]
    assert states(platform.recover()) == {"d/a.log": (State.HELD, "hold 3: evidence")}
    assert platform.files() == {"d/a.log": "content"}


def test_recovery_replaces_nothing(platform: Platform, in_quarantine: Path) -> None:
    append(in_quarantine)
    platform.file("d/a.log", "new")
    assert states(platform.recover())["d/a.log"][0] is State.CONFLICT
    assert platform.files() == {"d/a.log": "new", f"{QUARANTINE}/{platform.run}.0": "content more"}


def test_recovery_returns_what_is_held_by_now_but_replaces_nothing(platform: Platform, in_quarantine: Path) -> None:
    platform.holds = [Hold(3, f"{platform.root}/d", "evidence")]
    platform.file("d/a.log", "new")
    assert states(platform.recover())["d/a.log"][0] is State.CONFLICT
    assert platform.files()["d/a.log"] == "new"
    assert in_quarantine.read_text() == "content"


def test_recovery_of_a_file_whose_directory_is_gone(platform: Platform, in_quarantine: Path) -> None:
    (platform.root / "d").rmdir()
    state, detail = states(platform.recover())["d/a.log"]
    assert (state, detail) == (State.FAILED, f"its directory is gone; it stays whole in {QUARANTINE}/{platform.run}.0")
    assert in_quarantine.read_text() == "content"


@pytest.fixture
def untouched(platform: Platform) -> Path:
    """A file with a committed intent, which the run never came to delete."""
    file = platform.file("d/a.log")
    platform.back_up(platform.verdicts())
    return file


@pytest.mark.usefixtures("untouched")
def test_recovery_has_nothing_to_say_about_what_was_never_touched(platform: Platform) -> None:
    for _ in range(2):
        assert platform.recover() == []
        assert platform.files() == {"d/a.log": "content"}


def test_recovery_accounts_for_what_is_gone_from_both(platform: Platform, untouched: Path) -> None:
    untouched.unlink()
    for _ in range(2):
        assert states(platform.recover()) == {"d/a.log": (State.DELETED, "by the interrupted run")}
    assert platform.copies() == {"d/a.log.backup": "content"}


def test_recovery_leaves_a_new_file_alone(platform: Platform, untouched: Path) -> None:
    replace(untouched)
    detail = "something else has its name now; its backup is kept"
    assert states(platform.recover()) == {"d/a.log": (State.DRIFTED, detail)}
    assert platform.files() == {"d/a.log": "content"}


@pytest.mark.parametrize("code", [24, 5, 13])
def test_recovery_claims_nothing_about_a_directory_it_cannot_look_into(
    platform: Platform, untouched: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    whole = os.open

    def failing(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "d":
            raise OSError(code, os.strerror(code))
        return whole(path, flags, mode, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing)
        with pytest.raises(OSError, match=os.strerror(code)):
            platform.recover()
    assert untouched.read_text() == "content"
    assert platform.recover() == []


def test_recovery_without_a_backup_goes_by_identity(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.file("a.log")
    platform.back_up(platform.verdicts(), skip_backup=True)
    interrupt_after_taking(platform, monkeypatch)
    assert states(platform.recover()) == {"a.log": (State.DELETED, "")}
