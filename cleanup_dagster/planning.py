"""From a target to its plan: scan, judge, write every verdict down; then hold the whole plan against the guardrails.

Nothing here can change a file.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from msgspec import structs

from cleanup_dagster.backups.manifest import Header, Kind, segment_of
from cleanup_dagster.backups.put_back import PutBacks
from cleanup_dagster.collectors.scope import Scope
from cleanup_dagster.collectors.shards import Shard
from cleanup_dagster.database import run_targets
from cleanup_dagster.database.clock import database_now_ns
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.runs import last_run_started, recent_deletions
from cleanup_dagster.filesystem.space import bytes_in_archive, bytes_on_disk, free_bytes, is_volatile, same_filesystem
from cleanup_dagster.filesystem.tree import RootError, open_root, walk
from cleanup_dagster.handles import Plan, Run
from cleanup_dagster.installation import Installation, Progress
from cleanup_dagster.judging import Judged, JudgeTask, Rules, join_judged, judge_target
from cleanup_dagster.retention.defaults import things
from cleanup_dagster.retention.guardrails import (
    BackupSpace,
    Guardrail,
    Refusal,
    backup_refusals,
    clock_refusals,
    plan_refusals,
)
from cleanup_dagster.retention.models import (
    NS_PER_DAY,
    NS_PER_SECOND,
    Candidate,
    Policy,
    PolicyProblem,
)
from cleanup_dagster.retention.rules import KeepLast, Policies
from cleanup_dagster.retention.times import from_ns
from cleanup_dagster.reviewed import load_plan, reviewed_verdicts
from cleanup_dagster.run_history.store import is_runs_root
from cleanup_dagster.run_history.target import RunsTarget
from cleanup_dagster.settings import Target
from cleanup_dagster.workers import WORTH_WORKERS, Job, results_of, run_shards


def plan_target(installation: Installation, run: Run, target: Target, progress: Progress) -> Plan:
    """Judge everything in one target.

    Raises RootError, ManifestError, OSError or DatabaseUnavailable when that is not possible.
    """
    forbidden = installation.settings.root_problem(target)
    if forbidden:
        raise RootError(f"{target.root} {forbidden}")
    run_id, root = run.request.run_id, str(target.root)
    allowed = within_limits(run.policies, target)
    header = Header(Kind.PLAN, run_id, target.name, root, run.now_ns)
    rules = Rules(
        allowed,
        installation.holds(root, run.now_ns),
        _put_backs(installation, target, run.now_ns),
        run.now_ns,
        target.min_age_ns,
        installation.settings.naive_zone,
        _own_directories(installation),
    )
    task = JudgeTask(target.scope, rules, installation.state.plan(run_id, target.name), header)
    judged = _judge(installation, task, _reviewed(installation, run, target), progress)
    return plan_of(installation, run, target, judged, task.header, allowed)


def plan_of(
    installation: Installation, run: Run, target: Target | RunsTarget, judged: Judged, header: Header, allowed: Policies
) -> Plan:
    """Return the plan that verdicts make, and write a live run's into the database.

    `allowed` are the policies by which they were judged. Raises DatabaseUnavailable.
    """
    plan = Plan(
        run,
        target.name,
        header.root,
        target.data_types,
        judged.manifest,
        judged.scanned,
        judged.expired,
        judged.kept,
        judged.largest,
        judged.oldest,
        warnings=tuple(_out_of_bounds(allowed, run.policies, target)),
        present=judged.present,
    )
    if not run.request.dry_run:
        with installation.database.begin() as conn:
            run_targets.record_plan(conn, run.request.run_id, target.name, header.root, plan.scanned, plan.deletable)
    return plan


def _reviewed(installation: Installation, run: Run, target: Target) -> Iterator[Candidate] | None:
    """Return the items of the reviewed plan that the run applies, or None when it makes its own."""
    if not run.request.plan:
        return None
    saved = load_plan(installation, run.request.plan, run.policies, run.now_ns)
    return (verdict.candidate for verdict in reviewed_verdicts(saved, target.name))


def _judge(
    installation: Installation, task: JudgeTask, reviewed: Iterator[Candidate] | None, progress: Progress
) -> Judged:
    workers = installation.settings.workers
    if reviewed is not None or workers == 1 or KeepLast(task.rules.policies) or not _is_large(task.scope):
        return judge_target(task, progress, reviewed)
    jobs = [
        Job("judge", structs.replace(task, path=segment_of(task.path, number), shard=Shard(number, workers)))
        for number in range(workers)
    ]
    parts = results_of(run_shards(jobs, progress), Judged)
    return join_judged(parts, task.path, task.header)


def _is_large(scope: Scope) -> bool:
    """Tell whether there are enough files to pay for worker processes, by counting names up to the threshold."""
    with open_root(scope.root) as root:
        names = walk(root, recursive=scope.recursive, max_depth=scope.max_depth, is_own=lambda _: False)
        return next(islice(names, WORTH_WORKERS, None), None) is not None


def _own_directories(installation: Installation) -> frozenset[tuple[int, int]]:
    ours = (*installation.settings.backup_directories, installation.state.path)
    places = [path for path in ours if path.exists()]
    return frozenset((status.st_dev, status.st_ino) for status in map(Path.stat, places))


def _put_backs(installation: Installation, target: Target, now_ns: int) -> PutBacks:
    oldest_ns = now_ns - installation.settings.backup.retention_days * NS_PER_DAY
    with reading(installation.database) as conn:
        kept = [
            backups
            for backups in run_targets.unpruned_backups(conn, from_ns(now_ns))
            if (backups.target, backups.root) == (target.name, str(target.root))
            and backups.state_id == installation.state.id
            and backups.run_started_ns >= oldest_ns
        ]
    return PutBacks([Path(b.manifest) for b in kept], min((b.run_started_ns for b in kept), default=0))


def within_limits(policies: Policies, target: Target | RunsTarget) -> Policies:
    """Return the policies with those refused whose days lie outside what the target's configuration allows."""
    checked: dict[str, Policy | PolicyProblem] = dict(policies)
    least, most = target.retention_days_min, target.retention_days_max
    for data_type in target.data_types:
        policy = checked.get(data_type)
        if isinstance(policy, Policy) and not least <= policy.retention_days <= most:
            checked[data_type] = PolicyProblem(
                data_type,
                f"retention_days is {policy.retention_days}, but target {target.name} allows {least} to {most}; change "
                "the policy, or the target's retention_days_min and retention_days_max",
            )
    return checked


