"""Whether cleanup keeps what it promises: the questions that are asked from outside of its runs.

A cleanup that silently stopped cannot say so itself. Nothing here changes anything, and nothing takes the lock of live
runs for longer than a glance.
"""

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from cleanup_dagster.backups.manifest import ManifestError, read_manifest
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.policies import load_policies
from cleanup_dagster.database.runs import LiveHistory, live_history, unfinished_live_runs
from cleanup_dagster.filesystem.tree import RootError, RootMissingError
from cleanup_dagster.handles import Plan, Request, Run
from cleanup_dagster.installation import Installation, Progress
from cleanup_dagster.planning import plan_target
from cleanup_dagster.retention.defaults import things
from cleanup_dagster.retention.guardrails import format_bytes
from cleanup_dagster.retention.models import NS_PER_DAY, NS_PER_SECOND, CleanupType, Policy, PolicyProblem, Verdict
from cleanup_dagster.retention.rules import format_age
from cleanup_dagster.retention.times import from_ns
from cleanup_dagster.run_history.planning import plan_runs
from cleanup_dagster.run_history.store import RunStoreError
from cleanup_dagster.run_history.target import RunsTarget
from cleanup_dagster.settings import Target
from cleanup_dagster.workers import WorkerError

_SIGN_OF_LIFE_NS = 3_600 * NS_PER_SECOND


class Overdue(Struct, frozen=True):
    """What of one data type has outlived its retention by more than the grace period.

    `longest_ns` is by how much the worst has, in nanoseconds, and `example` its path. With a `problem` nobody can tell.
    """

    data_type: str
    files: int = 0
    bytes: int = 0
    longest_ns: int = 0
    example: str = ""
    problem: str = ""
    disabled: bool = False

    @property
    def said(self) -> str:
        """The finding in one sentence."""
        if self.problem:
            return self.problem
        if self.disabled:
            return "its policy is disabled or missing, so everything is kept"
        if not self.files:
            return "nothing has outlived its retention by more than the grace period"
        return (
            f"{self.files:,} {things([self.data_type])} ({format_bytes(self.bytes)}) have outlived their retention, "
            f"the worst by {format_age(self.longest_ns)}: {self.example}"
        )


class Silence(Struct, frozen=True):
    """Whether cleanup goes on succeeding. `expected` says that somebody relies on it: a schedule has begun."""

    passed: bool
    expected: bool
    said: str
    hours: float | None = None


def overdue(
    installation: Installation, data_types: frozenset[str], grace_seconds: float, progress: Progress
) -> Iterator[Overdue]:
    """Scan the targets of some data types, and say what of each is there that should have gone.

    The scan's verdicts are removed again: unlike a run's plan, nobody can apply them. Raises DatabaseUnavailable.
    """
    with reading(installation.database) as conn:
        policies = load_policies(conn)
    request = Request(f"check-{uuid.uuid4()}", CleanupType.MANUAL, dry_run=True, executed_by="checks")
    run = Run(request, installation.clock(), policies, ())
    found = {data_type: _policy_of(data_type, policies) for data_type in data_types}
    for target in installation.settings.all_targets:
        if data_types.isdisjoint(target.data_types):
            continue
        if isinstance(target, RunsTarget) and all(found[name].disabled for name in target.data_types):
            continue  # an instance whose runs nobody wants purged need not be one that could be
        for one in _overdue_in(installation, run, target, grace_seconds, progress):
            if one.data_type in found:
                found[one.data_type] = _both(found[one.data_type], one)
    yield from (found[data_type] for data_type in sorted(found))


def _overdue_in(
    installation: Installation, run: Run, target: Target | RunsTarget, grace_seconds: float, progress: Progress
) -> Iterator[Overdue]:
    directory = installation.state.plan(run.request.run_id, target.name).parent
    try:
        plan = _planned(installation, run, target, progress)
        yield from (Overdue(warning.split(":")[0], problem=warning) for warning in plan.warnings)
        yield from _late(plan, int(grace_seconds * NS_PER_SECOND))
    except (RootError, ManifestError, OSError, RunStoreError, WorkerError) as error:
        may_lack = isinstance(target, Target) and target.optional
        if not (may_lack and isinstance(error, RootMissingError)):
            yield from (Overdue(name, problem=f"{target.name}: {error}") for name in target.data_types)
    finally:
        installation.state.remove(directory)


