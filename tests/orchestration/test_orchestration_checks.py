# pyright: reportUnknownMemberType=false
# Dagster leaves parts of its own signatures unknown.
"""The asset checks, evaluated as the hourly job and the UI do, and whom they tell."""

import time
from collections.abc import Generator

import dagster as dg
import pytest
from orchestration_helpers import LIVE, Platform, run_job
from webhooks import SECRET, Webhook, webhook

Evaluations = dict[str, dg.AssetCheckEvaluation]


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Generator[Webhook]:
    with webhook() as served:
        monkeypatch.setenv("CLEANUP_ALERT_WEBHOOK_URL", served.url)
        yield served


def evaluate(platform: Platform, job: str = "cleanup_checks") -> Evaluations:
    """Run the job that asks, and return what was found by check and asset."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = platform.definitions().resolve_job_def(job).execute_in_process(instance=instance)
        logged = "".join(entry.user_message for entry in instance.all_logs(result.run_id))
    assert SECRET not in logged
    return {f"{one.check_name} {one.asset_key.path[-1]}": one for one in result.get_asset_check_evaluations()}


def age_runs(platform: Platform, days: float) -> None:
    """Make everything that the database knows of runs so many days older."""
    columns = ("started_at", "heartbeat_at", "finished_at")
    platform.tell(
        "UPDATE cleanup_runs SET "  # noqa: S608  constants
        + ", ".join(f"{c} = strftime('%Y-%m-%d %H:%M:%f000', {c}, '-{days} days')" for c in columns)
    )


def test_what_is_overdue_is_found_by_a_scan_and_only_then(platform: Platform) -> None:
    """operation_old.json is 30 days over its retention, operation_crashed.json 6."""
    found = evaluate(platform)
    assert not found["nothing_overdue completed_operations"].passed
    late = found["nothing_overdue completed_operations"].metadata
    assert late["files_overdue"].value == 1
    assert late["longest_overdue_days"].value == pytest.approx(30, abs=0.1)
    assert "operation_old.json" in str(found["nothing_overdue completed_operations"].description)
    assert found["nothing_overdue pipeline_operations"].passed
    assert not (platform.state / "plans").exists() or not any((platform.state / "plans").iterdir())
    assert platform.ask("SELECT count(*) FROM cleanup_runs") == [(0,)]
    assert "nothing_overdue temp_files" not in found, "it has no target"

    assert run_job(platform, LIVE).success
    found = evaluate(platform)
    assert all(one.passed for one in found.values()), {k: v.description for k, v in found.items() if not v.passed}


def test_the_grace_period_is_configurable(platform: Platform) -> None:
    platform.configure(alerts={"overdue_grace": "40d"})
    assert evaluate(platform)["nothing_overdue completed_operations"].passed


def test_a_held_file_is_not_overdue_and_a_disabled_policy_keeps_all(platform: Platform) -> None:
    run_job(platform)
    platform.tell("UPDATE cleanup_policies SET enabled = false WHERE data_type = 'failed_operations'")
    platform.tell(
        f"INSERT INTO cleanup_holds (pattern, reason) VALUES ('{platform.ops}/operation_old.json', 'audit')"  # noqa: S608
    )
    found = evaluate(platform)
    assert found["nothing_overdue completed_operations"].passed
    assert found["nothing_overdue failed_operations"].passed
    assert "disabled" in str(found["nothing_overdue failed_operations"].description)


def test_what_cannot_be_judged_does_not_pass(platform: Platform) -> None:
    run_job(platform)
    platform.tell("UPDATE cleanup_policies SET retention_days = -1 WHERE data_type = 'failed_operations'")
    platform.dbt.rename(platform.home / "elsewhere")
    found = evaluate(platform)
    assert not found["nothing_overdue failed_operations"].passed
    assert "does not exist" in str(found["nothing_overdue dbt_logs"].description)


def test_before_the_first_live_run_nobody_is_alarmed(platform: Platform, hook: Webhook) -> None:
    run_job(platform)
    found = evaluate(platform)["cleanup_succeeds runs"]
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert "start the schedule cleanup_daily" in str(found.description)
    assert [post for post in hook.posts if "cleanup_succeeds" in post["text"]] == []


def test_a_cleanup_that_stopped_is_noticed(platform: Platform, hook: Webhook) -> None:
    assert run_job(platform, {"dry_run": False, "type": "automatic"}).success
    assert evaluate(platform)["cleanup_succeeds runs"].passed
    assert hook.posts == []

    age_runs(platform, 2)
    run_job(platform)  # a dry run is no success
    found = evaluate(platform)["cleanup_succeeds runs"]
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.ERROR
    (post,) = hook.posts
    assert post["event"] == "check_failed"
    assert post["check"] == "cleanup_succeeds of runs"
    assert "no live cleanup has succeeded for 2.0 days" in post["text"]

    evaluate(platform)
    assert len(hook.posts) == 1, "told once, not every hour"

    assert run_job(platform, LIVE).success
    evaluate(platform)
    assert [post["event"] for post in hook.posts] == ["check_failed", "check_recovered"]


def test_a_cleanup_that_only_fails_is_noticed_and_why_is_said(platform: Platform) -> None:
    platform.configure(limits={"max_files": 1})
    assert not run_job(platform, {"dry_run": False, "type": "automatic"}).success
    found = evaluate(platform)["cleanup_succeeds runs"]
    assert found.severity is dg.AssetCheckSeverity.WARN, "it has only just begun"
    age_runs(platform, 2)
    found = evaluate(platform)["cleanup_succeeds runs"]
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert "max_files" in str(found.description)


def test_somebody_who_cleans_by_hand_is_warned_and_not_alarmed(platform: Platform, hook: Webhook) -> None:
    assert run_job(platform, LIVE).success
    age_runs(platform, 9)
    found = evaluate(platform)["cleanup_succeeds runs"]
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert hook.posts == []


def test_a_run_that_died_is_noticed_after_an_hour(platform: Platform) -> None:
    assert run_job(platform, LIVE).success
    platform.tell("UPDATE cleanup_runs SET status = 'running', finished_at = NULL")
    assert evaluate(platform)["no_interrupted_run runs"].passed, "it may be at work"
    age_runs(platform, 0.1)
    found = evaluate(platform)["no_interrupted_run runs"]
    assert not found.passed
    assert "did not end" in str(found.description)


def test_a_damaged_backup_is_named(platform: Platform, hook: Webhook) -> None:
    assert run_job(platform, LIVE).success
    assert evaluate(platform, "verify_backups")["backups_verify backups"].passed
    (platform.backups / "operation_old.json.backup").write_text("something else")
    found = evaluate(platform, "verify_backups")["backups_verify backups"]
    assert not found.passed
    assert found.metadata["files_damaged"].value == 1
    assert "operation_old.json" in str(found.description)
    (post,) = hook.posts
    assert post["check"] == "backups_verify of backups"


def test_a_webhook_that_is_dead_neither_blocks_nor_fails_a_check_and_is_tried_again(
    platform: Platform, hook: Webhook
) -> None:
    run_job(platform)
    platform.configure(alerts={"webhook_timeout": 0.2, "webhook_attempts": 1})
    hook.status = None
    started = time.monotonic()
    found = evaluate(platform)
    assert time.monotonic() - started < 20
    assert not found["nothing_overdue completed_operations"].passed
    silent = len(hook.posts)
    assert silent
    hook.status = 200
    evaluate(platform)
    assert len(hook.posts) == 2 * silent


def test_a_single_check_scans_only_its_own_targets(platform: Platform) -> None:
    run_job(platform)
    (platform.dbt / "dbt.log.2").unlink()
    platform.ops.rename(platform.home / "elsewhere")  # would be a problem of the operations' data types
    key = dg.AssetCheckKey(dg.AssetKey(["cleanup", "dbt_logs"]), "nothing_overdue")
    with dg.DagsterInstance.ephemeral() as instance:
        job = platform.definitions().resolve_job_def("cleanup_checks").get_subset(asset_check_selection={key})
        result = job.execute_in_process(instance=instance)
    (found,) = result.get_asset_check_evaluations()
    assert found.passed
    assert found.asset_check_key == key
