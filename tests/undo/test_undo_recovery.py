"""Runs that died, settled from the manifests, from the database or from both."""

import shutil
from pathlib import Path

import pytest
from recovery_helpers import (
    FILES,
    GONE,
    as_after_the_loss,
    audited,
    dies,
    everything_is_as_it_should_be,
    fresh_database,
    garbage,
    recovers,
    safe,
)
from service_helpers import Platform, files, left_behind, request, scan_all
from undo_helpers import clean, copies, counts, flip, killed, undo

from cleanup_dagster.backups.files import FileBackups
from cleanup_dagster.collectors import deletion
from cleanup_dagster.database import run_targets
from cleanup_dagster.filesystem.quarantine import Quarantine
from cleanup_dagster.installation import RunRefusedError
from cleanup_dagster.retention.models import RestoreState


def test_from_both(platform: Platform) -> None:
    before = garbage(platform)
    dies(platform)
    recovers(platform)
    gone = safe(platform, before)
    assert len(gone) == GONE  # all but one, and that one in quarantine, equal to its backup
    everything_is_as_it_should_be(platform, before, gone)


def test_from_the_manifests_alone_when_the_database_was_replaced(platform: Platform) -> None:
    before = garbage(platform)
    dies(platform)
    fresh_database(platform)
    as_after_the_loss(platform)
    (sentence,) = recovers(platform)
    assert f"run died had been interrupted; it is settled, with {GONE} files deleted" in sentence
    everything_is_as_it_should_be(platform, before, safe(platform, before))


def test_from_the_database_alone_when_the_state_directory_was_lost(outside: Platform) -> None:
    before = garbage(outside)
    dies(outside)
    shutil.rmtree(outside.state)
    recovers(outside)
    everything_is_as_it_should_be(outside, before, safe(outside, before))


def test_backups_of_a_lost_state_directory_are_listed_restored_and_pruned(outside: Platform) -> None:
    before = garbage(outside, 3)
    run_id = clean(outside)
    shutil.rmtree(outside.state)
    with outside.service() as service:
        assert [backups.run_id for backups in service.backups()] == [run_id]
    assert counts(undo(outside, run_id)) == {RestoreState.RESTORED: 3}
    assert all(Path(path).exists() for path in before)
    outside.clock.advance(days=8)
    outside.sql("DELETE FROM cleanup_holds")
    with outside.service() as service:
        assert service.prune_backups().copies.files == 3
    assert copies(outside) == []


def test_a_run_that_ended_before_its_database_was_lost_can_be_taken_up_again(platform: Platform) -> None:
    before = garbage(platform, 3)
    clean(platform, run_id="died")
    fresh_database(platform)
    as_after_the_loss(platform)
    recovers(platform, expected=0)
    (platform.state / "manifests" / "died" / "ended").unlink()
    recovers(platform)
    everything_is_as_it_should_be(platform, before, set(before))


@pytest.mark.parametrize("call", [1, 135])
def test_an_older_copy_of_the_database_that_knows_no_intent_costs_no_backup(platform: Platform, call: int) -> None:
    before = garbage(platform)
    database = platform.state / "cleanup.db"

    def run() -> None:
        with platform.service() as service:
            checked = scan_all(service, service.begin(request(run_id="died")))
            service._installation.database.dispose()  # pyright: ignore[reportPrivateUsage]
            shutil.copy(database, platform.home / "older.db")
            for plan in checked.plans:
                service.delete(service.back_up(plan))

    killed(Quarantine, "remove", call, run)
    for path in platform.state.glob("cleanup.db*"):
        path.unlink()
    shutil.copy(platform.home / "older.db", database)
    database.chmod(0o600)
    assert platform.ask("SELECT intent_at FROM cleanup_run_targets WHERE target = 'logs'") == [(None,)]
    recovers(platform)
    gone = safe(platform, before)
    assert len(gone) == call
    everything_is_as_it_should_be(platform, before, gone)


def test_without_an_intent_the_copies_go_and_the_files_stay(platform: Platform) -> None:
    before = garbage(platform)
    dies(platform, run_targets, "commit_intent", 1)
    assert len(copies(platform)) == FILES
    recovers(platform)
    assert safe(platform, before) == set()
    assert copies(platform) == []
    assert not list(platform.backups.rglob("*.receipts.*"))


