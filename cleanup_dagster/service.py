"""The verbs that every face shares: begin, scan, check, back up, delete, audit, prune.

Each takes and returns the small handles of `handles.py`, so that an op of Dagster, a command line or a test can drive
it. What goes wrong inside a step comes back as the handle's `problem`: the audit at the end is always written.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import structs

from cleanup_dagster.applying import back_up_target, delete_target, settle_now, withdraw
from cleanup_dagster.backups.files import BackupError
from cleanup_dagster.backups.manifest import ManifestError
from cleanup_dagster.config_writers import open_to_all
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.errors import DatabaseUnavailable, SchemaMismatch
from cleanup_dagster.database.policies import load_policies
from cleanup_dagster.explaining import Explanation, explain
from cleanup_dagster.filesystem.private import UnsafeDirectoryError
from cleanup_dagster.filesystem.tree import RootError, RootMissingError
from cleanup_dagster.handles import (
    BackedUp,
    CheckedPlan,
    Deleted,
    Plan,
    Pruned,
    Report,
    Request,
    RestoreReport,
    RestoreRequest,
    Run,
    Step,
    merge,
)
from cleanup_dagster.installation import Installation, Progress, RunRefusedError
from cleanup_dagster.inventory import BackupFile, BackupSet, Verification, files_of, list_backups, verify_backups
from cleanup_dagster.overview import PlanOverview, overview_of_saved
from cleanup_dagster.planning import plan_target, refusals, wrong_clock
from cleanup_dagster.pruning import prune_all
from cleanup_dagster.records import Records
from cleanup_dagster.recovery import recover_all
from cleanup_dagster.reporting import conclude
from cleanup_dagster.restoring import restore
from cleanup_dagster.retention.defaults import things
from cleanup_dagster.retention.guardrails import BYPASSABLE, Refusal
from cleanup_dagster.retention.models import CleanupType, PolicyProblem
from cleanup_dagster.reviewed import load_plan, save_plan, tripped_by
from cleanup_dagster.run_history.explaining import explain_run, run_named
from cleanup_dagster.run_history.planning import blank_plan, plan_runs
from cleanup_dagster.run_history.purging import back_up_runs, delete_runs
from cleanup_dagster.run_history.store import RunStoreError
from cleanup_dagster.run_history.target import DATA_TYPE, RunsTarget
from cleanup_dagster.watch import Watch
from cleanup_dagster.workers import WorkerError

#: What a step may meet in the world. Anything else is a bug: it ends the same way, with its traceback in the log.
MET = (
    BackupError,
    DatabaseUnavailable,
    ManifestError,
    OSError,
    RootError,
    RunRefusedError,
    RunStoreError,
    SchemaMismatch,
    UnsafeDirectoryError,
    WorkerError,
)

_log = logging.getLogger(__name__)


def no_progress(_: int) -> None:
    """Report progress to nobody."""


class CleanupService:
    """The verbs of one installation. Not thread-safe: a run's mutating steps follow one another."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    def backup_directory(self, request: Request) -> Path:
        """Return where a run's copies go before anything is deleted."""
        return self._installation.backup_directory(request)

    def begin(self, request: Request) -> Run:
        """Start a run: read the policies, and for a live one take the lock, settle what died, and reserve its row.

        Raises:
            DatabaseUnavailable: the policies cannot be read, so nothing may be judged.
            RunLockedError: another live run is at work.
            RunRefusedError: the request contradicts itself, the database is not this installation's, or an interrupted
                run cannot be settled, or anybody can change the configuration.
            OSError: the configuration is not there any more.
        """
        if request.skip_backup and request.cleanup_type is not CleanupType.EMERGENCY:
            raise RunRefusedError(f"skip_backup goes with type emergency only, not {request.cleanup_type.value}")
        installation = self._installation
        with reading(installation.database) as conn:
            policies = load_policies(conn)
        problems = [f"{p.data_type}: {p.message}" for p in policies.values() if isinstance(p, PolicyProblem)]
        doubts = self._doubts()
        recovered: list[str] = []
        if request.dry_run:
            problems += doubts
        else:
            if doubts:
                raise RunRefusedError("; ".join(doubts))
            installation.lock()
            recovered = list(recover_all(installation))
        now_ns = installation.clock()
        if request.plan:
            if request.dry_run:
                raise RunRefusedError(
                    f"plan {request.plan} is applied by a live run; leave out plan, or set dry_run: false"
                )
            load_plan(installation, request.plan, policies, now_ns)
        installation.reserve(request, now_ns)
        names = installation.names
        run = Run(request, now_ns, policies, names, tuple(problems), tuple(recovered))
        return self._relieved(run) if request.disk_pressure else run

    def _doubts(self) -> list[str]:
        """Return what is said against changing anything with this configuration and this database."""
        doubts = (self._installation.stranger(), open_to_all(self._installation.settings.config_file))
        return [doubt for doubt in doubts if doubt]

    def _relieved(self, run: Run) -> Run:
        """Prune what is over before anything is judged: it would fill the disk until the end of the run."""
        pruned = self.prune(run)
        return structs.replace(run, pruned=pruned.copies, problems=(*run.problems, *pruned.problems))

    def things(self, target_name: str) -> str:
        """Return what the items of a target are called, `files` or `runs`. Raises RunRefusedError: it is no target."""
        target = self._installation.runs_target(target_name) or self._installation.target(target_name)
        return things(target.data_types)

    def scan(self, run: Run, target_name: str, progress: Progress = no_progress) -> Plan:
        """Judge everything in one target and write its plan. Changes nothing, whatever the run is."""
        runs = self._installation.runs_target(target_name)
        if runs is not None:
            return self._scan_runs(run, runs, progress)
        target = self._installation.target(target_name)
        blank = Plan(run, target.name, str(target.root), target.data_types, None)
        try:
            progress(0)  # who watches may stop the run here, and after each batch
            return plan_target(self._installation, run, target, progress)
        except RootMissingError as error:
            if target.optional:
                return _noted(blank, f"{error}; there is nothing to clean yet")
            return _failed(blank, f"{error}; create it, or correct the target's root")
        except MET as error:
            return _failed(blank, str(error))

    def _scan_runs(self, run: Run, target: RunsTarget, progress: Progress) -> Plan:
        blank = blank_plan(run, target)
        if not self._installation.has_runs:
            return _noted(blank, "runs are at hand only to the job, on an instance that keeps them")
        if run.request.skip_backup:
            return _noted(blank, "no run is ever purged without its archive, so skip_backup leaves all of them")
        if run.request.disk_pressure:
            return _noted(blank, "a run for a full disk leaves them: what goes from a database is not free on the disk")
        try:
            progress(0)
            with self._installation.run_store() as store:
                return plan_runs(self._installation, run, target, store, progress)
        except MET as error:
            policy = run.policies.get(DATA_TYPE)
            wanted = policy is not None and (isinstance(policy, PolicyProblem) or policy.enabled)
            # An instance on MySQL has the default target, too: while nobody wants it purged, that is no failure.
            return _failed(blank, str(error)) if wanted else _noted(blank, str(error))

    def check(self, run: Run, plans: Sequence[Plan]) -> CheckedPlan:
        """Hold the whole plan against the guardrails. A dry run meets the same ones, reports them, and keeps its plan.

        Raises DatabaseUnavailable, or OSError when the plan cannot be kept.
        """
        tripped = list(refusals(self._installation, run, plans))
        meant = bool(run.request.plan) or run.request.cleanup_type is CleanupType.EMERGENCY
        overruled = BYPASSABLE if meant else frozenset[object]()
        stopping = tuple(refusal for refusal in tripped if refusal.guardrail not in overruled)
        bypassed = tuple(refusal for refusal in tripped if refusal.guardrail in overruled)
        checked = CheckedPlan(run, tuple(plans), stopping, bypassed)
        if run.request.dry_run:
            save_plan(self._installation, checked)
        return checked

    def back_up(self, plan: Plan, progress: Progress = no_progress) -> BackedUp:
        """Back up what one plan deletes and commit the intent. On any problem the copies go again, and nothing else."""
        if plan.problem or plan.manifest is None or not plan.deletable.files:
            return BackedUp(plan)
        try:
            progress(0)
            runs = self._installation.runs_target(plan.target)
            if runs is None:
                return back_up_target(self._installation, plan, progress)
            with self._installation.run_store() as store:
                return back_up_runs(self._installation, runs, store, plan, progress)
        except MET as error:
            return self._backup_failed(plan, str(error))
        except Exception as error:  # noqa: BLE001 a bug must not keep the audit from being written
            _log.exception("backing up %s failed", plan.target)
            return self._backup_failed(plan, f"{type(error).__name__}: {error}")

    def _backup_failed(self, plan: Plan, problem: str) -> BackedUp:
        said = f"{plan.target}: {problem}; nothing of it was deleted"
        try:
            withdraw(self._installation, plan)
        except MET as error:
            return BackedUp(
                plan, problem=f"{said}, and its copies stay until the next live run ({error})", unsettled=True
            )
        return BackedUp(plan, problem=said)

    def delete(self, backed_up: BackedUp, progress: Progress = no_progress) -> Deleted:
        """Delete what one target's committed receipts name, item by item."""
        plan = backed_up.plan
        if backed_up.problem:
            return Deleted(plan, problem=backed_up.problem, unsettled=backed_up.unsettled)
        try:
            progress(0)
            runs = self._installation.runs_target(plan.target)
            if runs is None or backed_up.receipts is None:
                return delete_target(self._installation, backed_up, progress)
            with self._installation.run_store() as store:
                return delete_runs(self._installation, runs, store, backed_up, progress)
        except MET as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 as above
            _log.exception("deleting in %s failed", plan.target)
            problem = f"{type(error).__name__}: {error}"
        return self._stopped(backed_up, f"{plan.target}: {problem}; it stopped there")

    def _stopped(self, backed_up: BackedUp, problem: str) -> Deleted:
        """Account for a deletion that broke off, now if that is possible and else in the next live run."""
        plan = backed_up.plan
        try:
            settled = settle_now(self._installation, plan)
        except MET as error:
            said = f"{problem}, and the next live run settles the rest ({error})"
            return Deleted(plan, backed_up.copied, backed_up.counts, problem=said, unsettled=True)
        return Deleted(
            plan,
            backed_up.copied,
            merge(backed_up.counts, settled.counts),
            settled.open_checks,
            problem=f"{problem}; what was left is untouched and comes up again in the next run",
        )

    def audit(self, checked: CheckedPlan, results: Sequence[Deleted]) -> Report:
        """Write the audit and end the run. Raises DatabaseUnavailable; the next live run then writes it."""
        return conclude(self._installation, checked, results)

    def prune(self, run: Run) -> Pruned:
        """Remove backups whose time is over, and plans, manifests and logs past theirs. A dry run removes nothing."""
        if run.request.dry_run:
            return Pruned()
        try:
            self._installation.lock()
            doubts = tuple(doubt.message for doubt in wrong_clock(self._installation, run))
            if doubts:  # a clock ten years fast would take every backup there is
                return Pruned(problems=tuple(f"expired backups were not pruned: {doubt}" for doubt in doubts))
            return prune_all(self._installation, run.now_ns)
        except MET as error:
            return Pruned(problems=(f"expired backups were not pruned: {error}",))

    def restore(self, request: RestoreRequest, progress: Progress = no_progress) -> RestoreReport:
        """Put back what a run deleted. Raises what is in `MET`, before anything is written or after saying how far."""
        return restore(self._installation, request, progress)

    def note_progress(self, run_id: str, step: Step) -> None:
        """Write down how far a run is, for faces in other processes. A full disk costs the note and nothing else."""
        with contextlib.suppress(OSError):
            self._installation.state.write_progress(run_id, msgspec.json.encode(step))

    def progress_of(self, run_id: str) -> Step | None:
        """Return how far a run said last that it is, or None."""
        try:
            content = self._installation.state.read_progress(run_id)
            return None if content is None else msgspec.json.decode(content, type=Step)
        except (msgspec.MsgspecError, OSError):
            return None

    @property
    def watch(self) -> Watch:
        """Whether cleanup works, and the figures to plot: what is asked from outside of a run."""
        return Watch(self._installation)

    @property
    def records(self) -> Records:
        """What the database remembers and people may change: policies, holds, runs and audit."""
        return Records(self._installation)

    def explain(self, path: str, progress: Progress = no_progress) -> Explanation:
        """Say what governs the file at an absolute path, or one of Dagster's runs. Changes nothing.

        Raises OutsideError when no target's root holds it, or no plan knows it, else what is in `MET`.
        """
        dagster_run = run_named(path)
        if dagster_run is not None:
            return explain_run(self._installation, dagster_run)
        return explain(self._installation, path, progress)

    def reviewed_plan(self, run_id: str) -> PlanOverview:
        """Return what applying a dry run's plan would take. Raises RunRefusedError when it may not be applied."""
        return overview_of_saved(self._installation, run_id)

    def require_applicable(self, run_id: str) -> None:
        """Raise RunRefusedError, saying why, when a dry run's plan may not be applied."""
        with reading(self._installation.database) as conn:
            policies = load_policies(conn)
        load_plan(self._installation, run_id, policies, self._installation.clock())

    def tripped_by(self, run_id: str) -> tuple[Refusal, ...]:
        """Return the guardrails that a kept plan trips."""
        return tripped_by(self._installation, run_id)

    def expired_backups(self) -> list[BackupSet]:
        """Return the backups that `prune_backups` would remove now. Raises DatabaseUnavailable."""
        now_ns = self._installation.clock()
        return [backups for backups in self.backups() if backups.expires_ns < now_ns]

    def prune_backups(self) -> Pruned:
        """Remove backups whose time is over without a run, under the lock of live runs.

        Raises RunRefusedError when another live run is at work, the database is not this installation's, or anybody can
        change the configuration.
        """
        if doubts := self._doubts():
            raise RunRefusedError("; ".join(doubts))
        nobody = Request("", CleanupType.MANUAL, False, "")
        return self.prune(Run(nobody, self._installation.clock(), {}, ()))

    def backed_up_files(self, of_run: str) -> Iterator[BackupFile]:
        """Yield each file that a run backed up and where its copy lies. Raises ManifestError or DatabaseUnavailable."""
        return files_of(self._installation, of_run)

    def backups(self, of_run: str | None = None) -> list[BackupSet]:
        """Return what backups there are and until when. Raises DatabaseUnavailable."""
        return list_backups(self._installation, of_run)

    def verify_backups(self, progress: Progress = no_progress, of_run: str | None = None) -> Verification:
        """Read every byte of the backups again. Raises what is in `MET`."""
        return verify_backups(self._installation, progress, of_run)


def _noted(plan: Plan, note: str) -> Plan:
    return structs.replace(plan, note=f"{plan.target}: {note}")


def _failed(plan: Plan, problem: str) -> Plan:
    return structs.replace(plan, problem=f"{plan.target}: {problem}")
