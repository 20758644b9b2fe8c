"""When the job runs by itself."""

import dagster as dg

from cleanup_dagster.settings import Settings


def daily_schedule(job: dg.JobDefinition, settings: Settings) -> dg.ScheduleDefinition:
    """Return the daily live cleanup, at 02:00 in the configured zone unless `schedule.cron` says otherwise.

    It is stopped until somebody starts it: installing a cleaner must not delete anything by itself.
    """
    return dg.ScheduleDefinition(
        name="cleanup_daily",
        job=job,
        cron_schedule=settings.schedule.cron,
        execution_timezone=settings.schedule.timezone,
        run_config={"dry_run": False, "type": "automatic"},
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Live cleanup of type automatic. Guardrails apply.",
    )
