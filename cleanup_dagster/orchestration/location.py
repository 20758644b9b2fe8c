"""The code location: jobs, assets, checks, schedules, sensors and resources, as a configuration wants them."""

import dagster as dg

from cleanup_dagster.orchestration.assets import asset_specs
from cleanup_dagster.orchestration.checks import asset_checks, check_jobs
from cleanup_dagster.orchestration.job import cleanup_job
from cleanup_dagster.orchestration.resources import CleanupResource, DatabaseResource, FilesystemResource
from cleanup_dagster.orchestration.restoring import restore_job
from cleanup_dagster.orchestration.schedules import daily_schedule, watching_schedules
from cleanup_dagster.orchestration.sensors import disk_pressure_sensor, failure_sensor
from cleanup_dagster.settings import Settings


def code_location(settings: Settings) -> dg.Definitions:
    """Return what Dagster loads. A process that serves more than one configuration makes one for each."""
    cleanup = cleanup_job(settings)
    checks = check_jobs(settings)
    filesystem, database = FilesystemResource(), DatabaseResource()
    return dg.Definitions(
        jobs=[cleanup, restore_job, *checks],
        assets=asset_specs(settings),
        asset_checks=asset_checks(settings),
        schedules=[daily_schedule(cleanup, settings), *watching_schedules(checks, settings)],
        sensors=[disk_pressure_sensor(settings), failure_sensor([cleanup, restore_job, *checks], settings)],
        executor=dg.in_process_executor,  # of the checks that somebody evaluates in the UI
        resources={
            # In one process the small handles need no pickles on the disk; several processes need Dagster's own store.
            **({"io_manager": dg.mem_io_manager} if settings.executor == "in_process" else {}),
            "filesystem": filesystem,
            "database": database,
            "cleanup": CleanupResource(filesystem=filesystem, database=database),
        },
    )
