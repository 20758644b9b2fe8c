import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from service_helpers import Platform, files, left_behind, request, scan_all, tree

from cleanup_dagster.installation import RunRefusedError


def garbage(platform: Platform) -> None:
    """One file of each data type on either side of its retention."""
    platform.operation("done_old", 91)
    platform.operation("done_new", 89)
    platform.operation("failed_old", 15, "failed")
    platform.operation("failed_new", 13, "error")
    platform.operation("lost_old", 31, "unknown")
    platform.operation("lost_new", 29, "unknown")
    platform.log("app/old.log", 31, "x" * 1000)
    platform.log("app/older.log", 300, "y" * 2000)
    platform.log("app/new.log", 29)


def test_a_dry_run_writes_its_plan_and_its_row_and_nothing_else(either: Platform) -> None:
    garbage(either)
    with either.service():
        pass  # the state directory and the database are there, as on any platform but a new one
    before = tree(either.operations, either.logs)
    there = files(either.state)
    ended = either.dry()
    assert ended.report.status == "done"
    assert tree(either.operations, either.logs) == before
    assert not either.backups.exists()
    run_id = ended.run.request.run_id
    new = files(either.state) - {"installation_id"} - there
    assert {f"plans/{run_id}/{name}.jsonl.zst" for name in ("operations", "logs")} <= new
    assert all(name.startswith(f"plans/{run_id}/") for name in new)
    assert either.ask("SELECT count(*) FROM cleanup_audit") == [(0,)]
    assert either.ask("SELECT count(*) FROM cleanup_run_targets") == [(0,)]
    columns = "run_id, dry_run, status, executed_by, scanned_files, expired_files, deleted_files, freed_bytes"
    assert either.ask(f"SELECT {columns} FROM cleanup_runs") == [(run_id, 1, "done", "alice", 9, 5, 0, 0)]  # noqa: S608
    assert ended.pruned.copies.files == 0


def test_a_dry_run_tells_exactly_what_a_live_run_then_deletes(platform: Platform) -> None:
    garbage(platform)
    promised = platform.dry()
    before = {root: files(root) for root in (platform.operations, platform.logs)}
    done = platform.run()
    assert {name: plan.expired for name, plan in promised.plans.items()} == {
        name: plan.expired for name, plan in done.plans.items()
    }
    expected = {f"{plan.root}/{verdict.candidate.path}" for plan in promised.plans.values() for verdict in plan.oldest}
    gone = {f"{root}/{name}" for root, names in before.items() for name in names - files(root)}
    assert gone == expected


def test_a_live_run_deletes_what_expired_and_keeps_the_rest(either: Platform) -> None:
    garbage(either)
    ended = either.run()
    assert ended.problems == ""
    assert ended.report.status == "done"
    assert files(either.operations) == {f"operation_{kind}_new.json" for kind in ("done", "failed", "lost")}
    assert files(either.logs) == {"app/new.log"}
    assert not left_behind(either.home)


def test_the_audit_has_a_row_for_each_data_type_with_its_own_figures(either: Platform) -> None:
    garbage(either)
    sizes = {name: (either.operations / f"operation_{name}_old.json").stat().st_size for name in ("done", "failed")}
    ended = either.run()
    columns = (
        "data_type, cleanup_type, outcome, executed_by, records_deleted, space_freed_bytes, backup_bytes,"
        " records_failed, records_skipped, open_check, run_id"
    )
    rows = either.ask(f"SELECT {columns} FROM cleanup_audit ORDER BY data_type")  # noqa: S608
    tail = (0, 0, "lease+flock", ended.run.request.run_id)
    assert [row[:7] for row in rows if row[0] != "pipeline_operations"] == [
        ("completed_operations", "manual", "done", "alice", 1, sizes["done"], sizes["done"]),
        ("failed_operations", "manual", "done", "alice", 1, sizes["failed"], sizes["failed"]),
        ("system_logs", "manual", "done", "alice", 2, 3000, 3000),
    ]
    assert [row[4] for row in rows if row[0] == "pipeline_operations"] == [1]
    assert {row[7:] for row in rows} == {tail}