@pytest.mark.parametrize("mount_point", [False, True])
def test_copies_on_a_disk_that_is_away_go_when_it_is_back(platform: Platform, mount_point: bool) -> None:
    """Without an intent they protect nothing, and block nothing; but only their receipts know that they are to go."""
    before = garbage(platform)
    dies(platform, run_targets, "commit_intent", 1)
    platform.backups.rename(platform.home / "away")
    if mount_point:
        platform.backups.mkdir(mode=0o700)
    for _ in range(2):
        (sentence,) = recovers(platform)
        assert f"the backup directory {platform.backups} is {'empty' if mount_point else 'not there'}" in sentence
        assert "its copies of logs stay until a later run can remove them" in sentence
        shutil.rmtree(platform.backups)
        if mount_point:
            platform.backups.mkdir(mode=0o700)
    assert safe(platform, before) == set()
    assert platform.ask("SELECT status FROM cleanup_runs WHERE run_id = 'died'") == [("interrupted",)]
    shutil.rmtree(platform.backups, ignore_errors=True)
    (platform.home / "away").rename(platform.backups)
    assert len(copies(platform)) == FILES
    recovers(platform, 0)
    assert copies(platform) == []
    assert not list(platform.state.rglob("*.receipts.*"))
    recovers(platform, 0)


def test_a_database_lost_before_the_intent_costs_no_file(platform: Platform) -> None:
    before = garbage(platform)
    dies(platform, run_targets, "commit_intent", 1)
    fresh_database(platform)
    as_after_the_loss(platform)
    recovers(platform)
    assert safe(platform, before) == set()
    assert left_behind(platform.home) == []


