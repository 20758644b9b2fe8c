# pyright: reportUnknownMemberType=false
# Dagster leaves parts of its own signatures unknown.
"""Asset checks: the promises of cleanup, asked from outside of its runs, and the jobs that ask without a click.

A check that fails with severity ERROR tells the webhook, when there is one; a warning tells nobody.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import dagster as dg

from cleanup_dagster.orchestration import metadata
from cleanup_dagster.orchestration.assets import BACKUPS, RUNS, key_of, targets_of
from cleanup_dagster.orchestration.launching import InstanceError, state_of_schedule
from cleanup_dagster.orchestration.ops import log_progress
from cleanup_dagster.orchestration.resources import CleanupResource
from cleanup_dagster.retention.defaults import things
from cleanup_dagster.retention.models import NS_PER_DAY
from cleanup_dagster.service import MET, no_progress
from cleanup_dagster.settings import Settings

OVERDUE = "nothing_overdue"
SUCCEEDS = dg.AssetCheckKey(RUNS, "cleanup_succeeds")
INTERRUPTED = dg.AssetCheckKey(RUNS, "no_interrupted_run")
VERIFY = dg.AssetCheckKey(BACKUPS, "backups_verify")

_SHOWN = 50  # damaged copies; `cleanup-operations backups verify` names them all
_ERROR, _WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN


def asset_checks(settings: Settings) -> list[dg.AssetChecksDefinition]:
    """Return every check there is under a configuration."""
    overdue = _overdue_keys(settings)
    return [*([_nothing_overdue(overdue)] if overdue else []), cleanup_succeeds, no_interrupted_run, backups_verify]


class CheckJobs(NamedTuple):
    """The jobs that evaluate the checks. Dagster has no public name for what `define_asset_job` returns."""

    checks: Any
    verify: Any


def check_jobs(settings: Settings) -> CheckJobs:
    """Return the jobs that evaluate the checks: the quick ones together, and the one that reads every backup."""
    quick = [*_overdue_keys(settings), SUCCEEDS, INTERRUPTED]
    return CheckJobs(
        dg.define_asset_job(
            "cleanup_checks",
            selection=dg.AssetSelection.checks(*quick),
            executor_def=dg.in_process_executor,
            description="Ask whether cleanup keeps its promises. Scans every target; deletes nothing.",
        ),
        dg.define_asset_job(
            "verify_backups",
            selection=dg.AssetSelection.checks(VERIFY),
            executor_def=dg.in_process_executor,
            description="Read every byte of the backups again. Changes nothing.",
        ),
    )


def _overdue_keys(settings: Settings) -> list[dg.AssetCheckKey]:
    return [dg.AssetCheckKey(key_of(name), OVERDUE) for name, targets in targets_of(settings).items() if targets]


def _nothing_overdue(keys: list[dg.AssetCheckKey]) -> dg.AssetChecksDefinition:
    about = "Nothing has outlived its retention by more than the grace period (alerts.overdue_grace)."
    specs = [dg.AssetCheckSpec(OVERDUE, asset=key.asset_key, description=about) for key in keys]

    @dg.multi_asset_check(name=OVERDUE, specs=specs, can_subset=True)
    def nothing_overdue(
        context: dg.AssetCheckExecutionContext, cleanup: CleanupResource
    ) -> Iterator[dg.AssetCheckResult]:
        asked = frozenset(key.asset_key.path[-1] for key in context.selected_asset_check_keys)
        try:
            found = list(cleanup.service().watch.overdue(asked, no_progress))
        except MET as error:
            raise dg.Failure(f"{error}. Nobody can tell what is overdue.", allow_retries=False) from None
        for one in found:
            shown: metadata.Metadata = {
                f"{things([one.data_type])}_overdue": one.files,
                "bytes_overdue": one.bytes,
                "longest_overdue_days": round(one.longest_ns / NS_PER_DAY, 2),
            }
            well = not one.files and not one.problem
            key = dg.AssetCheckKey(key_of(one.data_type), OVERDUE)
            yield _result(context, cleanup, key, one.said, None if well else _ERROR, shown)

    return nothing_overdue


@dg.asset_check(
    asset=RUNS, name=SUCCEEDS.name, description="A live cleanup succeeded within the time alerts.silent_after."
)
def cleanup_succeeds(context: dg.AssetCheckExecutionContext, cleanup: CleanupResource) -> dg.AssetCheckResult:
    """Notice a cleanup that stopped: the dead man's switch."""
    try:
        scheduled = state_of_schedule(context.instance).running
    except InstanceError as error:
        context.log.info("whether the schedule is started is not known here: %s", error)  # an instance in memory only
        scheduled = False
    try:
        silence = cleanup.service().watch.silence(scheduled=scheduled)
    except MET as error:
        raise dg.Failure(f"{error}. Nobody can tell whether cleanup succeeds.", allow_retries=False) from None
    severity = None if silence.passed else _ERROR if silence.expected else _WARN
    shown: metadata.Metadata = {} if silence.hours is None else {"hours_since_success": round(silence.hours, 2)}
    return _result(context, cleanup, SUCCEEDS, silence.said, severity, shown)