def test_the_run_and_its_targets_have_their_figures(either: Platform) -> None:
    garbage(either)
    ended = either.run()
    assert either.ask("SELECT status, dry_run, scanned_files, expired_files, deleted_files FROM cleanup_runs") == [
        ("done", 0, 9, 5, 5)
    ]
    rows = either.ask(
        "SELECT target, root, scanned_files, expired_files, deleted_files, backup_files, backup_directory,"
        " finished_at IS NOT NULL, backups_pruned_at IS NULL FROM cleanup_run_targets ORDER BY target"
    )
    assert rows == [
        ("logs", str(either.logs), 3, 2, 2, 2, str(either.backups), 1, 1),
        ("operations", str(either.operations), 6, 3, 3, 3, str(either.backups), 1, 1),
    ]
    assert ended.report.counts["system_logs"].deleted.bytes == 3000


def test_a_copy_by_cp_alone_restores_a_file(platform: Platform) -> None:
    path = platform.operation("xyz", 91, reply="the bytes that matter")
    before = path.read_bytes()
    platform.run()
    assert not path.exists()
    shutil.copyfile(platform.backups / "operation_xyz.json.backup", path)
    assert path.read_bytes() == before


def test_a_log_file_beside_the_backups_names_what_went_and_where_its_backup_is(platform: Platform) -> None:
    platform.log("app/old.log", 31)
    ended = platform.run()
    log = Path(ended.report.log)
    assert log.parent == platform.backups
    assert log.match("cleanup_*.log")
    assert log.stat().st_mode & 0o777 == 0o600
    text = log.read_text()
    assert f"run {ended.run.request.run_id}  type manual" in text
    assert "executed by alice: done" in text
    assert "system_logs: 1 deleted (12 B), 0 skipped, 0 failed" in text
    assert f"deleted  {platform.logs}/app/old.log  backup app/old.log.backup" in text


def test_names_that_are_hostile_go_and_come_back_whole(platform: Platform) -> None:
    names = ["a\nb.log", "\x1b[31mred.log", "-rf.log", "x" * 255, "quote'\"$(id).log", "\udcff.log", "back\\slash.log"]
    for name in names:
        platform.log(name, 31, ascii(name))
    ended = platform.run()
    assert ended.problems == ""
    assert files(platform.logs) == set()
    copies = [path.read_text() for path in platform.backups.rglob("*.backup")]
    assert sorted(copies) == sorted(map(ascii, names))
    assert "\x1b" not in Path(ended.report.log).read_text()


def test_directories_that_become_empty_go_when_the_target_says_so(platform: Platform) -> None:
    platform.target("logs")["remove_empty_dirs"] = True
    platform.log("2025/01/a.log", 31)
    platform.log("2025/02/a.log", 31)
    platform.log("2025/02/new.log", 1)
    (platform.logs / "always_empty").mkdir()
    ended = platform.run()
    assert not (platform.logs / "2025/01").exists()
    assert (platform.logs / "2025/02/new.log").exists()
    assert (platform.logs / "always_empty").is_dir()
    assert sum(result.directories_removed for result in ended.results) == 1


def test_the_root_stays_even_when_everything_in_it_went(platform: Platform) -> None:
    platform.target("logs")["remove_empty_dirs"] = True
    platform.log("a/b/c.log", 31)
    platform.run()
    assert platform.logs.is_dir()
    assert list(platform.logs.iterdir()) == []


def test_directories_stay_unless_the_target_says_otherwise(platform: Platform) -> None:
    platform.log("a/b/c.log", 31)
    platform.run()
    assert (platform.logs / "a/b").is_dir()


def test_two_targets_with_the_same_names_keep_both_copies(platform: Platform) -> None:
    other = platform.home / "other"
    platform.config["targets"].append(
        {"name": "other", "kind": "files", "data_type": "temp_files", "root": str(other), "format": "files"}
    )
    platform.log("app.log", 31, "from logs")
    platform.file(other / "app.log", 31, "from other")
    ended = platform.run()
    assert ended.problems == ""
    assert files(platform.logs) | files(other) == set()
    copies = sorted(path.read_text() for path in platform.backups.glob("app.log*.backup"))
    assert copies == ["from logs", "from other"]
    assert (platform.backups / "app.log.backup").exists()


def test_a_copy_of_an_earlier_run_is_never_replaced(platform: Platform) -> None:
    platform.log("app.log", 31, "first")
    platform.run()
    platform.log("app.log", 31, "second")
    platform.run()
    copies = sorted(path.read_text() for path in platform.backups.glob("app.log*.backup"))
    assert copies == ["first", "second"]


