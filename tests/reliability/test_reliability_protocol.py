"""Each check of the deletion protocol by itself: what it alone sees, though a later one would see most of it, too."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from deletion_helpers import Platform

from cleanup_dagster.collectors import deletion
from cleanup_dagster.filesystem.busy import OpenCheck
from cleanup_dagster.filesystem.quarantine import Quarantine
from cleanup_dagster.retention.models import State


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    platform = Platform(tmp_path)
    platform.file("a.log", "one")
    platform.back_up(platform.verdicts())
    return platform


def test_what_changed_before_it_is_moved_is_not_even_touched(platform: Platform) -> None:
    """A move and its return would renew its ctime, and take its name away for a moment."""
    path = platform.file("a.log", "one and more")
    before = path.stat().st_ctime_ns
    platform.delete()
    assert path.stat().st_ctime_ns == before
    assert [outcome.state for outcome in platform.outcomes()] == [State.DRIFTED]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was opened in quarantine."""
    opening = os.open
    names: list[str] = []

    def watching(path: Any, *rest: Any, **keywords: Any) -> int:
        if str(path).endswith("run.0"):
            names.append(str(path))
        return opening(path, *rest, **keywords)

    monkeypatch.setattr(os, "open", watching)
    return names


def swap_before_the_move(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, then: type[BaseException] | None = None
) -> None:
    take = Quarantine.take

    def swap_first(self: Quarantine, directory: int, name: str, slot: str) -> None:
        (platform.root / "a.log").unlink()
        os.mkfifo(platform.root / "a.log")
        take(self, directory, name, slot)
        if then is not None:
            raise then

    monkeypatch.setattr(Quarantine, "take", swap_first)


def test_what_the_quarantine_took_is_not_opened(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    """Opening a device can do something by itself."""
    swap_before_the_move(platform, monkeypatch)
    platform.delete()
    assert opened == []
    assert stat.S_ISFIFO((platform.root / "a.log").lstat().st_mode)
    assert [outcome.state for outcome in platform.outcomes()] == [State.DRIFTED]


def test_what_is_left_in_quarantine_is_looked_at_before_it_is_opened(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    swap_before_the_move(platform, monkeypatch, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        platform.delete()
    assert [outcome.state for outcome in platform.recover()] == [State.DRIFTED]
    assert opened == []
    assert stat.S_ISFIFO((platform.root / "a.log").lstat().st_mode)


def test_what_is_written_just_before_the_claim_is_seen_under_it(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By somebody who opened the file before it was moved, and closed it before the lease could tell."""
    true = deletion.claim
    writer = (platform.root / "a.log").open("a")

    def write_first(fd: int) -> OpenCheck:
        writer.write(" and more")
        writer.close()
        return true(fd)

    monkeypatch.setattr(deletion, "claim", write_first)
    platform.delete()
    assert platform.files() == {"a.log": "one and more"}
    assert [outcome.state for outcome in platform.outcomes()] == [State.DRIFTED]
