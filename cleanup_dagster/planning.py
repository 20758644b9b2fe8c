"""From a target to its plan: scan, judge, write every verdict down; then hold the whole plan against the guardrails.

Nothing here can change a file. The planner gets an open root, rules and a place for its plan, and no object with which
anything could be moved, copied or deleted (a "dry" mark phase that deleted was another product's accident).
"""

import heapq
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from cleanup_dagster.backups.manifest import Header, Kind, ManifestRef, read_manifest, write_manifest
from cleanup_dagster.backups.put_back import PutBacks
from cleanup_dagster.collectors.base import Collector
from cleanup_dagster.collectors.files import FilesCollector
from cleanup_dagster.collectors.operations import OperationsCollector
from cleanup_dagster.database import run_targets
from cleanup_dagster.database.clock import database_now_ns
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.holds import load_holds
from cleanup_dagster.database.runs import last_run_started, recent_deletions
from cleanup_dagster.filesystem.names import to_text
from cleanup_dagster.filesystem.space import bytes_on_disk, free_bytes, is_volatile
from cleanup_dagster.filesystem.tree import Directories, RootError, open_root
from cleanup_dagster.handles import Plan, Run, total
from cleanup_dagster.installation import Installation, Progress
from cleanup_dagster.retention.guardrails import (
    BackupSpace,
    Refusal,
    backup_refusals,
    clock_refusals,
    plan_refusals,
)
from cleanup_dagster.retention.holds import HoldMatcher
from cleanup_dagster.retention.models import (
    NS_PER_DAY,
    NS_PER_SECOND,
    Candidate,
    Policy,
    PolicyProblem,
    Reason,
    Tally,
    Verdict,
)
from cleanup_dagster.retention.rules import KeepLast, Policies, judge, keep
from cleanup_dagster.retention.times import from_ns
from cleanup_dagster.reviewed import load_plan, reviewed_verdicts
from cleanup_dagster.settings import Target

_EXAMPLES = 25  # largest and oldest items that are shown; the manifest has them all
_REPORT_EVERY = 1_000

Key = TypeVar("Key", str, Reason)


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
    with open_root(target.root) as root_fd, closing(_put_backs(installation, target, run.now_ns)) as put_backs:
        rules = Rules(allowed, _holds(installation, target, run.now_ns), put_backs, run.now_ns, target.min_age_ns)
        path = installation.state.plan(run_id, target.name)
        collector = _collector(installation, target)
        reviewed = _reviewed(installation, run, target)
        judged = make_plan(collector, root_fd, rules, path, header, progress, reviewed)
    plan = Plan(
        run,
        target.name,
        root,
        target.data_types,
        judged.manifest,
        judged.scanned,
        judged.expired,
        judged.kept,
        judged.largest,
        judged.oldest,
        warnings=tuple(_out_of_bounds(allowed, run.policies, target)),
    )
    if not run.request.dry_run:
        with installation.database.begin() as conn:
            run_targets.record_plan(conn, run_id, target.name, root, plan.scanned, plan.deletable)
    return plan


def _reviewed(installation: Installation, run: Run, target: Target) -> Iterator[Candidate] | None:
    """Return the items of the reviewed plan that the run applies, or None when it makes its own."""
    if not run.request.plan:
        return None
    saved = load_plan(installation, run.request.plan, run.policies, run.now_ns)
    return (verdict.candidate for verdict in reviewed_verdicts(saved, target.name))


def _collector(installation: Installation, target: Target) -> Collector:
    own: set[tuple[int, int]] = set()
    for path in (installation.settings.backup.directory, installation.state.path):
        if path.exists():
            status = path.stat()
            own.add((status.st_dev, status.st_ino))

    def is_own(status: os.stat_result) -> bool:
        return (status.st_dev, status.st_ino) in own

    if target.kind == "operations":
        return OperationsCollector(target, is_own, installation.settings.naive_zone)
    return FilesCollector(target, is_own)


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


def _holds(installation: Installation, target: Target, now_ns: int) -> HoldMatcher:
    with reading(installation.database) as conn:
        return HoldMatcher(load_holds(conn), to_text(str(target.root)), now_ns)


def within_limits(policies: Policies, target: Target) -> Policies:
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


def _out_of_bounds(allowed: Policies, policies: Policies, target: Target) -> Iterator[str]:
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
        limits = installation.target(plan.target).limits
        yield from plan_refusals(plan.target, plan.scanned, plan.deletable, limits, recent[plan.target])
    if not run.request.skip_backup:
        yield from _space_refusals(installation, plans)


def wrong_clock(installation: Installation, run: Run) -> Iterator[Refusal]:
    """Yield what says that this host's clock is wrong. Raises DatabaseUnavailable."""
    skew = installation.settings.clock_skew_seconds
    with reading(installation.database) as conn:
        database_now = database_now_ns(conn)
        last_run = last_run_started(conn, excluding=run.request.run_id)
    if database_now is not None and last_run is not None and last_run > database_now + skew * NS_PER_SECOND:
        last_run = None  # that run's clock was wrong: it must not refuse every run until its moment comes
    yield from clock_refusals(installation.clock(), database_now, last_run, skew)


