"""A file that changes while it is packed stays, costs no other, and leaves the archive a tar."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from service_helpers import Platform, files

from cleanup_dagster.backups.archive import FRAME_BYTES
from cleanup_dagster.backups.packed import ArchiveBackups
from cleanup_dagster.backups.staged import Staged
from cleanup_dagster.collectors import deletion
from cleanup_dagster.filesystem.busy import OpenCheck
from cleanup_dagster.retention.models import Identity, State


def grow(path: Path) -> None:
    with path.open("a") as file:
        file.write("more")


def shrink(path: Path) -> None:
    os.truncate(path, 7)


def replace(path: Path) -> None:
    path.with_name("other").write_text("other")
    path.with_name("other").rename(path)


@pytest.mark.parametrize("drift", [grow, shrink, replace])
@pytest.mark.parametrize("size", [1_000, 2 * FRAME_BYTES])
@pytest.mark.parametrize("before", [True, False])
def test_what_changes_while_it_is_packed_stays_and_costs_no_other(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, drift: Callable[[Path], None], size: int, *, before: bool
) -> None:
    """Between the look at its size and the reading, or between the reading and the last look."""
    platform.target("logs")["format"] = "archive"
    changing = platform.log("b.log", 31, "b" * size)
    for name in ("a.log", "c.log"):
        platform.log(name, 31)
    stage = ArchiveBackups.stage

    def slowly(self: ArchiveBackups, source: int, identity: Identity, path: str) -> Staged:
        if before and path == "b.log":
            drift(changing)
        staged = stage(self, source, identity, path)
        if not before and path == "b.log":
            drift(changing)
        return staged

    def unclaimed(_: int) -> OpenCheck:  # for a lease the writer would wait, 45 s
        return OpenCheck.NONE

    monkeypatch.setattr(ArchiveBackups, "stage", slowly)
    monkeypatch.setattr(deletion, "claim", unclaimed)
    ended = platform.run()
    states = ended.report.counts["system_logs"].states
    assert {state: tally.files for state, tally in states.items()} == {State.DELETED: 2, State.DRIFTED: 1}
    assert files(platform.logs) == {"b.log"}
    with platform.service() as service:
        found = service.verify_backups()
    assert (found.sound.files, found.damaged) == (2, ())
    if shutil.which("zstd"):
        (archive,) = platform.backups.glob("*.tar.zst")
        listed = subprocess.run(["tar", "--zstd", "-tf", archive], check=True, capture_output=True, text=True)
        assert {"a.log", "c.log"} <= set(listed.stdout.split())
