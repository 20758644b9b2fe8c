# pyright: reportUnknownMemberType=false
# Dagster leaves parts of its own signatures unknown.
"""The job `restore`: undo of a whole run, or of chosen files, as a run of its own with its own audit."""

from typing import Any

import dagster as dg
from pydantic import Field

from cleanup_dagster import progress
from cleanup_dagster.handles import RestoreRequest
from cleanup_dagster.inventory import things_in
from cleanup_dagster.orchestration import metadata
from cleanup_dagster.orchestration.config import root_schema
from cleanup_dagster.orchestration.ops import executed_by, log_progress
from cleanup_dagster.orchestration.resources import CleanupResource
from cleanup_dagster.service import MET
from cleanup_dagster.tags import LOCK_TAG


class RestoreConfig(dg.Config):
    """The run config of the job `restore`: `{"run_id": "...", "dry_run": false}` undoes a whole run."""

    run_id: str = Field(description="The cleanup run to undo, in full.")
    dry_run: bool = Field(
        default=True, description="Only verify the backups and say what would be restored. Nothing is written."
    )
    paths: list[str] = Field(
        default_factory=list,
        description="Absolute paths or globs (* within a name, ** across directories); empty for everything.",
    )
    data_types: list[str] = Field(default_factory=list, description="Only these data types; empty for all.")


@dg.config_mapping(config_schema=root_schema(RestoreConfig))
def restore_config(config: dict[str, Any]) -> dict[str, Any]:
    """Put the config at the root of the launchpad."""
    return {"ops": {"restore_files": {"config": config}}}


@dg.op
def restore_files(context: dg.OpExecutionContext, config: RestoreConfig, cleanup: CleanupResource) -> None:
    """Verify each backup and put its file back, replacing nothing; hold what was restored."""
    request = RestoreRequest(
        run_id=context.run_id,
        of_run=config.run_id.strip(),
        executed_by=executed_by(context),
        paths=tuple(config.paths),
        data_types=tuple(config.data_types),
        dry_run=config.dry_run,
    )
    try:
        service = cleanup.service()
        sets, whole = service.backups(request.of_run), not request.paths and not request.data_types
        of = sum(one.files for one in sets) if whole else 0
        report = service.restore(request, log_progress(context, service, "restored", of, things_in(sets)))
    except MET as error:
        progress.hand_over(error)
        raise dg.Failure(str(error), allow_retries=False) from None
    progress.hand_over(report)
    context.add_output_metadata(metadata.of_restore(report))
    if report.problems:
        raise dg.Failure("; ".join(report.problems), metadata=metadata.of_restore(report), allow_retries=False)


@dg.job(
    name="restore",
    description="Put back what a cleanup run deleted. Dry unless told otherwise; never replaces a file.",
    config=restore_config,
    executor_def=dg.in_process_executor,
    tags=LOCK_TAG,
)
def restore_job() -> None:
    """Undo a cleanup run."""
    restore_files()