def _out_of_bounds(allowed: Policies, policies: Policies, target: Target | RunsTarget) -> Iterator[str]:
    """Yield why policies were refused that lie outside of a target's bounds."""
    for data_type in target.data_types:
        policy = allowed.get(data_type)
        if isinstance(policy, PolicyProblem) and policy != policies.get(data_type):
            yield f"{data_type}: {policy.message}"


def refusals(installation: Installation, run: Run, plans: Sequence[Plan]) -> Iterator[Refusal]:
    """Yield every guardrail that a run's plans trip, the bypassable ones too."""
    yield from wrong_clock(installation, run)
    with reading(installation.database) as conn:
        recent = {plan.target: recent_deletions(conn, plan.target, plan.root) for plan in plans}
    for plan in plans:
        limits = installation.limits(plan.target)
        what = things(plan.data_types)
        yield from plan_refusals(plan.target, plan.scanned, plan.deletable, limits, recent[plan.target], what)
    if not run.request.skip_backup:
        yield from _space_refusals(installation, run, plans)
        yield from _useless_backups(installation, run, plans)


def wrong_clock(installation: Installation, run: Run) -> Iterator[Refusal]:
    """Yield what says that this host's clock is wrong. Raises DatabaseUnavailable."""
    skew = installation.settings.clock_skew_seconds
    with reading(installation.database) as conn:
        database_now = database_now_ns(conn)
        last_run = last_run_started(conn, excluding=run.request.run_id)
    if database_now is not None and last_run is not None and last_run > database_now + skew * NS_PER_SECOND:
        last_run = None  # that run's clock was wrong: it must not refuse every run until its moment comes
    yield from clock_refusals(installation.clock(), database_now, last_run, skew)


def _space_refusals(installation: Installation, run: Run, plans: Sequence[Plan]) -> Iterator[Refusal]:
    directory = installation.backup_directory(run.request)
    needed = sum(_room_for(installation, plan) for plan in plans)  # all targets' copies go to the same place
    available, volatile = free_bytes(directory), is_volatile(directory)
    for plan in plans:
        if plan.deletable.files:
            source_volatile = not is_runs_root(plan.root) and is_volatile(Path(plan.root))
            space = BackupSpace(needed, available, volatile, source_volatile)
            yield from backup_refusals(plan.target, space, installation.limits(plan.target))


def _room_for(installation: Installation, plan: Plan) -> int:
    """Return the bytes that the backup of what a plan deletes takes at most."""
    going = plan.deletable
    if not going.files:
        return 0
    packed = installation.writes_archives(plan.run.request, plan.target)
    return bytes_in_archive(going.files, going.bytes) if packed else bytes_on_disk(going.files, going.bytes)


def _useless_backups(installation: Installation, run: Run, plans: Sequence[Plan]) -> Iterator[Refusal]:
    """Refuse copies on the full disk where another one was meant: its mount is missing, and they would free nothing."""
    directory = installation.settings.disk_pressure.backup_directory
    if directory is None or not run.request.disk_pressure:
        return
    for plan in plans:
        if plan.deletable.files and same_filesystem(directory, Path(plan.root)):
            yield Refusal(
                Guardrail.FREE_SPACE,
                plan.target,
                f"{plan.target}: disk_pressure.backup_directory {directory} lies on the filesystem that is to be "
                f"relieved; mount another disk there, or remove the key, and archives go to backup.directory",
            )
