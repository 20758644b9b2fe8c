"""Why one of Dagster's runs is kept or would go: by the newest plan that judged it.

Dagster's storage is open to the jobs alone, so nothing is judged anew here; a dry run does that.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cleanup_dagster.backups.manifest import Header, ManifestError, read_header, read_manifest
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.policies import load_policies
from cleanup_dagster.database.run_targets import KeptBackups
from cleanup_dagster.explaining import Copy, Explanation, OutsideError, copy_of
from cleanup_dagster.installation import Installation
from cleanup_dagster.inventory import kept_backups
from cleanup_dagster.planning import within_limits
from cleanup_dagster.retention.models import NS_PER_DAY, Outcome, Reason, Receipt, State, Verdict
from cleanup_dagster.retention.rules import sentence
from cleanup_dagster.retention.times import from_ns
from cleanup_dagster.run_history.eligibility import is_run_id, run_id_of
from cleanup_dagster.run_history.store import ROOT
from cleanup_dagster.run_history.target import RunsTarget

_PURGED = "it was purged; should it have been restored since, the next plan knows it again"


def run_named(typed: str) -> str | None:
    """Return the id of the run that somebody means by its id or its path; None when it is none of Dagster's runs."""
    run_id = run_id_of(typed) if typed.startswith(f"{ROOT}/") else typed
    return run_id if is_run_id(run_id) else None


def explain_run(installation: Installation, run_id: str) -> Explanation:
    """Say what the newest plan says of a run, and which archives have it. Writes nothing.

    Raises OutsideError when no plan that is kept knows the run, ManifestError, OSError or DatabaseUnavailable.
    """
    target = installation.settings.dagster_runs
    if target is None:
        raise OutsideError(f"no target of kind dagster_runs is configured, so nothing ever touches run {run_id}")
    copies = tuple(sorted(_copies(installation, run_id), key=lambda copy: -copy.deleted_ns))
    planned = _newest_verdict(installation, target, run_id)
    if planned is None or (copies and copies[0].deleted_ns >= planned[0].made_at_ns):
        if not copies:
            raise OutsideError(
                f"no plan that is still kept has judged run {run_id}; make one with `cleanup-operations plan`"
            )
        return Explanation(run_id, False, _PURGED, target.name, copies=copies)
    header, verdict = planned
    with reading(installation.database) as conn:
        policy = within_limits(load_policies(conn), target).get(verdict.candidate.data_type)
    path = f"{header.root}/{verdict.candidate.path}"
    as_of = f"as of the plan of {from_ns(header.made_at_ns):%Y-%m-%d %H:%M} UTC"
    reason = f"{sentence(verdict)}; {as_of}"
    return Explanation(path, True, reason, target.name, verdict, policy, _due_ns(verdict, target), copies)


def _newest_verdict(installation: Installation, target: RunsTarget, run_id: str) -> tuple[Header, Verdict] | None:
    plans = (installation.state.path / "plans").glob(f"*/{target.name}.jsonl.zst")
    found: tuple[Header, Verdict] | None = None
    for path in plans:
        with suppress(ManifestError):  # one that is being written at this moment
            header = read_header(path)
            if found is None or header.made_at_ns > found[0].made_at_ns:
                named = (v for v in read_manifest(path, Verdict) if run_id_of(v.candidate.path) == run_id)
                found = next(((header, verdict) for verdict in named), found)
    return found


def _due_ns(verdict: Verdict, target: RunsTarget) -> int | None:
    candidate = verdict.candidate
    if verdict.delete or verdict.reason is Reason.NOT_EXPIRED:
        expires_ns = candidate.since_ns + (verdict.retention_days or 0) * NS_PER_DAY
        return max(expires_ns, candidate.identity.mtime_ns + target.min_age_ns)
    return None


def _copies(installation: Installation, run_id: str) -> Iterator[Copy]:
    for kept in kept_backups(installation):
        if kept.root.startswith(f"{ROOT}/"):
            yield from (
                copy_of(installation, kept, receipt)
                for receipt in read_manifest(Path(kept.manifest), Receipt)
                if run_id_of(receipt.path) == run_id and _went(installation, kept, receipt)
            )


def _went(installation: Installation, kept: KeptBackups, receipt: Receipt) -> bool:
    """Tell whether the run of cleanup deleted what it had archived: it may have left it after all."""
    outcomes = installation.state.all_outcomes(kept.run_id, kept.target)
    return any(
        outcome.number == receipt.number and outcome.state is State.DELETED
        for manifest in outcomes
        for outcome in read_manifest(manifest, Outcome, torn=True)
    )
