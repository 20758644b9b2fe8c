"""Reviewed plans: a dry run's plan is kept, and a live run may name it and take exactly that list.

The saved plan says under which policies and targets it was made. When either differs today the plan is refused with
the difference shown, because what was reviewed is no longer what would happen. Every item is judged again for holds,
and its identity is checked again before it is touched: what drifted is skipped, what is new is left alone.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from cleanup_dagster.backups.manifest import ManifestRef, read_manifest, verify_manifest
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.runs import RunStatus, get_run
from cleanup_dagster.handles import CheckedPlan
from cleanup_dagster.installation import Installation, RunRefusedError
from cleanup_dagster.retention.guardrails import Refusal
from cleanup_dagster.retention.models import NS_PER_SECOND, Policy, PolicyProblem, Verdict
from cleanup_dagster.retention.rules import Policies
from cleanup_dagster.retention.times import from_ns
from cleanup_dagster.settings import Target

_HOUR_NS = 3_600 * NS_PER_SECOND
#: What of a target's configuration decides which files a plan names.
_DECIDES = (
    "kind",
    "data_type",
    "root",
    "patterns",
    "excludes",
    "recursive",
    "max_depth",
    "min_age",
    "age_from",
    "delete_unreadable",
)
_DECIDES_RUNS = (
    "kind",
    "statuses",
    "job_names",
    "keep_last_per_job",
    "keep_tag",
    "purge_run_keys",
    "asset_events",
    "keep_job_partitions",
    "min_age",
)


class SavedPlan(Struct, frozen=True):
    """A dry run's plan as it was reviewed."""

    run_id: str
    made_at_ns: int
    policies: dict[str, Policy]
    problems: dict[str, PolicyProblem]
    targets: dict[str, dict[str, str]]
    manifests: dict[str, ManifestRef]
    refusals: tuple[Refusal, ...] = ()


def save_plan(installation: Installation, checked: CheckedPlan) -> None:
    """Keep a dry run's plan beside its manifests, for `plan_retention_hours`. Raises OSError."""
    run = checked.run
    saved = SavedPlan(
        run.request.run_id,
        run.now_ns,
        {name: policy for name, policy in run.policies.items() if isinstance(policy, Policy)},
        {name: policy for name, policy in run.policies.items() if isinstance(policy, PolicyProblem)},
        _targets(installation),
        {plan.target: plan.manifest for plan in checked.plans if plan.manifest is not None},
        (*checked.refusals, *checked.bypassed),
    )
    installation.state.write_saved_plan(run.request.run_id, msgspec.json.encode(saved))


def load_plan(installation: Installation, run_id: str, policies: Policies, now_ns: int) -> SavedPlan:
    """Return a dry run's plan, if it may still be applied. Raises RunRefusedError saying why not."""
    again = "make a new dry run and review it"
    with reading(installation.database) as conn:
        run = get_run(conn, run_id)
    if run is None:
        raise RunRefusedError(f"there is no run {run_id!r} whose plan could be applied; name the run id of a dry run")
    if not run.dry_run:
        raise RunRefusedError(f"run {run_id} was live; only the plan of a dry run can be applied")
    if run.status is not RunStatus.DONE:
        raise RunRefusedError(f"dry run {run_id} ended {run.status.value}, so its plan is not complete; {again}")
    content = installation.state.read_saved_plan(run_id)
    hours = installation.settings.plan_retention_hours
    if content is None or now_ns - run.started_ns > hours * _HOUR_NS:
        made = f"{from_ns(run.started_ns):%Y-%m-%d %H:%M} UTC"
        raise RunRefusedError(f"the plan of {run_id} was made {made} and is kept for {hours} hours; {again}")
    try:
        saved = msgspec.json.decode(content, type=SavedPlan)
    except msgspec.MsgspecError as error:
        raise RunRefusedError(f"the plan of {run_id} is damaged ({error}); {again}") from None
    differences = [*_policy_differences(saved, policies), *_target_differences(saved, installation)]
    if differences:
        raise RunRefusedError(f"the plan of {run_id} was made under other rules: {'; '.join(differences)}; {again}")
    return saved


def tripped_by(installation: Installation, run_id: str) -> tuple[Refusal, ...]:
    """Return the guardrails that a kept plan trips, as its dry run found them; none when it is kept no longer."""
    content = installation.state.read_saved_plan(run_id)
    try:
        return () if content is None else msgspec.json.decode(content, type=SavedPlan).refusals
    except msgspec.MsgspecError:
        return ()


def reviewed_verdicts(saved: SavedPlan, target: str) -> Iterator[Verdict]:
    """Yield the verdicts of a reviewed plan that delete, in their order. Raises ManifestError when it was changed."""
    manifest = saved.manifests.get(target)
    if manifest is None:
        return
    verify_manifest(manifest)
    for verdict in read_manifest(Path(manifest.path), Verdict):
        if verdict.delete:
            yield verdict


def _policy_differences(saved: SavedPlan, policies: Policies) -> Iterator[str]:
    then: dict[str, Policy | PolicyProblem] = {**saved.policies, **saved.problems}
    for name in sorted({*then, *policies}):
        before, now = then.get(name), policies.get(name)
        if _rule(before) != _rule(now):
            yield f"{name} was {_rule(before)} and is {_rule(now)}"


def _rule(policy: Policy | PolicyProblem | None) -> str:
    if policy is None:
        return "without a policy"
    if isinstance(policy, PolicyProblem):
        return f"invalid ({policy.message})"
    if not policy.enabled:
        return "disabled"
    return f"kept {policy.retention_days} days" + (f" and the last {policy.keep_last}" if policy.keep_last else "")


def _target_differences(saved: SavedPlan, installation: Installation) -> Iterator[str]:
    today = _targets(installation)
    for name in sorted({*saved.targets, *today}):
        before, now = saved.targets.get(name), today.get(name)
        if before is None:
            yield f"target {name} is new"
        elif now is None:
            yield f"target {name} is not configured any more"
        else:
            yield from (f"{name}.{key} was {before[key]} and is {now[key]}" for key in now if before[key] != now[key])


def _targets(installation: Installation) -> dict[str, dict[str, str]]:
    targets = {target.name: _decisive(target) for target in installation.settings.targets}
    runs = installation.settings.dagster_runs
    if runs is not None:
        targets[runs.name] = {key: str(getattr(runs, key)) for key in _DECIDES_RUNS}
    return targets


def _decisive(target: Target) -> dict[str, str]:
    return {key: str(getattr(target, key)) for key in _DECIDES}
