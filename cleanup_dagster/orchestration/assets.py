# pyright: reportUnknownMemberType=false
# Dagster leaves parts of its own signatures unknown.
"""What Dagster's asset pages show: each data type, the backup store, the disks and the runs, as observed by every run.

They are external assets: nothing materializes them. Their observations carry numbers, which the UI plots over time.
"""

from collections.abc import Iterator, Sequence

import dagster as dg

from cleanup_dagster.figures import Disk, StoreFigures, TypeFigures
from cleanup_dagster.handles import Report, Run, total
from cleanup_dagster.orchestration import metadata
from cleanup_dagster.retention.defaults import DAGSTER_RUNS, DATA_TYPES, DEFAULT_POLICIES, things
from cleanup_dagster.retention.guardrails import format_bytes
from cleanup_dagster.retention.models import NS_PER_DAY, NS_PER_SECOND
from cleanup_dagster.run_history.target import RunsTarget
from cleanup_dagster.settings import Settings, Target

GROUP = "cleanup"
BACKUPS = dg.AssetKey(["cleanup", "system", "backups"])
DISK = dg.AssetKey(["cleanup", "system", "disk"])
RUNS = dg.AssetKey(["cleanup", "system", "runs"])

_ABOUT = {policy.data_type: policy.description for policy in DEFAULT_POLICIES}


def key_of(data_type: str) -> dg.AssetKey:
    """Return the asset of a data type."""
    return dg.AssetKey(["cleanup", data_type])


def targets_of(settings: Settings) -> dict[str, list[Target | RunsTarget]]:
    """Return the targets of every data type that has a policy by default or a target, in order."""
    found: dict[str, list[Target | RunsTarget]] = {name: [] for name in DATA_TYPES}
    for target in settings.all_targets:
        for data_type in target.data_types:
            found.setdefault(data_type, []).append(target)
    return found


def asset_specs(settings: Settings) -> list[dg.AssetSpec]:
    """Return every asset there is under a configuration."""
    return [
        *(_of_type(data_type, targets) for data_type, targets in targets_of(settings).items()),
        dg.AssetSpec(
            BACKUPS,
            group_name=GROUP,
            description="The copies of what was deleted, until they are pruned.",
            metadata={"directories": ", ".join(map(str, settings.backup_directories))},
        ),
        dg.AssetSpec(
            DISK,
            group_name=GROUP,
            description="The filesystems of targets and backups. The plotted figures are those of the fullest.",
        ),
        dg.AssetSpec(
            RUNS,
            group_name=GROUP,
            description="The runs of the job `cleanup`, as the tables cleanup_runs and cleanup_audit have them.",
        ),
    ]


def _of_type(data_type: str, targets: Sequence[Target | RunsTarget]) -> dg.AssetSpec:
    about = _ABOUT.get(data_type, "A data type of this platform")
    where = "; ".join(map(_where, targets))
    return dg.AssetSpec(
        key_of(data_type),
        group_name=GROUP,
        description=f"{about}." if targets else f"No target configured: nothing of this type is looked at. {about}.",
        metadata={"targets": where or "no target configured"},
    )


def _where(target: Target | RunsTarget) -> str:
    if isinstance(target, RunsTarget):
        return f"{target.name}: the runs of this instance ({', '.join(target.job_names)})"
    return f"{target.name}: {target.root} ({', '.join(target.patterns)})"


def of_types(run: Run, figures: Iterator[TypeFigures]) -> Iterator[dg.AssetObservation]:
    """Yield an observation of each data type. One that was not judged has its problem and no number."""
    for one in figures:
        yield dg.AssetObservation(key_of(one.data_type), description=_said(run, one), metadata=_shown(run, one))


def _said(run: Run, one: TypeFigures) -> str:
    if one.problem:
        return f"Not judged: {one.problem}"
    what = things([one.data_type])
    if run.request.dry_run:
        return f"{one.expired.files:,} {what} ({format_bytes(one.expired.bytes)}) are expired; this was a dry run"
    return (
        f"{one.deleted.files:,} of {one.expired.files:,} expired {what} deleted ({format_bytes(one.deleted.bytes)}, "
        f"of which {format_bytes(one.freed_bytes)} are free now)"
    )


def _shown(run: Run, one: TypeFigures) -> metadata.Metadata:
    shown: metadata.Metadata = {"dry_run": run.request.dry_run, "targets": ", ".join(one.targets)}
    what = things([one.data_type])
    if one.problem:
        shown["problem"] = one.problem
    if one.present is not None:
        shown[f"{what}_present"] = one.present.files
        if one.data_type != DAGSTER_RUNS:  # whose bytes are known of the expired alone
            shown["bytes_present"] = one.present.bytes
        shown["oldest_age_days"] = round(one.present.oldest_ns / NS_PER_DAY, 2)
    if not one.problem:
        shown[f"{what}_expired"] = one.expired.files
        shown["bytes_expired"] = one.expired.bytes
    shown[f"{what}_deleted"] = one.deleted.files
    shown["bytes_deleted"] = one.deleted.bytes
    shown["bytes_freed"] = one.freed_bytes
    if one.held_bytes is not None:
        shown["bytes_held_by_backups"] = one.held_bytes
    return shown


def of_run(report: Report, seconds: float) -> dg.AssetObservation:
    """Return the observation of one run, which took so many seconds up to its audit."""
    deleted = total(counts.deleted for counts in report.counts.values())
    request = report.checked.run.request
    shown: metadata.Metadata = {
        "status": report.status,
        "type": request.cleanup_type.value,
        "dry_run": request.dry_run,
        "executed_by": request.executed_by,
        "seconds": round(seconds, 2),
        "files_scanned": total(plan.scanned for plan in report.checked.plans).files,
        "files_expired": total(plan.deletable for plan in report.checked.plans).files,
        "files_deleted": deleted.files,
        "bytes_deleted": deleted.bytes,
        "files_failed": total(counts.failed for counts in report.counts.values()).files,
    }
    if report.problems:
        shown["problems"] = "\n".join(report.problems)
    return dg.AssetObservation(RUNS, description=metadata.summary(report), metadata=shown)


def of_store(store: StoreFigures) -> dg.AssetObservation:
    """Return the observation of the backup store."""
    kept = store.kept
    return dg.AssetObservation(
        BACKUPS,
        description=f"{kept.files:,} files ({format_bytes(kept.bytes)}) can be restored",
        metadata={
            "files_held": kept.files,
            "bytes_held": kept.bytes,
            "backup_sets": store.sets,
            "oldest_age_days": round(store.oldest_age_ns / NS_PER_DAY, 2),
            "directories": ", ".join(store.directories),
        },
    )


def of_disks(disks: Sequence[Disk]) -> dg.AssetObservation | None:
    """Return the observation of the disks, or None when there is none to be seen."""
    if not disks:
        return None
    fullest = disks[0]
    return dg.AssetObservation(
        DISK,
        description=f"{fullest.paths[0]} has {format_bytes(fullest.free)} free ({fullest.used_percent:.1f} % used)",
        metadata={
            "bytes_free": fullest.free,
            "used_percent": round(fullest.used_percent, 2),
            "filesystems": metadata.table(
                {"directories": "string", "free": "string", "used_percent": "float"},
                [
                    {
                        "directories": ", ".join(disk.paths),
                        "free": format_bytes(disk.free),
                        "used_percent": round(disk.used_percent, 2),
                    }
                    for disk in disks
                ],
            ),
        },
    )


def seconds_since(moment_ns: int, now_ns: int) -> float:
    """Return the seconds between two moments."""
    return (now_ns - moment_ns) / NS_PER_SECOND
