"""What Dagster loads."""

import dagster as dg

from cleanup_dagster.orchestration.job import cleanup_job
from cleanup_dagster.orchestration.resources import CleanupResource, DatabaseResource, FilesystemResource
from cleanup_dagster.orchestration.restoring import restore_job
from cleanup_dagster.orchestration.schedules import daily_schedule
from cleanup_dagster.settings import load_settings

_settings = load_settings()
_cleanup = cleanup_job(_settings)
_filesystem = FilesystemResource()
_database = DatabaseResource()

defs = dg.Definitions(
    jobs=[_cleanup, restore_job],
    schedules=[daily_schedule(_cleanup, _settings)],
    resources={
        # In one process the small handles need no pickles on the disk; several processes need Dagster's own store.
        **({"io_manager": dg.mem_io_manager} if _settings.executor == "in_process" else {}),
        "filesystem": _filesystem,
        "database": _database,
        "cleanup": CleanupResource(filesystem=_filesystem, database=_database),
    },
)
