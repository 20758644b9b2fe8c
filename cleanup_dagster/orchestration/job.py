# pyright: reportUnknownMemberType=false
# Dagster leaves parts of its own signatures unknown.
"""The job `cleanup`: load policies -> scan -> check -> back up -> delete -> audit -> prune."""

import dagster as dg

from cleanup_dagster.orchestration.config import cleanup_config
from cleanup_dagster.orchestration.ops import (
    back_up_files,
    check_plan,
    conclude,
    delete_files,
    load_policies,
    prune_backups,
    scan_files,
    write_audit,
)
from cleanup_dagster.settings import Settings
from cleanup_dagster.tags import LOCK_TAG

#: A process holds the lock of live runs while it works: a second one, even of the same run, would be refused. Forked
#: from one that has loaded the job, steps start twice as fast.
_ONE_PROCESS_AFTER_THE_OTHER = dg.multiprocess_executor.configured(
    {
        "max_concurrent": 1,
        "start_method": {"forkserver": {"preload_modules": ["cleanup_dagster.orchestration.job"]}},
    }
)


def cleanup_job(settings: Settings) -> dg.JobDefinition:
    """Return the job. In one process by default: a process for each of these short steps costs seconds."""
    in_process = settings.executor == "in_process"

    @dg.job(
        name="cleanup",
        description="Find what has outlived its retention, back it up, delete it, prove it. Dry unless told otherwise.",
        config=cleanup_config,
        executor_def=dg.in_process_executor if in_process else _ONE_PROCESS_AFTER_THE_OTHER,
        tags=LOCK_TAG,
    )
    def cleanup() -> None:
        run, tasks = load_policies()
        checked, approved = check_plan(run, tasks.map(scan_files).collect())
        results = approved.map(back_up_files).map(delete_files).collect()
        report = write_audit(checked, results)
        conclude(report, prune_backups(report))

    return cleanup