@pytest.mark.parametrize("content", [b"", b"torn", None])
def test_receipts_cut_off_before_any_intent_block_nothing_when_the_database_is_lost(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    monkeypatch.setattr(FileBackups, "batch_files", 128)
    before = garbage(platform)
    dies(platform, deletion, "_commit_batch", 2)
    (receipts,) = platform.state.rglob("*.receipts.*")
    receipts.write_bytes(receipts.read_bytes()[:-3] if content is None else content)
    fresh_database(platform)
    as_after_the_loss(platform)
    recovers(platform)
    assert safe(platform, before) == set()
    clean(platform)
    assert safe(platform, before) == set(before)


def test_damaged_receipts_are_replaced_by_their_replica(platform: Platform) -> None:
    before = garbage(platform)
    dies(platform)
    flip(platform.state / "manifests/died/logs.receipts.jsonl.zst", 60)
    recovers(platform)
    gone = safe(platform, before)
    assert len(gone) == GONE
    assert audited(platform) == [("recovered", GONE)]


def test_damaged_receipts_are_replaced_by_their_replica_without_a_database_too(platform: Platform) -> None:
    before = garbage(platform)
    dies(platform)
    flip(platform.state / "manifests/died/logs.receipts.jsonl.zst", 60)
    fresh_database(platform)
    as_after_the_loss(platform)
    recovers(platform)
    everything_is_as_it_should_be(platform, before, safe(platform, before))


@pytest.mark.parametrize("database_too", [False, True])
def test_receipts_lost_for_good_are_said_with_where_the_files_are_and_block_nothing(
    platform: Platform, *, database_too: bool
) -> None:
    before = garbage(platform)
    dies(platform)
    for path in [*platform.state.rglob("*.receipts.*"), *platform.backups.rglob("*.receipts.*")]:
        path.write_bytes(b"gone")
    if database_too:
        fresh_database(platform)
        as_after_the_loss(platform)
    (sentence,) = recovers(platform)
    quarantine = next(platform.logs.glob(".cleanup-q-*"))
    assert "the receipts of logs are lost, so which of its files went cannot be told" in sentence
    assert f"their copies stay in {platform.backups}" in sentence
    assert f"whole files of it are left in {quarantine}, move them back by hand" in sentence
    gone = safe(platform, before)
    assert len(gone) == GONE
    platform.log("another.log", 31)
    platform.operation("old", 91)
    platform.clock.advance(days=1)
    clean(platform)  # also where put-back files are looked for among the backups
    platform.clock.advance(days=9)
    clean(platform)  # and where backups are pruned
    assert not (platform.logs / "another.log").exists()
    kept = {copy.read_text() for copy in platform.backups.rglob("*.backup")}
    assert {before[path] for path in gone} <= kept | {path.read_text() for path in quarantine.iterdir()}


def test_twice_is_as_once(platform: Platform) -> None:
    before = garbage(platform)
    dies(platform)
    recovers(platform)
    first = platform.ask("SELECT * FROM cleanup_audit")
    recovers(platform, expected=0)
    (platform.state / "manifests/died/ended").unlink()
    recovers(platform, expected=0)  # the database knows that it ended
    assert platform.ask("SELECT * FROM cleanup_audit") == first
    assert len(safe(platform, before)) == GONE


@pytest.mark.parametrize(
    ("at", "name", "call"),
    [
        (Quarantine, "remove", 1),
        (deletion, "_recover_one", 10),
        (Quarantine, "sync", 1),
        (run_targets, "finish_target", 1),
        (run_targets, "finish_target", 2),
    ],
)
@pytest.mark.parametrize("lost", ["nothing", "database"])
def test_recovery_that_dies_is_finished_by_the_next(
    platform: Platform, at: object, name: str, call: int, lost: str
) -> None:
    before = garbage(platform)
    platform.operation("old", 91)
    dies(platform)
    if lost == "database":
        fresh_database(platform)
        as_after_the_loss(platform)
        if (name, call) == ("finish_target", 2):
            call = 1
    killed(at, name, call, lambda: recovers(platform))
    recovers(platform)
    gone = safe(platform, before)
    assert len(gone) == GONE - 1  # the first was the operation
    assert audited(platform) == [("recovered", GONE - 1)]
    assert left_behind(platform.home) == []


def test_a_hold_placed_meanwhile_puts_back_what_was_in_quarantine(platform: Platform) -> None:
    before = garbage(platform)
    dies(platform)
    (slot,) = platform.logs.glob(".cleanup-q-*/*")
    content = slot.read_text()
    platform.hold("**")
    recovers(platform)
    gone = safe(platform, before)
    assert len(gone) == GONE - 1
    (held,) = [path for path, text in before.items() if text == content]
    assert Path(held).read_text() == content
    assert left_behind(platform.home) == []
    assert platform.ask(
        "SELECT records_deleted, records_skipped FROM cleanup_audit WHERE run_id = 'died' AND data_type = 'system_logs'"
    ) == [(GONE - 1, 1)]


@pytest.mark.parametrize("change", ["quarantined", "name_taken"])
def test_what_is_not_what_was_backed_up_is_never_removed(platform: Platform, change: str) -> None:
    before = garbage(platform)
    dies(platform)
    (slot,) = platform.logs.glob(".cleanup-q-*/*")
    (path,) = [Path(path) for path, text in before.items() if text == slot.read_text()]
    if change == "quarantined":
        slot.write_text("written to by who had it open")
    else:
        slot.write_text("written to by who had it open")
        path.write_text("newer")
    recovers(platform)
    contents = {p.read_text() for p in platform.logs.rglob("*") if p.is_file()}
    assert "written to by who had it open" in contents
    if change == "name_taken":
        assert path.read_text() == "newer"


@pytest.mark.parametrize("damage", ["flipped", "missing", "directory away"])
def test_what_has_no_sound_backup_any_more_goes_back_from_quarantine(platform: Platform, damage: str) -> None:
    before = garbage(platform)
    dies(platform)
    (slot,) = platform.logs.glob(".cleanup-q-*/*")
    (path,) = [Path(path) for path, text in before.items() if text == slot.read_text()]
    copy = platform.backups / f"{path.relative_to(platform.logs)}.backup"
    if damage == "flipped":
        flip(copy, 3)
    elif damage == "missing":
        copy.unlink()
    else:
        platform.backups.rename(platform.home / "away")
    recovers(platform)
    assert path.read_text() == before[str(path)]
    assert sum(Path(path).exists() for path in before) == FILES - GONE + 1
    assert audited(platform) == [("recovered", GONE - 1)]


def test_a_killed_run_can_be_undone_at_once_because_undo_settles_it_first(platform: Platform) -> None:
    before = garbage(platform)
    dies(platform)
    with pytest.raises(RunRefusedError, match="has not ended; restore it when it has"):
        undo(platform, "died", dry=True)
    report = undo(platform, "died")
    assert counts(report)[RestoreState.RESTORED] == GONE
    assert {path: Path(path).read_text() for path in before} == before
    assert files(platform.logs) == {str(Path(path).relative_to(platform.logs)) for path in before}
