"""The deletion protocol and what cannot go: it is put back, over nothing, or stays whole in quarantine."""

import os
import subprocess
from pathlib import Path

import pytest
from deletion_helpers import QUARANTINE, WRITTEN, Platform, append, around_take, no_lease, states

from cleanup_dagster.filesystem import busy, syscalls
from cleanup_dagster.filesystem.quarantine import Quarantine
from cleanup_dagster.retention.models import State


def write_new(file: Path) -> None:
    file.write_text("new")


@pytest.mark.parametrize("fallback", [False, True], ids=["rename", "link and unlink"])
def test_a_name_that_was_taken_again_keeps_both_files_whole(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, fallback: bool
) -> None:
    if fallback:
        monkeypatch.setattr(syscalls, "_rename", None)
    monkeypatch.setattr(busy, "_lease", no_lease)  # with one, whoever appends waits until the file is back
    file = platform.file("a.log")
    platform.back_up(platform.verdicts())
    around_take(monkeypatch, before=lambda _: append(file), after=lambda _: write_new(file))
    platform.delete()
    slot = f"{QUARANTINE}/{platform.run}.0"
    detail = f"{WRITTEN}, and its name was taken again: it stays whole in {slot}; move it by hand"
    assert states(platform.outcomes()) == {"a.log": (State.CONFLICT, detail)}
    assert platform.files() == {"a.log": "new", slot: "content more"}
    assert platform.recover() == []  # it was settled, and stays
    assert platform.files() == {"a.log": "new", slot: "content more"}


def test_a_new_file_under_a_deleted_name_is_left_alone(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    file = platform.file("a.log")
    platform.back_up(platform.verdicts())
    around_take(monkeypatch, after=lambda _: write_new(file))
    platform.delete()
    assert states(platform.outcomes()) == {"a.log": (State.DELETED, "")}
    assert platform.files() == {"a.log": "new"}


def test_what_cannot_be_removed_goes_back(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.file("a.log")
    platform.back_up(platform.verdicts())

    def failing(_: Quarantine, slot: str) -> None:
        raise OSError(5, "Input/output error", slot)

    monkeypatch.setattr(Quarantine, "remove", failing)
    platform.delete()
    assert states(platform.outcomes()) == {"a.log": (State.FAILED, "it cannot be removed: Input/output error")}
    assert platform.files() == {"a.log": "content"}


@pytest.mark.needs_root
def test_what_may_not_be_moved_belongs_to_others(platform: Platform) -> None:
    file = platform.file("a.log")
    subprocess.run(["chattr", "+i", str(file)], check=True)
    try:
        platform.back_up(platform.verdicts())
        platform.delete()
    finally:
        subprocess.run(["chattr", "-i", str(file)], check=True)
    detail = "it cannot be moved: Operation not permitted"
    assert states(platform.outcomes()) == {"a.log": (State.NOT_OWNER, detail)}


@pytest.mark.parametrize("moment", ["backup", "deletion"])
def test_running_out_of_descriptors_is_a_failure_and_no_drift(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    platform.file("d/a.log")
    verdicts = platform.verdicts()
    if moment == "deletion":
        platform.back_up(verdicts)
    whole = os.open

    def failing(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == ("d" if moment == "deletion" else "a.log"):
            raise OSError(24, "Too many open files")
        return whole(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", failing)
    if moment == "backup":
        platform.back_up(verdicts)
        assert states(platform.skipped()) == {"d/a.log": (State.FAILED, "it cannot be opened: Too many open files")}
    else:
        platform.delete()
        assert states(platform.outcomes()) == {"d/a.log": (State.FAILED, "it cannot be opened: Too many open files")}
    assert platform.files() == {"d/a.log": "content"}
