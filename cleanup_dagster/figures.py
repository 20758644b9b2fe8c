"""The figures of a run that are worth plotting: of each data type, of the backup store, of the disks.

Deleted, held by backups and really freed are three numbers: a copy on the same disk frees nothing until it is pruned.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from cleanup_dagster.backups.packed import archive_name
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.run_targets import held_bytes
from cleanup_dagster.filesystem.space import same_filesystem, usage
from cleanup_dagster.handles import CheckedPlan, Counts, Deleted, Plan, merge, total
from cleanup_dagster.installation import Installation
from cleanup_dagster.inventory import list_backups
from cleanup_dagster.retention.models import Stock, Tally
from cleanup_dagster.run_history.store import is_runs_root
from cleanup_dagster.settings import Settings


class TypeFigures(Struct, frozen=True):
    """One data type at the end of a run.

    `present` is None when a target was not judged, or only by the list of a reviewed plan.

    `freed_bytes` is what was deleted less what its copies take on the same filesystem, `held_bytes` what all backups
    hold of this type; None when the database did not say.
    """

    data_type: str
    targets: tuple[str, ...]
    present: Stock | None
    expired: Tally
    deleted: Tally
    freed_bytes: int
    held_bytes: int | None
    problem: str = ""


class StoreFigures(Struct, frozen=True):
    """The backups that are kept: sets (one per run and target), files, and the bytes that were backed up."""

    sets: int
    kept: Tally
    oldest_age_ns: int
    directories: tuple[str, ...]


class Disk(Struct, frozen=True):
    """One filesystem, and which of our directories lie on it."""

    paths: tuple[str, ...]
    free: int
    used_percent: float


def figures_of_types(
    installation: Installation, checked: CheckedPlan, results: tuple[Deleted, ...], held: Mapping[str, int] | None
) -> Iterator[TypeFigures]:
    """Yield the figures of every data type that the run's targets name."""
    counts: dict[str, Counts] = {}
    freed: dict[str, int] = {}
    for result in results:
        counts = merge(counts, result.counts)
        for data_type, size in _freed(installation, result).items():
            freed[data_type] = freed.get(data_type, 0) + size
    for data_type in sorted({name for plan in checked.plans for name in plan.data_types}):
        plans = [plan for plan in checked.plans if data_type in plan.data_types]
        problems = [plan.problem for plan in plans if plan.problem]
        deleted = counts.get(data_type, Counts()).deleted
        yield TypeFigures(
            data_type,
            tuple(plan.target for plan in plans),
            None if problems or checked.run.request.plan else _left(data_type, plans, deleted),
            total(plan.expired.get(data_type, Tally()) for plan in plans),
            deleted,
            freed.get(data_type, 0),
            None if held is None else held.get(data_type, 0),
            "; ".join(problems),
        )


def held_by_type(installation: Installation) -> dict[str, int]:
    """Return how many bytes the backups hold of each data type. Raises DatabaseUnavailable."""
    with reading(installation.database) as conn:
        return held_bytes(conn, installation.state.id)


def figures_of_store(installation: Installation) -> StoreFigures:
    """Return what the backups hold. Raises DatabaseUnavailable."""
    backups = list_backups(installation)
    now_ns = installation.clock()
    return StoreFigures(
        len(backups),
        total(Tally(one.files, one.bytes) for one in backups),
        max((now_ns - one.made_ns for one in backups), default=0),
        tuple(sorted({one.directory for one in backups} | {str(installation.settings.backup.directory)})),
    )


def disks(settings: Settings) -> list[Disk]:
    """Return the filesystems of targets and backups, the fullest first. What cannot be looked at is left out."""
    found: dict[int, Disk] = {}
    for path in (*(target.root for target in settings.targets), *settings.backup_directories):
        try:
            use = usage(path)
        except OSError:
            continue
        paths = (*found[use.device].paths, str(path)) if use.device in found else (str(path),)
        found[use.device] = Disk(paths, use.free, use.used_percent)
    return sorted(found.values(), key=lambda disk: disk.used_percent, reverse=True)


def _left(data_type: str, plans: Sequence[Plan], gone: Tally) -> Stock | None:
    """Return what is left of what a scan found, or None when a scan did not tell its data types apart."""
    if any(plan.scanned.files and not plan.present for plan in plans):
        return None
    stock = Stock()
    for plan in plans:
        stock = stock.plus(plan.present.get(data_type, Stock()))
    return Stock(max(stock.files - gone.files, 0), max(stock.bytes - gone.bytes, 0), stock.oldest_ns)


def _freed(installation: Installation, result: Deleted) -> dict[str, int]:
    """Return by data type what one target's deletion freed where its files were."""
    if is_runs_root(result.plan.root):
        return {}  # rows leave room that a database uses again, and gives back to no disk
    taken = _taken(installation, result)
    copied = total(result.copied.values()).bytes
    freed: dict[str, int] = {}
    for data_type, counts in result.counts.items():
        mine = result.copied.get(data_type, Tally()).bytes
        freed[data_type] = max(counts.deleted.bytes - (taken * mine // copied if copied else 0), 0)
    return freed


def _taken(installation: Installation, result: Deleted) -> int:
    """Return what the copies of one target take on the filesystem of its files."""
    run_id, directory = result.plan.run.request.run_id, installation.backup_directory(result.plan.run.request)
    if result.plan.run.request.skip_backup:
        return 0
    try:
        if not same_filesystem(directory, Path(result.plan.root)):
            return 0
        return (directory / archive_name(run_id, result.plan.target)).stat().st_size
    except OSError:  # no archive: as many bytes as were copied
        return total(result.copied.values()).bytes
