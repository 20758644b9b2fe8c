"""The steps of the job. Each wraps one verb of the service, logs its progress and shows its result in the UI.

Steps pass handles, and a failure travels in them as a value, because a step after one that raised would never run:
`write_audit` always does, and only the last step makes the run fail.
"""

import contextlib
import getpass
import time
from collections.abc import Iterator

import dagster as dg

from cleanup_dagster import progress
from cleanup_dagster.database.errors import DatabaseUnavailable
from cleanup_dagster.handles import (
    BackedUp,
    CheckedPlan,
    Deleted,
    Plan,
    Pruned,
    Report,
    Request,
    Run,
    ScanTask,
    Step,
    total,
)
from cleanup_dagster.installation import RunRefusedError
from cleanup_dagster.orchestration import assets, metadata
from cleanup_dagster.orchestration.config import CleanupConfig
from cleanup_dagster.orchestration.resources import CleanupResource
from cleanup_dagster.retention.defaults import things
from cleanup_dagster.retention.models import CleanupType
from cleanup_dagster.service import MET, CleanupService
from cleanup_dagster.tags import EXECUTED_BY_TAG

_LOG_EVERY_SECONDS = 5.0
_NOTE_EVERY_SECONDS = 2.0


@dg.op(out={"run": dg.Out(Run), "tasks": dg.DynamicOut(ScanTask)})
def load_policies(
    context: dg.OpExecutionContext, config: CleanupConfig, cleanup: CleanupResource
) -> Iterator[dg.Output[Run] | dg.DynamicOutput[ScanTask]]:
    """Read the policies and begin the run; a live one settles first what an interrupted one left."""
    service = cleanup.service()
    request = Request(
        run_id=context.run_id,
        cleanup_type=CleanupType(config.type),
        dry_run=config.dry_run,
        executed_by=executed_by(context),
        skip_backup=config.skip_backup,
        plan=config.plan.strip(),
        disk_pressure=config.disk_pressure,
    )
    try:
        run = service.begin(request)
    except MET as error:
        progress.hand_over(error)
        raise dg.Failure(f"{error}. Nothing was judged or deleted.", allow_retries=False) from None
    for sentence in run.recovered:
        context.log.info("%s", sentence)
    if run.request.disk_pressure and not run.request.dry_run:
        context.log.info("expired backups were pruned first: %s files", f"{run.pruned.files:,}")
    for problem in run.problems:
        context.log.warning("%s", problem)
    if not run.targets:
        context.log.warning("no target is configured, so there is nothing to clean; add targets to cleanup.yaml")
    yield dg.Output(run, "run", metadata=metadata.of_run(run))
    for name in run.targets:
        yield dg.DynamicOutput(ScanTask(run, name), mapping_key=name, output_name="tasks")


@dg.op
def scan_files(context: dg.OpExecutionContext, task: ScanTask, cleanup: CleanupResource) -> Plan:
    """Find everything one target's patterns name and judge it. Changes nothing."""
    service = cleanup.service()
    judged = log_progress(context, service, "judged", what=service.things(task.target))
    plan = service.scan(task.run, task.target, judged)
    judged.end(plan.scanned.files)
    context.log.info("%s: %s", plan.target, metadata.intention([plan]))
    for said in filter(None, (plan.problem, plan.note, *plan.warnings)):
        context.log.warning("%s", said)
    context.add_output_metadata(metadata.of_plan(plan))
    return plan


@dg.op(out={"checked": dg.Out(CheckedPlan), "plans": dg.DynamicOut(Plan)})
def check_plan(
    context: dg.OpExecutionContext, run: Run, plans: list[Plan], cleanup: CleanupResource
) -> Iterator[dg.Output[CheckedPlan] | dg.DynamicOutput[Plan]]:
    """Hold the whole plan against the guardrails. A dry run ends here; so does a live one that is refused."""
    try:
        checked = cleanup.service().check(run, plans)
    except MET as error:
        progress.hand_over(error)
        raise dg.Failure(f"{error}. Nothing was deleted.", allow_retries=False) from None
    verb = "would stop a live run" if run.request.dry_run else "refused"
    for refusal in checked.refusals:
        context.log.warning("%s: %s", verb, refusal.message)
    for refusal in checked.bypassed:
        context.log.warning("bypassed by type %s: %s", run.request.cleanup_type.value, refusal.message)
    yield dg.Output(checked, "checked", metadata=metadata.of_check(checked))
    if checked.may_delete:
        for plan in checked.plans:
            yield dg.DynamicOutput(plan, mapping_key=plan.target, output_name="plans")


@dg.op
def back_up_files(context: dg.OpExecutionContext, plan: Plan, cleanup: CleanupResource) -> BackedUp:
    """Copy what one target's plan deletes, make the copies durable, verify them, and commit the intent."""
    service = cleanup.service()
    what = things(plan.data_types)
    backed_up = service.back_up(plan, log_progress(context, service, "backed up", plan.deletable.files, what))
    if backed_up.problem:
        context.log.error("%s", backed_up.problem)
    else:
        context.log.info("%s", metadata.saved(backed_up))
    directory = service.backup_directory(plan.run.request)
    context.add_output_metadata(metadata.of_backup(backed_up, str(directory)))
    return backed_up


@dg.op
def delete_files(context: dg.OpExecutionContext, backed_up: BackedUp, cleanup: CleanupResource) -> Deleted:
    """Delete what one target's committed receipts name, each file verified in quarantine."""
    count, what = total(backed_up.copied.values()).files, things(backed_up.plan.data_types)
    service = cleanup.service()
    deleted = service.delete(backed_up, log_progress(context, service, "deleted", count, what))
    if deleted.problem:
        context.log.error("%s", deleted.problem)
    context.log.info("%s", metadata.gone_and_left(deleted))
    context.add_output_metadata(metadata.of_deletion(deleted))
    return deleted


