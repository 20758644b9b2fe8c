"""From an instance's runs to the plan of what goes. Reads only; every run gets a verdict with its reason."""

from collections.abc import Iterable, Iterator

from msgspec import structs

from cleanup_dagster.backups.manifest import Header, Kind, batches, read_manifest
from cleanup_dagster.handles import Plan, Run
from cleanup_dagster.installation import Installation, Progress
from cleanup_dagster.judging import write_verdicts
from cleanup_dagster.planning import plan_of, within_limits
from cleanup_dagster.retention.holds import HoldMatcher
from cleanup_dagster.retention.models import Candidate, Identity, Policy, PolicyProblem, Reason, Verdict
from cleanup_dagster.retention.rules import KeepLast, Policies, judge, keep
from cleanup_dagster.reviewed import load_plan, reviewed_verdicts
from cleanup_dagster.run_history.eligibility import (
    candidate_of,
    run_id_of,
    sized,
    still_needed,
    whole_groups,
)
from cleanup_dagster.run_history.store import ROOT, RunStore, RunStoreError, Weight
from cleanup_dagster.run_history.target import DATA_TYPE, RunsTarget

_WEIGHED = 500  # runs per query
_REPORT_EVERY = 1_000


def blank_plan(run: Run, target: RunsTarget) -> Plan:
    """Return a plan of nothing."""
    return Plan(run, target.name, f"{ROOT}/unknown", target.data_types, None)


def plan_runs(installation: Installation, run: Run, target: RunsTarget, store: RunStore, progress: Progress) -> Plan:
    """Judge every run of the instance.

    Raises RunStoreError when its storage is not one that can be purged, ManifestError, OSError or DatabaseUnavailable.
    """
    problems = store.problems()
    if problems:
        raise RunStoreError(f"Dagster's runs cannot be purged here: {'; '.join(problems)}")
    run_id = run.request.run_id
    root = store.root(create=not run.request.dry_run)
    holds = installation.holds(root, run.now_ns)
    allowed = within_limits(run.policies, target)
    policies = _keeping_last(allowed, target.keep_last_per_job)
    keep_last = KeepLast(policies)
    path = installation.state.plan(run_id, target.name)
    header = Header(Kind.PLAN, run_id, target.name, root, run.now_ns)
    reviewed = _reviewed(installation, run, target)
    draft = path.with_suffix(".draft")
    try:
        first = _judge_all(store, target, policies, holds, keep_last, run.now_ns, progress)
        write_verdicts(first, draft, header)
        newest_kept = (keep_last.review(verdict) for verdict in read_manifest(draft, Verdict))
        second = _weighed(_unless_new(newest_kept, reviewed), store, target)
        judged = write_verdicts(_only(whole_groups(second), reviewed), path, header)
    finally:
        draft.unlink(missing_ok=True)
    # Only what is expired was weighed: the bytes of all runs would be a scan of every event there is.
    present = {name: structs.replace(stock, bytes=0) for name, stock in judged.present.items()}
    return plan_of(installation, run, target, structs.replace(judged, present=present), header, allowed)


def _keeping_last(policies: Policies, least: int) -> dict[str, Policy | PolicyProblem]:
    """Return the policies with the newest N of each job kept, by the policy or by the target, whichever is more."""
    kept = dict(policies)
    policy = kept.get(DATA_TYPE)
    if isinstance(policy, Policy):
        newest = max(policy.keep_last, least)
        kept[DATA_TYPE] = Policy(policy.data_type, policy.retention_days, policy.enabled, newest, policy.description)
    return {DATA_TYPE: kept[DATA_TYPE]} if DATA_TYPE in kept else {}


def _reviewed(installation: Installation, run: Run, target: RunsTarget) -> dict[str, Identity] | None:
    """Return the runs of the reviewed plan that is applied, as they were then, or None."""
    if not run.request.plan:
        return None
    saved = load_plan(installation, run.request.plan, run.policies, run.now_ns)
    return {
        run_id_of(verdict.candidate.path): verdict.candidate.identity
        for verdict in reviewed_verdicts(saved, target.name)
    }


def _judge_all(
    store: RunStore,
    target: RunsTarget,
    policies: Policies,
    holds: HoldMatcher,
    keep_last: KeepLast,
    now_ns: int,
    progress: Progress,
) -> Iterator[Verdict]:
    retry_roots, backfills = store.retry_roots(), store.backfills()
    for number, row in enumerate(store.runs(target.keep_tag), start=1):
        candidate: Candidate = candidate_of(row, target, retry_roots, backfills, now_ns)
        keep_last.consider(candidate)
        yield judge(candidate, policies, holds, now_ns, target.min_age_ns)
        if number % _REPORT_EVERY == 0:
            progress(_REPORT_EVERY)


def _weighed(verdicts: Iterable[Verdict], store: RunStore, target: RunsTarget) -> Iterator[Verdict]:
    for batch in batches(verdicts, _WEIGHED):
        doomed = [run_id_of(verdict.candidate.path) for verdict in batch if verdict.delete]
        weights = store.weigh(doomed, target.keep) if doomed else dict[str, Weight]()
        for verdict in batch:
            weight = weights.get(run_id_of(verdict.candidate.path)) if verdict.delete else None
            if weight is None:
                yield verdict
            else:
                yield sized(still_needed(verdict, weight), weight.events, weight.bytes)


def _unless_new(verdicts: Iterable[Verdict], reviewed: dict[str, Identity] | None) -> Iterator[Verdict]:
    """Keep, of a live run that applies a reviewed plan, whatever was not in it or has changed since."""
    for verdict in verdicts:
        then = (reviewed or {}).get(run_id_of(verdict.candidate.path))
        now = verdict.candidate.identity
        if reviewed is None or not verdict.delete:
            yield verdict
        elif then is None:
            yield keep(verdict, Reason.NOT_SELECTED, "it is not in the reviewed plan")
        elif (then.ino, then.mtime_ns) != (now.ino, now.mtime_ns):
            yield keep(verdict, Reason.NOT_SELECTED, "it has changed since the plan was reviewed")
        else:
            yield verdict


def _only(verdicts: Iterable[Verdict], reviewed: dict[str, Identity] | None) -> Iterator[Verdict]:
    """Yield of a reviewed plan's runs alone: all were judged anew, with the others in view."""
    return (v for v in verdicts if reviewed is None or run_id_of(v.candidate.path) in reviewed)
