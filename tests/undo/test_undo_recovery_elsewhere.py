"""Runs that died and are not settled: their root is another one now, or they are another host's."""

import shutil
from pathlib import Path

import pytest
from recovery_helpers import (
    FILES,
    GONE,
    audited,
    dies,
    everything_is_as_it_should_be,
    garbage,
    recovers,
    safe,
)
from service_helpers import Platform, request
from undo_helpers import copies

from cleanup_dagster import settling
from cleanup_dagster.filesystem.place import Place
from cleanup_dagster.installation import RunRefusedError


def test_a_root_on_another_filesystem_is_not_judged_until_somebody_says_that_it_is_the_same(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(_: int) -> Place:
        return Place(1, 2, 3, 4)

    before = garbage(platform)
    dies(platform)
    with monkeypatch.context() as patch:
        patch.setattr(settling, "place_of", elsewhere)
        with pytest.raises(
            RunRefusedError, match=r"run died was interrupted and cannot be settled: .*/logs is on another filesystem"
        ) as refusal:
            recovers(platform)
        assert platform.ask("SELECT status FROM cleanup_runs WHERE run_id = 'died'") == [("running",)]
        assert len(safe(platform, before)) == GONE
        answer = str(refusal.value).split("touch ")[1].split(";")[0]
        assert Path(answer).parent == platform.state / "manifests/died"
        Path(answer).touch()
        recovers(platform)
    everything_is_as_it_should_be(platform, before, safe(platform, before))


@pytest.mark.needs_root
def test_a_root_that_is_not_mounted_is_not_judged(platform: Platform) -> None:
    """What lies below the mount point is an empty directory of another filesystem: nothing in it was deleted."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    logs = str(platform.logs).encode()
    assert libc.mount(b"tmpfs", logs, b"tmpfs", 0, None) == 0
    try:
        before = garbage(platform)
        dies(platform)
        aside = platform.home / "aside"
        aside.mkdir()
        assert libc.mount(logs, str(aside).encode(), None, 8192, None) == 0  # MS_MOVE
        with pytest.raises(RunRefusedError, match="is on another filesystem than it was; mount the one"):
            recovers(platform)
        assert len(copies(platform)) == FILES
        assert libc.mount(str(aside).encode(), logs, None, 8192, None) == 0
        recovers(platform)
        assert len(safe(platform, before)) == GONE
        assert audited(platform) == [("recovered", GONE)]
    finally:
        for place in (platform.logs, platform.home / "aside"):
            libc.umount2(str(place).encode(), 2)


def test_a_root_that_is_gone_ends_the_run_with_what_was_written_and_keeps_the_copies(platform: Platform) -> None:
    before = garbage(platform)
    dies(platform)
    with platform.service() as service:
        platform.logs.rename(platform.home / "gone")
        (sentence,) = service.begin(request()).recovered
    assert f"{platform.logs} is gone with what was left in it" in sentence
    assert {copy.read_text() for copy in copies(platform)} == set(before.values())
    ((outcome, deleted),) = audited(platform)
    assert outcome == "recovered"
    assert isinstance(deleted, int)
    assert 0 < deleted < GONE


@pytest.mark.parametrize("host", ["elsewhere", None])
def test_a_run_of_another_host_is_never_judged(outside: Platform, host: str | None) -> None:
    """Also not one whose host happens to have our name, when the replica of its receipts is not here."""
    before = garbage(outside)
    dies(outside)
    outside.sql("UPDATE cleanup_runs SET state_id = 'theirs'")
    shutil.rmtree(outside.state)  # so its manifests are not here
    if host is not None:
        outside.sql(f"UPDATE cleanup_runs SET host = '{host}'")  # noqa: S608
    else:
        for replica in outside.backups.rglob("*.receipts.*"):
            replica.unlink()
    recovers(outside, expected=0)
    assert len(safe(outside, before)) == GONE
    assert len(list(outside.logs.glob(".cleanup-q-*/*"))) == 1
    assert len(copies(outside)) == FILES
    assert outside.ask("SELECT status FROM cleanup_runs WHERE run_id = 'died'") == [("running",)]
    assert audited(outside) == []


def test_a_state_directory_that_moved_to_a_host_of_another_name_is_enough(platform: Platform) -> None:
    before = garbage(platform)
    dies(platform)
    platform.sql("UPDATE cleanup_runs SET host = 'before-the-new-container'")
    recovers(platform)
    everything_is_as_it_should_be(platform, before, safe(platform, before))
