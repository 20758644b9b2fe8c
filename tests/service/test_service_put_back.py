"""Backups over time: what is put back by `cp` stays until its backup is over, and what is over goes, never earlier."""

import os
import shutil
from pathlib import Path

import pytest
from service_helpers import DAY, Platform, files, request, scan_all

from cleanup_dagster.backups.manifest import read_header, read_manifest, write_manifest
from cleanup_dagster.retention.models import Reason, Receipt


def age(path: Path, days: float) -> None:
    """Make a file or directory look so much older than it does."""
    then = path.stat().st_mtime - days * DAY
    os.utime(path, (then, then))


def copies(platform: Platform) -> list[str]:
    return sorted(path.read_text() for path in platform.backups.rglob("*.backup"))


@pytest.mark.parametrize("keep_times", [True, False], ids=["cp -p", "cp"])
def test_what_is_put_back_by_cp_stays_until_its_backup_is_over(platform: Platform, keep_times: bool) -> None:
    path = platform.log("app/a.log", 31, "precious")
    platform.run()
    assert not path.exists()
    copy = shutil.copy2 if keep_times else shutil.copyfile
    copy(platform.backups / "app/a.log.backup", path)
    # A copy's time is that of the backup, written just now. Only a file that looks old again is tempting.
    age(path, 40)
    for days in (1, 5.9):
        platform.clock.advance(days=days)
        ended = platform.run()
        assert path.read_text() == "precious"
        assert ended.plans["logs"].kept[Reason.PUT_BACK].files == 1
        platform.clock.advance(days=-days)
    platform.clock.advance(days=7, seconds=60)
    platform.run()
    assert not path.exists()
    assert copies(platform) == ["precious"]


def test_other_bytes_under_the_name_are_no_put_back(platform: Platform) -> None:
    path = platform.log("a.log", 31, "old bytes")
    platform.run()
    platform.log("a.log", 31, "new bytes")
    platform.run()
    assert not path.exists()
    assert copies(platform) == ["new bytes", "old bytes"]


def test_what_an_interrupted_run_backed_up_and_left_in_place_is_no_put_back(platform: Platform) -> None:
    platform.log("first.log", 31)
    platform.run()
    path = platform.log("a.log", 31)
    with platform.service() as service:
        for plan in scan_all(service, service.begin(request())).plans:
            service.back_up(plan)
    ended = platform.run()
    assert ended.run.recovered
    assert ended.plans["logs"].deletable.files == 1
    assert not path.exists()


def test_the_same_bytes_under_another_name_are_no_put_back(platform: Platform) -> None:
    platform.log("a.log", 31, "bytes")
    platform.run()
    other = platform.log("b.log", 31, "bytes")
    platform.run()
    assert not other.exists()


def test_a_receipt_that_cannot_be_read_keeps_what_may_have_been_put_back(platform: Platform) -> None:
    platform.log("a.log", 31, "precious")
    platform.run()
    next(platform.state.glob("manifests/*/logs.receipts.jsonl.zst")).unlink()
    path = platform.log("a.log", 31, "precious")
    ended = platform.run()
    assert path.exists()
    assert ended.report.status == "failed"
    assert "cannot be read: No such file or directory" in ended.problems


def test_backups_go_after_seven_days_of_their_run_and_not_earlier(either: Platform) -> None:
    either.log("a.log", 31, "precious")
    either.log("b/c.log", 31, "precious too")
    either.run()
    if either.database is None:
        either.clock.advance(days=7, seconds=-60)
    else:
        either.sql("UPDATE cleanup_runs SET started_at = started_at - interval '6 days 23 hours 59 minutes'")
    assert either.run(run_id="early").pruned.copies.files == 0
    assert copies(either) == ["precious", "precious too"]
    if either.database is None:
        either.clock.advance(seconds=120)
    else:
        either.sql("UPDATE cleanup_runs SET started_at = started_at - interval '2 minutes' WHERE run_id <> 'early'")
    ended = either.run(run_id="late")
    assert ended.problems == ""
    assert (ended.pruned.copies.files, ended.pruned.copies.bytes) == (2, 20)
    assert copies(either) == []
    assert not (either.backups / "b").exists()
    assert either.ask(
        "SELECT backup_files, backups_pruned_at IS NOT NULL FROM cleanup_run_targets WHERE backup_files > 0"
    ) == [(2, 1)]
    assert either.run().pruned.copies.files == 0


def test_the_days_of_backups_are_configured(platform: Platform) -> None:
    platform.config["backup"]["retention_days"] = 3
    platform.log("a.log", 31)
    platform.run()
    platform.clock.advance(days=2.9)
    assert platform.run().pruned.copies.files == 0
    platform.clock.advance(days=0.2)
    assert platform.run().pruned.copies.files == 1