@dg.asset_check(asset=RUNS, name=INTERRUPTED.name, description="No run died and waits for the next one to settle it.")
def no_interrupted_run(context: dg.AssetCheckExecutionContext, cleanup: CleanupResource) -> dg.AssetCheckResult:
    """Notice a run that died, whose files may wait in quarantine."""
    try:
        said = cleanup.service().watch.interrupted()
    except MET as error:
        raise dg.Failure(f"{error}. Nobody can tell whether a run died.", allow_retries=False) from None
    severity = _ERROR if said else None
    return _result(context, cleanup, INTERRUPTED, said or "every run that began has ended", severity, {})


@dg.asset_check(
    asset=BACKUPS, name=VERIFY.name, description="Every byte of every backup is what was written. Reads all of them."
)
def backups_verify(context: dg.AssetCheckExecutionContext, cleanup: CleanupResource) -> dg.AssetCheckResult:
    """Notice a backup that could not be restored, before it is needed."""
    service = cleanup.service()
    try:
        found = service.verify_backups(log_progress(context.op_execution_context, service, "verified"))
    except MET as error:
        raise dg.Failure(f"{error}. The backups were not verified.", allow_retries=False) from None
    shown: metadata.Metadata = {
        "files_sound": found.sound.files,
        "bytes_sound": found.sound.bytes,
        "files_damaged": len(found.damaged),
    }
    said = f"{found.sound.files:,} backups are what was written"
    if found.damaged:
        first = found.damaged[0]
        said = f"{len(found.damaged):,} backups cannot be relied on, the first: {first.path}: {first.problem}"
        shown["damaged"] = metadata.table(
            {"run_id": "string", "path": "string", "backup": "string", "problem": "string"},
            [
                {"run_id": one.run_id, "path": one.path, "backup": one.backup, "problem": one.problem}
                for one in found.damaged[:_SHOWN]
            ],
        )
    return _result(context, cleanup, VERIFY, said, _ERROR if found.damaged else None, shown)


def _result(
    context: dg.AssetCheckExecutionContext,
    cleanup: CleanupResource,
    key: dg.AssetCheckKey,
    said: str,
    severity: dg.AssetCheckSeverity | None,
    shown: metadata.Metadata,
) -> dg.AssetCheckResult:
    """Return a result and tell whoever is to be told of it. Without a severity the check passed."""
    trouble = f"{key.name} of {key.asset_key.path[-1]}"
    (context.log.info if severity is None else context.log.warning)("%s: %s", trouble, said)
    if severity is not _WARN:
        unsent = cleanup.service().watch.tell(trouble, said if severity is _ERROR else "")
        if unsent:
            context.log.error("nobody was told of %s: %s", trouble, unsent)
    return dg.AssetCheckResult(
        passed=severity is None,
        asset_key=key.asset_key,
        check_name=key.name,
        severity=severity or _ERROR,
        description=said,
        metadata=shown,
    )