@dg.op(out=dg.Out(Report))
def write_audit(
    context: dg.OpExecutionContext, checked: CheckedPlan, results: list[Deleted], cleanup: CleanupResource
) -> Iterator[dg.AssetObservation | dg.Output[Report]]:
    """Write the audit rows and the log file, end the run, and observe the data types.

    The audit comes first, whatever becomes of the rest. Observations are yielded and not logged: those outlive a
    failure of the step.
    """
    service = cleanup.service()
    try:
        report = service.audit(checked, results)
    except DatabaseUnavailable as error:
        progress.hand_over(error)
        yield from _types(context, checked, results, service)
        raise dg.Failure(
            f"the audit could not be written: {error}. What was deleted is backed up and stands in the manifests; "
            "the next live run writes the audit from them.",
            allow_retries=False,
        ) from None
    progress.hand_over(report)
    yield from _types(context, checked, results, service)
    yield assets.of_run(report, assets.seconds_since(checked.run.now_ns, time.time_ns()))
    yield dg.Output(report, metadata=metadata.of_report(report))


def _types(
    context: dg.OpExecutionContext, checked: CheckedPlan, results: list[Deleted], service: CleanupService
) -> Iterator[dg.AssetObservation]:
    try:
        yield from assets.of_types(checked.run, service.watch.types(checked, results))
    except Exception:  # figures to look at must not make a run fail that did its work
        context.log.exception("the data types could not be observed")


@dg.op(out=dg.Out(Pruned))
def prune_backups(
    context: dg.OpExecutionContext, report: Report, cleanup: CleanupResource
) -> Iterator[dg.AssetObservation | dg.Output[Pruned]]:
    """Remove backups whose retention is over (a dry run removes none), and observe the backups and the disks."""
    pruned = Pruned()
    if not progress.stopping():
        pruned = cleanup.service().prune(report.checked.run)
        progress.hand_over(pruned)
    for problem in pruned.problems:
        context.log.error("%s", problem)
    yield from _stores(context, cleanup)
    shown = {"pruned_files": pruned.copies.files, "pruned_bytes": pruned.copies.bytes}
    yield dg.Output(pruned, metadata=shown)


def _stores(context: dg.OpExecutionContext, cleanup: CleanupResource) -> Iterator[dg.AssetObservation]:
    watch = cleanup.service().watch
    try:
        yield assets.of_store(watch.store())
    except DatabaseUnavailable as error:
        context.log.warning("what the backups hold is not known: %s", error)
    disks = assets.of_disks(watch.disks())
    if disks is not None:
        yield disks


@dg.op
def conclude(context: dg.OpExecutionContext, report: Report, pruned: Pruned) -> None:
    """Say how the run ended, and make it fail visibly when something was refused or failed."""
    problems = list(dict.fromkeys([*report.problems, *pruned.problems]))
    if problems:
        raise dg.Failure("; ".join(problems), metadata=metadata.of_report(report), allow_retries=False)
    context.log.info("%s", metadata.summary(report))
    context.add_output_metadata({"summary": metadata.summary(report)})


def executed_by(context: dg.OpExecutionContext) -> str:
    """Return who asked for a run: its tag, its schedule, or the user of this process."""
    tags = context.run.tags
    if EXECUTED_BY_TAG in tags:
        return tags[EXECUTED_BY_TAG]
    if "dagster/schedule_name" in tags:
        return f"schedule {tags['dagster/schedule_name']}"
    if "dagster/sensor_name" in tags:
        return f"sensor {tags['dagster/sensor_name']}"
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return "unknown user"


class LoggedProgress:
    """The progress of one step: logged every few seconds with its rate, noted for the page, told to whoever watches."""

    def __init__(self, context: dg.OpExecutionContext, service: CleanupService, done: str, of: int, what: str) -> None:
        self._context = context
        self._service = service
        self._done = done
        self._files = of
        self._what = what
        self._of = f" of {of:,}" if of else ""
        self._count = 0
        self._started = self._logged = time.monotonic()
        # The mapping key of a step in a fan-out is its target's name.
        self._told = progress.begin(done, context.get_mapping_key() or "", of, what)
        self._began_ns = time.time_ns()
        self._note()

    def __call__(self, more: int) -> None:
        """Count `more` of them. Raises RunRefusedError when the one who watches wants the step to stop."""
        self._count += more
        now = time.monotonic()
        if now - self._noted >= _NOTE_EVERY_SECONDS:
            self._note()
        if now - self._logged >= _LOG_EVERY_SECONDS:
            self._logged = now
            rate = f"{self._count / (now - self._started):,.0f}"
            count = f"{self._count:,}{self._of} {self._what}"
            self._context.log.info("%s %s, %s a second", self._done, count, rate)
        self._told(more)

    def _note(self) -> None:
        self._noted = time.monotonic()
        target = self._context.get_mapping_key() or ""
        step = Step(self._done, target, self._count, self._files, self._began_ns, time.time_ns(), self._what)
        self._service.note_progress(self._context.run_id, step)

    def end(self, count: int) -> None:
        """Say how many there were in the end; steps count in batches and leave out the last one."""
        with contextlib.suppress(RunRefusedError):  # too late to stop what is over; the next step hears of it
            self._told(max(count - self._count, 0))


def log_progress(
    context: dg.OpExecutionContext, service: CleanupService, done: str, of: int = 0, what: str = "files"
) -> LoggedProgress:
    """Return the progress of a step that is about to begin: what is `done`, with how many of `what` (0: unknown)."""
    return LoggedProgress(context, service, done, of, what)