def _planned(installation: Installation, run: Run, target: Target | RunsTarget, progress: Progress) -> Plan:
    if isinstance(target, RunsTarget):
        with installation.run_store() as store:
            return plan_runs(installation, run, target, store, progress)
    return plan_target(installation, run, target, progress)


def _late(plan: Plan, grace_ns: int) -> Iterator[Overdue]:
    assert plan.manifest is not None, "a plan that was made has one"  # noqa: S101
    for verdict in read_manifest(Path(plan.manifest.path), Verdict):
        if verdict.delete and verdict.retention_days is not None:
            late_ns = verdict.age_ns - verdict.retention_days * NS_PER_DAY
            if late_ns > grace_ns:
                item = verdict.candidate
                yield Overdue(item.data_type, 1, item.identity.size, late_ns, f"{plan.root}/{item.path}")


def _policy_of(data_type: str, policies: Mapping[str, Policy | PolicyProblem]) -> Overdue:
    policy = policies.get(data_type)
    if isinstance(policy, PolicyProblem):
        return Overdue(data_type, problem=policy.message)
    return Overdue(data_type, disabled=policy is None or not policy.enabled)


def _both(one: Overdue, other: Overdue) -> Overdue:
    worst = max(one, other, key=lambda overdue: overdue.longest_ns)
    return Overdue(
        one.data_type,
        one.files + other.files,
        one.bytes + other.bytes,
        worst.longest_ns,
        worst.example,
        "; ".join(filter(None, (one.problem, other.problem))),
        one.disabled,
    )


def silence(installation: Installation, silent_after_seconds: float, *, scheduled: bool) -> Silence:
    """Tell whether a live cleanup succeeded within a time. `scheduled` says that the daily schedule is started.

    Nobody expects a cleanup that was never begun: then the answer warns and alarms nobody. From the first live run on,
    also from one that failed, the time counts. Raises DatabaseUnavailable.
    """
    with reading(installation.database) as conn:
        history = live_history(conn)
    expected = scheduled or history.automatic
    since_ns = history.last_success_ns if history.last_success_ns is not None else history.first_started_ns
    if since_ns is None:
        started = "wait for cleanup_daily" if scheduled else "start the schedule cleanup_daily"
        return Silence(False, False, f"no live cleanup was ever begun here; {started}, or run one by hand")
    past_ns = max(installation.clock() - since_ns, 0)
    hours = past_ns / NS_PER_SECOND / 3_600
    if past_ns <= silent_after_seconds * NS_PER_SECOND and history.last_success_ns is not None:
        return Silence(True, expected, f"the last live cleanup succeeded {format_age(past_ns)} ago", hours)
    if past_ns <= silent_after_seconds * NS_PER_SECOND:
        return Silence(False, False, f"no live cleanup has succeeded here yet{_latest(history)}", hours)
    since = "since the first one was begun" if history.last_success_ns is None else "since then"
    return Silence(
        False,
        expected,
        f"no live cleanup has succeeded for {format_age(past_ns)}, {since}{_latest(history)}; "
        + ("look at its last run" if scheduled else "the schedule cleanup_daily is not started"),
        hours,
    )


def _latest(history: LiveHistory) -> str:
    latest = history.latest
    if latest is None or latest.finished_ns == history.last_success_ns:
        return ""
    message = f": {latest.message}" if latest.message else ""
    return f"; run {latest.run_id[:8]} ended as {latest.status.value}{message}"


def interrupted(installation: Installation) -> str:
    """Say which live run died and waits for the next one to settle it; empty when none does.

    A run counts as dead when nobody holds the lock of live runs here and it gave no sign of life for an hour: the lock
    alone says nothing on another host, and between the steps of a run in several processes. Raises DatabaseUnavailable.
    """
    with reading(installation.database) as conn:
        runs = unfinished_live_runs(conn)
    long_ago_ns = installation.clock() - _SIGN_OF_LIFE_NS
    dead = [run for run in runs if run.heartbeat_ns < long_ago_ns]
    if not dead:
        return ""
    with installation.state.lock() as free:
        if not free and dead[-1].state_id == installation.state.id:
            return ""
    run = dead[-1]
    return (
        f"run {run.run_id[:8]} of process {run.pid} on {run.host} did not end; its last sign of life was "
        f"{from_ns(run.heartbeat_ns):%Y-%m-%d %H:%M:%S} UTC. The next live run there settles it"
    )
