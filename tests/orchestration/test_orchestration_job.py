"""The job in one process: what a dry, a live and a refused run do, show and leave behind."""

import logging
from pathlib import Path

import pytest
from orchestration_helpers import EXPIRED_LOGS, EXPIRED_OPERATIONS, LIVE, Platform, run_job

EXPIRED = EXPIRED_OPERATIONS | EXPIRED_LOGS
ALL_STEPS = {
    "load_policies",
    "scan_files",
    "check_plan",
    "back_up_files",
    "delete_files",
    "write_audit",
    "prune_backups",
    "conclude",
}


def test_a_run_without_config_is_dry_and_changes_nothing(platform: Platform) -> None:
    before = platform.files()
    ran = run_job(platform)
    assert ran.success
    assert ran.steps == ALL_STEPS - {"back_up_files", "delete_files"}
    assert platform.files() == before
    assert not platform.backups.exists()
    assert platform.ask("SELECT count(*) FROM cleanup_audit") == [(0,)]
    assert platform.ask("SELECT run_id, dry_run, status, expired_files FROM cleanup_runs") == [
        (ran.run_id, 1, "done", 3)
    ]


def test_a_live_run_deletes_what_the_dry_run_showed(platform: Platform) -> None:
    before = platform.files()
    shown = run_job(platform).shown("check_plan", "checked")
    ran = run_job(platform, LIVE)
    assert ran.success
    assert ran.steps == ALL_STEPS
    assert before.keys() - platform.files().keys() == EXPIRED
    assert shown["to_delete_files"] == ran.shown("write_audit")["deleted_files"] == len(EXPIRED)
    for name in EXPIRED:
        assert (platform.backups / f"{name}.backup").read_bytes() == before[name]
    assert platform.ask(
        "SELECT data_type, cleanup_type, outcome, records_deleted FROM cleanup_audit ORDER BY data_type"
    ) == [
        ("completed_operations", "manual", "done", 1),
        ("dbt_logs", "manual", "done", 1),
        ("failed_operations", "manual", "done", 1),
        ("pipeline_operations", "manual", "done", 0),
    ]


def test_the_audit_names_who_asked(platform: Platform) -> None:
    run_job(platform, LIVE, tags={"cleanup/executed_by": "ana@example.com"})
    assert platform.ask("SELECT DISTINCT executed_by FROM cleanup_audit") == [("ana@example.com",)]


def test_without_a_tag_the_user_of_the_process_asked(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "platform")
    assert run_job(platform).shown("load_policies", "run")["executed_by"] == "platform"


def test_a_plan_shows_counts_bytes_reasons_and_its_manifest(platform: Platform) -> None:
    ran = run_job(platform)
    shown = ran.shown("scan_files[operations]")
    old, crashed = (platform.ops / name for name in ("operation_old.json", "operation_crashed.json"))
    size = old.stat().st_size + crashed.stat().st_size
    assert shown["scanned_files"] == 5
    assert (shown["to_delete_files"], shown["to_delete_bytes"]) == (2, size)
    assert [(row["data_type"], row["files"]) for row in shown["to_delete"]] == [
        ("completed_operations", 1),
        ("failed_operations", 1),
    ]
    assert {row["reason"]: row["files"] for row in shown["kept_because"]} == {"not_expired": 2, "still_active": 1}
    assert [(row["path"], row["age"], row["reason"]) for row in shown["oldest"]] == [
        ("operation_old.json", "120.0 days", "older than 90 days: it is 120.0 days old by its mtime"),
        ("operation_crashed.json", "20.0 days", "older than 14 days: it is 20.0 days old by its mtime"),
    ]
    assert Path(shown["manifest"]).is_file()
    assert len(shown["manifest_sha256"]) == 64
    assert shown["summary"].startswith("a live run would delete 2 of 5 files (")


def test_the_policies_are_shown_as_they_were_read(platform: Platform) -> None:
    run_job(platform)
    platform.tell("UPDATE cleanup_policies SET enabled = 0 WHERE data_type = 'dbt_logs'")
    platform.tell("UPDATE cleanup_policies SET keep_last = 5 WHERE data_type = 'failed_operations'")
    ran = run_job(platform)
    shown = {row["data_type"]: row for row in ran.shown("load_policies", "run")["policies"]}
    assert shown["dbt_logs"]["kept"] == "for ever: disabled"
    assert shown["temp_files"]["kept"] == "1 day"
    assert (shown["failed_operations"]["kept"], shown["failed_operations"]["keep_last"]) == ("14 days", "5")
    assert ran.shown("scan_files[dbt_logs]")["kept_because"] == [
        {"reason": "policy_disabled", "files": 3, "size": "2.9 KiB"}
    ]


