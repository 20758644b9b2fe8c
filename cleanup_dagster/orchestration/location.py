"""The code location: the jobs, the schedule and the resources, as a configuration wants them."""

import dagster as dg

from cleanup_dagster.orchestration.job import cleanup_job
from cleanup_dagster.orchestration.resources import CleanupResource, DatabaseResource, FilesystemResource
from cleanup_dagster.orchestration.restoring import restore_job
from cleanup_dagster.orchestration.schedules import daily_schedule
from cleanup_dagster.settings import Settings


def code_location(settings: Settings) -> dg.Definitions:
    """Return what Dagster loads. A process that serves more than one configuration makes one for each."""
    cleanup = cleanup_job(settings)
    filesystem, database = FilesystemResource(), DatabaseResource()
    return dg.Definitions(
        jobs=[cleanup, restore_job],
        schedules=[daily_schedule(cleanup, settings)],
        resources={
            # In one process the small handles need no pickles on the disk; several processes need Dagster's own store.
            **({"io_manager": dg.mem_io_manager} if settings.executor == "in_process" else {}),
            "filesystem": filesystem,
            "database": database,
            "cleanup": CleanupResource(filesystem=filesystem, database=database),
        },
    )
