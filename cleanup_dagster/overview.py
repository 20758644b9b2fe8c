"""A plan at a glance: files, bytes and the oldest of each data type, for whoever is asked to confirm it."""

from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from cleanup_dagster.backups.manifest import ManifestRef, read_manifest, verify_manifest
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.policies import load_policies
from cleanup_dagster.handles import Plan
from cleanup_dagster.installation import Installation
from cleanup_dagster.retention.models import Tally, Verdict
from cleanup_dagster.reviewed import load_plan


class TypeOverview(Struct, frozen=True):
    """What of one data type is to go, and the age of its oldest item."""

    data_type: str
    files: int
    bytes: int
    oldest_age_ns: int


class PlanOverview(Struct, frozen=True):
    """What a plan takes, by data type."""

    run_id: str
    made_ns: int
    types: tuple[TypeOverview, ...]

    @property
    def total(self) -> Tally:
        """Everything that is to go."""
        return Tally(sum(one.files for one in self.types), sum(one.bytes for one in self.types))


def overview_of_plans(plans: Iterable[Plan]) -> tuple[TypeOverview, ...]:
    """Return what plans take by data type, from their examples where these are complete, else from the manifests.

    Raises ManifestError.
    """
    plans = list(plans)
    oldest: dict[str, int] = {}
    for plan in plans:
        complete = plan.manifest is None or len(plan.oldest) >= plan.deletable.files
        for verdict in plan.oldest if complete else _deleting(plan.manifest):
            _add_age(oldest, verdict)
    sums: dict[str, Tally] = {}
    for plan in plans:
        for data_type, tally in plan.expired.items():
            sums[data_type] = sums.get(data_type, Tally()).plus(tally.files, tally.bytes)
    return _types(sums, oldest)


def overview_of_saved(installation: Installation, run_id: str) -> PlanOverview:
    """Return what a dry run's kept plan takes. Raises RunRefusedError when it may not be applied, or ManifestError."""
    with reading(installation.database) as conn:
        policies = load_policies(conn)
    saved = load_plan(installation, run_id, policies, installation.clock())
    sums: dict[str, Tally] = {}
    oldest: dict[str, int] = {}
    for manifest in saved.manifests.values():
        verify_manifest(manifest)
        for verdict in _deleting(manifest):
            data_type = verdict.candidate.data_type
            sums[data_type] = sums.get(data_type, Tally()).plus(1, verdict.candidate.identity.size)
            _add_age(oldest, verdict)
    return PlanOverview(run_id, saved.made_at_ns, _types(sums, oldest))


def _deleting(manifest: ManifestRef | None) -> Iterable[Verdict]:
    if manifest is None:
        return ()
    return (verdict for verdict in read_manifest(Path(manifest.path), Verdict) if verdict.delete)


def _add_age(oldest: dict[str, int], verdict: Verdict) -> None:
    data_type = verdict.candidate.data_type
    oldest[data_type] = max(oldest.get(data_type, 0), verdict.age_ns)


def _types(sums: dict[str, Tally], oldest: dict[str, int]) -> tuple[TypeOverview, ...]:
    return tuple(
        TypeOverview(data_type, tally.files, tally.bytes, oldest.get(data_type, 0))
        for data_type, tally in sorted(sums.items())
    )
