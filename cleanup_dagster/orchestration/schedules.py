"""When the jobs run by themselves."""

import dagster as dg

from cleanup_dagster.orchestration.checks import CheckJobs
from cleanup_dagster.settings import Settings


def daily_schedule(job: dg.JobDefinition, settings: Settings) -> dg.ScheduleDefinition:
    """Return the daily live cleanup, at 02:00 in the configured zone unless `schedule.cron` says otherwise.

    It is stopped until somebody starts it, here or in the settings: installing a cleaner must not delete anything.
    """
    return dg.ScheduleDefinition(
        name="cleanup_daily",
        job=job,
        cron_schedule=settings.schedule.cron,
        execution_timezone=settings.schedule.timezone,
        run_config={"dry_run": False, "type": "automatic"},
        default_status=_status(settings),
        description="Live cleanup of type automatic. Guardrails apply.",
    )


def watching_schedules(jobs: CheckJobs, settings: Settings) -> list[dg.ScheduleDefinition]:
    """Return the schedules of the checks and of the verification of backups."""
    return [
        dg.ScheduleDefinition(
            name=name,
            job=job,
            cron_schedule=cron,
            execution_timezone=settings.schedule.timezone,
            default_status=_status(settings),
            description=description,
        )
        for name, job, cron, description in (
            (
                "cleanup_checks_hourly",
                jobs.checks,
                settings.schedule.checks_cron,
                "Alerts when cleanup stopped working.",
            ),
            (
                "verify_backups_weekly",
                jobs.verify,
                settings.schedule.verify_cron,
                "Reads every byte of the backups again.",
            ),
        )
    ]


def _status(settings: Settings) -> dg.DefaultScheduleStatus:
    started = settings.schedule.started
    return dg.DefaultScheduleStatus.RUNNING if started else dg.DefaultScheduleStatus.STOPPED