def test_a_live_run_shows_backups_outcomes_and_its_log(platform: Platform) -> None:
    ran = run_job(platform, LIVE)
    saved, gone = ran.shown("back_up_files[operations]"), ran.shown("delete_files[operations]")
    assert saved["backed_up_files"] == gone["deleted_files"] == 2
    assert saved["backup_directory"] == str(platform.backups)
    assert Path(saved["manifest"]).is_file()
    assert [(row["data_type"], row["outcome"], row["files"]) for row in gone["outcomes"]] == [
        ("completed_operations", "deleted", 1),
        ("failed_operations", "deleted", 1),
    ]
    report = ran.shown("write_audit")
    assert report["summary"].startswith("deleted 3 files (")
    assert report["summary"].endswith("each one backed up first")
    assert "operation_old.json" in Path(report["log"]).read_text(encoding="utf-8")
    assert report["backup_directory"] == str(platform.backups)
    assert ran.shown("conclude") == {"summary": report["summary"]}


def test_every_step_says_in_the_log_what_it_did(platform: Platform) -> None:
    said = run_job(platform, LIVE).logged(logging.INFO)
    assert [line.split(" (")[0] for line in said] == [
        "operations: this run is to delete 2 of 5 files",
        "dbt_logs: this run is to delete 1 of 3 files",
        "operations: 2 files",
        "dbt_logs: 1 file",
        "operations: 2 files",
        "dbt_logs: 1 file",
        "deleted 3 files",
    ]


def test_a_refused_run_fails_and_says_why_and_deletes_nothing(platform: Platform) -> None:
    platform.configure(limits={"max_files": 1})
    before = platform.files()
    ran = run_job(platform, LIVE)
    assert not ran.success
    assert ran.steps == ALL_STEPS - {"back_up_files", "delete_files", "conclude"}
    reason = ran.failures["conclude"]
    assert reason.startswith("operations: 2 files would go, more than max_files = 1; ")
    assert platform.files() == before
    assert platform.ask("SELECT DISTINCT outcome, records_deleted, message FROM cleanup_audit") == [
        ("refused", 0, reason)
    ]
    assert ran.failure_metadata("conclude")["summary"].startswith("refused, nothing was deleted")
    assert [(row["guardrail"], row["effect"]) for row in ran.shown("check_plan", "checked")["guardrails"]] == [
        ("files", "stops the run")
    ]


def test_a_dry_run_meets_the_same_guardrails_and_passes(platform: Platform) -> None:
    platform.configure(limits={"max_files": 1})
    ran = run_job(platform)
    assert ran.success
    assert ran.shown("conclude")["summary"].endswith("but 1 guardrail would stop it")
    assert ran.logged(logging.WARNING)[0].startswith("would stop a live run: operations: 2 files would go")


def test_an_emergency_bypasses_them_and_says_so(platform: Platform) -> None:
    platform.configure(limits={"max_files": 1})
    ran = run_job(platform, {"dry_run": False, "type": "emergency"})
    assert ran.success
    assert [row["effect"] for row in ran.shown("check_plan", "checked")["guardrails"]] == ["bypassed"]
    assert ran.logged(logging.WARNING)[0].startswith("bypassed by type emergency: operations: 2 files would go")
    assert EXPIRED.isdisjoint(platform.files())


def test_skip_backup_is_for_emergencies_only(platform: Platform) -> None:
    before = platform.files()
    ran = run_job(platform, {"dry_run": False, "type": "manual", "skip_backup": True})
    assert ran.failures == {
        "load_policies": "skip_backup goes with type emergency only, not manual. Nothing was judged or deleted."
    }
    assert platform.files() == before


def test_an_emergency_may_skip_the_backup_and_every_face_says_so(platform: Platform) -> None:
    ran = run_job(platform, {"dry_run": False, "type": "emergency", "skip_backup": True})
    assert EXPIRED.isdisjoint(platform.files())
    assert not list(platform.backups.rglob("*.backup"))
    assert ran.shown("back_up_files[dbt_logs]")["summary"] == "dbt_logs: no backup, as asked for"
    assert ran.shown("conclude")["summary"].endswith("without any backup")


def test_a_reviewed_plan_is_applied_exactly(platform: Platform) -> None:
    platform.configure(limits={"max_files": 1})
    dry = run_job(platform)
    platform.put(platform.dbt / "dbt.log.old", "new since the review", days=30)
    ran = run_job(platform, {**LIVE, "plan": dry.run_id})
    assert ran.success
    assert dry.run_id in ran.shown("load_policies", "run")["plan"]
    assert EXPIRED.isdisjoint(platform.files())
    assert "dbt.log.old" in platform.files()


def test_no_target_is_no_error(platform: Platform) -> None:
    platform.configure(targets=[])
    ran = run_job(platform, LIVE)
    assert ran.success
    assert ran.logged(logging.WARNING) == [
        "no target is configured, so there is nothing to clean; add targets to cleanup.yaml"
    ]
    assert ran.shown("conclude") == {"summary": "nothing was deleted"}