def test_a_dry_run_prunes_nothing(platform: Platform) -> None:
    platform.log("a.log", 31)
    platform.run()
    before = files(platform.backups)
    platform.clock.advance(days=400)
    platform.dry()
    assert files(platform.backups) == before
    assert list(platform.state.glob("manifests/*/logs.receipts.jsonl.zst"))


def test_only_what_a_receipt_names_is_pruned(platform: Platform) -> None:
    platform.log("a.log", 31)
    platform.run()
    stranger = platform.backups / "mine.backup"
    stranger.write_text("somebody's own")
    platform.clock.advance(days=8)
    platform.run()
    assert copies(platform) == ["somebody's own"]


def test_receipts_that_are_not_the_recorded_ones_prune_nothing(platform: Platform) -> None:
    for name in ("a.log", "b.log"):
        platform.log(name, 31)
    platform.run(run_id="old")
    receipts = next(platform.state.glob("manifests/old/logs.receipts.jsonl.zst"))
    header, rows = read_header(receipts), list(read_manifest(receipts, Receipt))
    receipts.unlink()
    with write_manifest(receipts, header) as forged:
        forged.write(rows[0])
        forged.close()
    platform.clock.advance(days=8)
    assert "is not the recorded one (its sha256 differs); nothing is done by it" in platform.run().problems
    assert len(copies(platform)) == 2


def test_a_later_runs_copy_in_the_same_place_outlives_the_earlier_run(platform: Platform) -> None:
    platform.log("a.log", 31, "first")
    platform.run()
    (platform.backups / "a.log.backup").unlink()  # somebody made room
    platform.log("a.log", 31, "second")
    platform.clock.advance(days=4)
    platform.run()
    platform.clock.advance(days=4)
    platform.run()
    assert copies(platform) == ["second"]
    platform.clock.advance(days=4)
    platform.run()
    assert copies(platform) == []


def test_backups_whose_disk_is_away_are_reported_and_pruned_when_it_is_back(platform: Platform) -> None:
    platform.log("a.log", 31, "precious")
    platform.run()
    away = platform.home / "away"
    platform.backups.rename(away)
    platform.config["backup"]["directory"] = str(platform.home / "other")
    platform.clock.advance(days=8)
    ended = platform.run()
    assert f"in {platform.backups} were not pruned: the directory is not there; mount it again" in ended.problems
    assert ended.report.status == "done"  # pruning comes after the audit; the job fails by its problems
    away.rename(platform.backups)
    assert platform.run().pruned.copies.files == 1


def test_manifests_and_logs_stay_a_year_and_plans_a_day(platform: Platform) -> None:
    platform.log("a.log", 31)
    old = platform.run(run_id="old").report.log
    manifests, plans = platform.state / "manifests", platform.state / "plans"
    age(manifests / "old", 364.9)
    age(Path(old), 364.9)
    age(plans / "old", 0.99)
    platform.sql("UPDATE cleanup_run_targets SET backups_pruned_at = finished_at")
    platform.run(run_id="second")
    assert (manifests / "old").is_dir()
    assert Path(old).exists()
    assert (plans / "old").is_dir()
    age(manifests / "old", 0.2)
    age(Path(old), 0.2)
    age(plans / "old", 0.02)
    ended = platform.run(run_id="third")
    assert ended.problems == ""
    assert not (manifests / "old").exists()
    assert not Path(old).exists()
    assert not (plans / "old").exists()
    assert (plans / "third").is_dir()


def test_manifests_stay_as_long_as_backups_need_them(platform: Platform) -> None:
    platform.log("a.log", 31)
    platform.run(run_id="old")
    away = platform.home / "away"
    platform.backups.rename(away)
    age(platform.state / "manifests" / "old", 400)
    platform.run()
    assert (platform.state / "manifests" / "old").is_dir()
    shutil.rmtree(platform.backups)
    away.rename(platform.backups)
    platform.clock.advance(days=8)
    platform.run()
    assert copies(platform) == []


def test_the_same_name_and_bytes_in_another_target_are_no_put_back(platform: Platform) -> None:
    other = platform.home / "other"
    platform.config["targets"].append({"name": "other", "kind": "files", "data_type": "temp_files", "root": str(other)})
    platform.log("a.log", 31, "bytes")
    platform.file(other / "b.log", 31, "b")
    platform.run()
    path = platform.file(other / "a.log", 31, "bytes")
    platform.run()
    assert not path.exists()
