# pyright: reportUnknownMemberType=false
# Dagster leaves parts of its own signatures unknown.
"""The schedule: stopped until somebody starts it, and then a live run of type automatic."""

from datetime import datetime, timezone

import dagster as dg
from orchestration_helpers import EXPIRED_LOGS, EXPIRED_OPERATIONS, Platform, run_loaded


def test_it_is_stopped_and_runs_at_two_unless_told_otherwise(platform: Platform) -> None:
    schedule = platform.definitions().resolve_schedule_def("cleanup_daily")
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 2 * * *", "UTC")
    assert schedule.job_name == "cleanup"


def test_cron_and_time_zone_come_from_the_configuration(platform: Platform) -> None:
    platform.configure(schedule={"cron": "30 4 * * 1-5", "timezone": "Europe/Oslo"})
    schedule = platform.definitions().resolve_schedule_def("cleanup_daily")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 4 * * 1-5", "Europe/Oslo")


def test_a_tick_asks_for_a_run_that_is_valid_live_and_automatic(platform: Platform) -> None:
    defs = platform.definitions()
    moment = datetime(2026, 1, 6, 2, tzinfo=timezone.utc)
    schedule = defs.resolve_schedule_def("cleanup_daily")
    (request,) = schedule.evaluate_tick(dg.build_schedule_context(scheduled_execution_time=moment)).run_requests or []
    assert request.run_config == {"dry_run": False, "type": "automatic"}
    assert dg.validate_run_config(defs.resolve_job_def("cleanup"), dict(request.run_config))

    ran = run_loaded(defs, dict(request.run_config), tags=dict(request.tags))
    assert ran.success
    assert (EXPIRED_OPERATIONS | EXPIRED_LOGS).isdisjoint(platform.files())
    assert platform.ask("SELECT DISTINCT cleanup_type, executed_by FROM cleanup_audit") == [
        ("automatic", "schedule cleanup_daily")
    ]