def test_a_file_that_changes_between_the_scan_and_the_backup_stays(platform: Platform) -> None:
    changed, replaced, gone, good = (
        platform.log(f"{name}.log", 31) for name in ("changed", "replaced", "gone", "good")
    )
    with platform.service() as service:
        run = service.begin(request())
        checked = scan_all(service, run)
        changed.write_text("news")
        replaced.unlink()
        platform.log("replaced.log", 31)
        gone.unlink()
        results = [service.delete(service.back_up(plan)) for plan in checked.plans]
        report = service.audit(checked, results)
    assert report.status == "done"
    assert changed.read_text() == "news"
    assert replaced.exists()
    assert not good.exists()
    assert platform.ask(
        "SELECT records_deleted, records_skipped FROM cleanup_audit WHERE data_type = 'system_logs'"
    ) == [(1, 3)]


def test_a_file_that_changes_between_the_backup_and_the_deletion_stays(platform: Platform) -> None:
    path = platform.log("changed.log", 31)
    with platform.service() as service:
        checked = scan_all(service, service.begin(request()))
        receipts = [service.back_up(plan) for plan in checked.plans]
        path.write_text("news")
        report = service.audit(checked, [service.delete(receipt) for receipt in receipts])
    assert path.read_text() == "news"
    assert report.counts["system_logs"].skipped.files == 1
    assert not left_behind(platform.home)


def refused_after(platform: Platform, change: Callable[[], None]) -> str:
    """Say why a log is not deleted after a change between its backup and its deletion."""
    path = platform.log("old.log", 31)
    with platform.service() as service:
        checked = scan_all(service, service.begin(request()))
        backed_up = [service.back_up(plan) for plan in checked.plans]
        change()
        (problem,) = (service.delete(one).problem for one in backed_up if one.plan.target == "logs")
    assert path.exists()
    return problem


def test_deleting_without_a_receipt_in_the_database_is_refused(platform: Platform) -> None:
    def change() -> None:
        platform.sql("UPDATE cleanup_run_targets SET receipts_sha256 = 'other' WHERE target = 'logs'")

    said = refused_after(platform, change)
    assert "the intent of logs is not the one in the database; nothing of it was deleted" in said


def test_receipts_that_were_tampered_with_delete_nothing(platform: Platform) -> None:
    def change() -> None:
        manifest = next(platform.state.glob("manifests/*/logs.receipts.jsonl.zst"))
        manifest.write_bytes(manifest.read_bytes() + b"x")

    said = refused_after(platform, change)
    assert "is not the recorded one (its sha256 differs); nothing is done by it" in said


def test_a_plan_that_was_tampered_with_deletes_nothing(platform: Platform) -> None:
    path = platform.log("old.log", 31)
    with platform.service() as service:
        checked = scan_all(service, service.begin(request()))
        plan = next(platform.state.glob("plans/*/logs.jsonl.zst"))
        plan.write_bytes(plan.read_bytes() + b"x")
        report = service.audit(checked, [service.delete(service.back_up(plan)) for plan in checked.plans])
    assert path.exists()
    assert report.status == "failed"
    assert "is not the recorded one" in "\n".join(report.problems)


def test_a_dry_run_can_neither_back_up_nor_delete(platform: Platform) -> None:
    path = platform.log("old.log", 31)
    with platform.service() as service:
        checked = scan_all(service, service.begin(request(dry=True, run_id="dry-1")))
        assert not checked.may_delete
        results = [service.delete(service.back_up(plan)) for plan in checked.plans]
    assert path.exists()
    assert not platform.backups.exists()
    assert "run dry-1 is a dry run and changes nothing" in results[1].problem


def test_a_run_id_is_taken_once(platform: Platform) -> None:
    platform.run(run_id="one")
    with pytest.raises(RunRefusedError, match="a run one exists already; start a new one"):
        platform.run(run_id="one")


def test_backing_up_again_after_the_intent_was_committed_withdraws_no_copy(platform: Platform) -> None:
    path = platform.log("old.log", 31, "precious")
    with platform.service() as service:
        checked = scan_all(service, service.begin(request(run_id="twice")))
        first = service.back_up(checked.plans[1])
        second = service.back_up(checked.plans[1])
        assert second.problem
        assert second.unsettled
        assert (platform.backups / "old.log.backup").read_text() == "precious"
        assert not service.delete(first).problem
    assert not path.exists()
    assert (platform.backups / "old.log.backup").read_text() == "precious"