def _space_refusals(installation: Installation, plans: Sequence[Plan]) -> Iterator[Refusal]:
    directory = installation.settings.backup.directory
    everything = total(plan.deletable for plan in plans)  # all targets' copies go to the same place
    needed = bytes_on_disk(everything.files, everything.bytes)
    available, volatile = free_bytes(directory), is_volatile(directory)
    for plan in plans:
        if plan.deletable.files:
            space = BackupSpace(needed, available, volatile, is_volatile(Path(plan.root)))
            yield from backup_refusals(plan.target, space, installation.target(plan.target).limits)


class Judged(Struct, frozen=True):
    """The sums of one target's verdicts."""

    manifest: ManifestRef
    scanned: Tally
    expired: dict[str, Tally]
    kept: dict[Reason, Tally]
    largest: tuple[Verdict, ...]
    oldest: tuple[Verdict, ...]


class Rules(Struct, frozen=True):
    """Everything a verdict depends on besides the candidate."""

    policies: Policies
    holds: HoldMatcher
    put_backs: PutBacks
    now_ns: int
    min_age_ns: int


def make_plan(
    collector: Collector,
    root_fd: int,
    rules: Rules,
    path: Path,
    header: Header,
    progress: Progress,
    reviewed: Iterator[Candidate] | None = None,
) -> Judged:
    """Judge everything the collector finds below an open root, and write the verdicts to a new manifest at `path`.

    With `reviewed` only those items are judged again: the newest N were settled when the plan was made.
    """
    keep_last = KeepLast({} if reviewed is not None else rules.policies)
    candidates = collector.scan(root_fd, rules.now_ns) if reviewed is None else reviewed
    directories = Directories(root_fd)
    try:
        verdicts = _judge_all(candidates, collector, directories, rules, keep_last, progress)
        if not keep_last:
            return _write(verdicts, path, header)
        # The newest N are only known at the end, so the verdicts wait in a draft. Memory stays flat.
        draft = path.with_suffix(".draft")
        try:
            _write(verdicts, draft, header)
            return _write((keep_last.review(v) for v in read_manifest(draft, Verdict)), path, header)
        finally:
            draft.unlink(missing_ok=True)
    finally:
        directories.close()


def _judge_all(
    candidates: Iterator[Candidate],
    collector: Collector,
    directories: Directories,
    rules: Rules,
    keep_last: KeepLast,
    progress: Progress,
) -> Iterator[Verdict]:
    for number, candidate in enumerate(candidates, start=1):
        keep_last.consider(candidate)
        verdict = judge(candidate, rules.policies, rules.holds, rules.now_ns, rules.min_age_ns)
        if verdict.delete and candidate.changed_ns >= rules.put_backs.since_ns:
            verdict = _unless_put_back(verdict, collector, directories, rules.put_backs)
        yield verdict
        if number % _REPORT_EVERY == 0:
            progress(_REPORT_EVERY)


def _unless_put_back(verdict: Verdict, collector: Collector, directories: Directories, put_backs: PutBacks) -> Verdict:
    candidate: Candidate = verdict.candidate
    known = put_backs.hashes(candidate.path)
    if not known or collector.content_sha256(candidate, directories) not in known:
        return verdict
    return keep(verdict, Reason.PUT_BACK, "its bytes equal a backup of it that has not expired yet")


def _write(verdicts: Iterator[Verdict], path: Path, header: Header) -> Judged:
    sums = _Sums()
    with write_manifest(path, header) as manifest:
        for verdict in verdicts:
            manifest.write(verdict)
            sums.add(verdict)
        return sums.judged(manifest.close())


class _Sums:
    """Sums and examples of a stream of verdicts, in flat memory."""

    def __init__(self) -> None:
        self._files = 0
        self._bytes = 0
        self._expired: dict[str, list[int]] = {}
        self._kept: dict[Reason, list[int]] = {}
        self._largest: list[tuple[int, int, Verdict]] = []
        self._oldest: list[tuple[int, int, Verdict]] = []

    def add(self, verdict: Verdict) -> None:
        """Count one verdict."""
        size = verdict.candidate.identity.size
        self._files += 1
        self._bytes += size
        if verdict.delete:
            sums = self._expired.setdefault(verdict.candidate.data_type, [0, 0])
            self._show(self._largest, size, verdict)
            self._show(self._oldest, verdict.age_ns, verdict)
        else:
            sums = self._kept.setdefault(verdict.reason, [0, 0])
        sums[0] += 1
        sums[1] += size

    def judged(self, manifest: ManifestRef) -> Judged:
        """Return the sums of everything added."""
        return Judged(
            manifest,
            Tally(self._files, self._bytes),
            _tallies(self._expired),
            _tallies(self._kept),
            _examples(self._largest),
            _examples(self._oldest),
        )

    def _show(self, heap: list[tuple[int, int, Verdict]], rank: int, verdict: Verdict) -> None:
        if len(heap) < _EXAMPLES:
            heapq.heappush(heap, (rank, self._files, verdict))
        elif rank > heap[0][0]:
            heapq.heapreplace(heap, (rank, self._files, verdict))


def _examples(heap: list[tuple[int, int, Verdict]]) -> tuple[Verdict, ...]:
    return tuple(verdict for _, _, verdict in sorted(heap, key=lambda entry: entry[:2], reverse=True))


def _tallies(sums: Mapping[Key, list[int]]) -> dict[Key, Tally]:
    return {key: Tally(files, size) for key, (files, size) in sums.items()}
