"""What is relied on is durable, file by file and directory by directory, on a filesystem that forgives nothing."""

import os
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from durability import Cache, strict
from msgspec import Struct
from service_helpers import Platform, request, scan_all

from cleanup_dagster import applying
from cleanup_dagster.backups import files
from cleanup_dagster.backups.files import FileBackups
from cleanup_dagster.backups.manifest import ManifestWriter
from cleanup_dagster.backups.packed import ArchiveBackups
from cleanup_dagster.collectors import deletion
from cleanup_dagster.filesystem.quarantine import Quarantine
from cleanup_dagster.handles import RestoreRequest
from cleanup_dagster.retention.models import Outcome, State

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are named by way of /proc")


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """Three batches, with a file that is put back; the first run has made every directory."""
    platform = Platform(tmp_path)
    monkeypatch.setattr(deletion, "BATCH", 2)
    for kind in (FileBackups, ArchiveBackups):
        monkeypatch.setattr(kind, "batch_files", 2)
    platform.run()
    for path in ("a.log", "d/b.log", "d/c.log", "d/e/f.log", "g.log", "h/i/j.log"):
        platform.log(path, 40)
    return platform


@pytest.fixture
def cache() -> Generator[Cache]:
    with strict() as cache:
        yield cache


def live_run(platform: Platform) -> None:
    """Drive the verbs that change anything, without the log and the pruning that come after them."""
    with platform.service() as service:
        checked = scan_all(service, service.begin(request(run_id="live-run")))
        for plan in checked.plans:
            assert not service.delete(service.back_up(plan)).problem


@pytest.mark.parametrize("kind", ["files", "archive"])
def test_copies_and_receipts_are_durable_before_the_intent_is_committed(
    ready: Platform, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    ready.target("logs")["format"] = kind
    seen: list[str] = []
    true = applying.run_targets.commit_intent

    with strict() as cache:

        def committing(*arguments: Any, **keywords: Any) -> bool:
            seen.extend(cache.below(ready.backups, ready.state / "manifests"))
            seen.append("the intent")
            return true(*arguments, **keywords)

        monkeypatch.setattr(applying.run_targets, "commit_intent", committing)
        live_run(ready)
    assert seen == ["the intent"]


def test_every_receipt_is_durable_before_its_copy_gets_its_name(
    ready: Platform, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    publish = FileBackups.publish

    def publishing(self: FileBackups, places: Any) -> None:
        items = list(places)
        for staged, _ in items:
            staged_path = ready.backups / f".staging-live-run/{staged.part}"
            assert staged_path.exists()
        left = [entry for entry in cache.below(ready.state / "manifests") if "receipts" in entry or "names" in entry]
        seen.extend([*left, "a batch"])
        publish(self, items)

    monkeypatch.setattr(FileBackups, "publish", publishing)
    live_run(ready)
    assert seen == ["a batch"] * 3


@pytest.mark.parametrize("whole", [False, True], ids=["each", "all at once"])
def test_a_copys_bytes_are_durable_before_it_gets_its_name(
    ready: Platform, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    seen: list[str] = []
    synced: set[int] = set()
    fsync, sync_filesystem, publish = os.fsync, files.sync_filesystem, FileBackups.publish

    def relied_on(_: int) -> bool:
        return whole

    def syncing(fd: int) -> None:
        fsync(fd)
        synced.add(os.fstat(fd).st_ino)

    def syncing_all(fd: int) -> None:
        sync_filesystem(fd)
        synced.update(path.stat().st_ino for path in ready.backups.glob(".staging-*/*"))

    def publishing(self: FileBackups, places: Any) -> None:
        items = list(places)
        seen.extend("durable" if staged.inode in synced else "not durable" for staged, _ in items)
        publish(self, items)

    monkeypatch.setattr(FileBackups, "worth_whole", 1)
    monkeypatch.setattr(files, "syncs_whole", relied_on)
    monkeypatch.setattr(files, "sync_filesystem", syncing_all)
    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(FileBackups, "publish", publishing)
    live_run(ready)
    assert seen == ["durable"] * 6


def test_what_was_moved_and_removed_is_durable_before_it_is_written_down(
    ready: Platform, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    write, take = ManifestWriter.write, Quarantine.take

    def writing(self: ManifestWriter, row: Struct) -> None:
        if isinstance(row, Outcome) and row.number >= 0:
            seen.extend([*cache.below(ready.logs), row.state.value])
        write(self, row)

    def change_first(self: Quarantine, directory: int, name: str, slot: str) -> None:
        if name == "c.log":
            (ready.logs / "new").write_text("something else")
            (ready.logs / "new").replace(ready.logs / "d/c.log")
        take(self, directory, name, slot)

    monkeypatch.setattr(ManifestWriter, "write", writing)
    monkeypatch.setattr(Quarantine, "take", change_first)
    live_run(ready)
    assert sorted(seen) == [State.DELETED.value] * 5 + [State.DRIFTED.value]


def test_the_quarantine_has_its_name_before_anything_is_moved_into_it(
    ready: Platform, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    take = Quarantine.take

    def taking(self: Quarantine, directory: int, name: str, slot: str) -> None:
        if not seen:
            seen.extend([*cache.below(ready.logs), "moved"])
        take(self, directory, name, slot)

    monkeypatch.setattr(Quarantine, "take", taking)
    live_run(ready)
    assert seen == ["moved"]


def test_the_outcomes_are_durable_before_the_audit(ready: Platform, cache: Cache) -> None:
    live_run(ready)
    assert cache.below(ready.logs, ready.state / "manifests") == []


def test_what_is_restored_is_durable_before_it_is_said(ready: Platform) -> None:
    live_run(ready)
    shutil.rmtree(ready.logs / "h")
    with ready.service() as service:  # ends the run
        service.begin(request())
        with strict() as cache:
            report = service.restore(RestoreRequest("a-restore", "live-run", "bob", dry_run=False))
            assert not report.problems
            assert cache.below(ready.logs) == []
    assert len(list(ready.logs.rglob("*.log"))) == 6
