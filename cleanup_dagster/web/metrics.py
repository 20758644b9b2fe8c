"""The figures for Prometheus, gathered at each scrape from the records and from the snapshot of files."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cleanup_dagster.database.errors import DatabaseUnavailable, SchemaMismatch
from cleanup_dagster.database.runs import RunStatus
from cleanup_dagster.filesystem.private import UnsafeDirectoryError
from cleanup_dagster.filesystem.space import free_bytes
from cleanup_dagster.inventory import list_backups
from cleanup_dagster.retention.models import NS_PER_SECOND, CleanupType
from cleanup_dagster.settings import ConfigError
from cleanup_dagster.web.index import Facet
from cleanup_dagster.web.parts import Parts

_RUNS = 500


class Figures(Collector):
    """The figures of one installation. `cleanup_up` is 0 when its records cannot be read."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def describe(self) -> Iterable[Metric]:
        """Say nothing before a scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every figure that can be had now."""
        try:
            recorded = [*self._records(), *self._space()]
        except (ConfigError, DatabaseUnavailable, SchemaMismatch, UnsafeDirectoryError, OSError):
            recorded = []
        yield GaugeMetricFamily("cleanup_up", "Whether the records can be read", float(bool(recorded)))
        reachable = float(self._parts.launcher.state().reachable)
        yield GaugeMetricFamily("cleanup_dagster_up", "Whether Dagster's webserver answers", reachable)
        yield from recorded
        yield from self._snapshot()

    def _records(self) -> Iterator[Metric]:
        records = self._parts.platform.records
        runs = CounterMetricFamily("cleanup_runs", "Runs that began", labels=["type", "mode", "status"])
        for (kind, dry_run, status), number in sorted(records.run_counts().items(), key=str):
            runs.add_metric([kind.value, "dry" if dry_run else "live", status.value], number)
        yield runs
        totals = records.totals()
        by_type = (
            ("cleanup_deleted_files", "Files deleted", "total_cleaned"),
            ("cleanup_deleted_bytes", "Bytes deleted", "space_saved"),
            ("cleanup_failed_files", "Files that could not be dealt with", "failed"),
        )
        for name, said, field in by_type:
            family = CounterMetricFamily(name, said, labels=["data_type"])
            for data_type, total in totals.items():
                family.add_metric([data_type], getattr(total, field))
            yield family
        done = (
            run.finished_ns
            for run in records.runs(_RUNS)
            if run.status is RunStatus.DONE and not run.dry_run and run.cleanup_type is not CleanupType.RESTORE
        )
        last = next((moment for moment in done if moment), None)
        if last is not None:
            yield GaugeMetricFamily(
                "cleanup_last_success_timestamp_seconds", "When a live run last ended well", last / NS_PER_SECOND
            )

    def _space(self) -> Iterator[Metric]:
        platform = self._parts.platform
        free = free_bytes(platform.settings.backup.directory)
        yield GaugeMetricFamily("cleanup_free_bytes", "Free where the backups go", free)
        held = sum(one.bytes for one in list_backups(platform.installation))
        yield GaugeMetricFamily("cleanup_backup_bytes", "Held by backups", held)

    def _snapshot(self) -> Iterator[Metric]:
        current = self._parts.snapshots.current
        if current is None:
            return
        index = current.index
        files = GaugeMetricFamily("cleanup_expired_files", "Expired at the last scan", labels=["data_type"])
        size = GaugeMetricFamily("cleanup_expired_bytes", "Expired at the last scan", labels=["data_type"])
        oldest = GaugeMetricFamily(
            "cleanup_oldest_expired_age_seconds",
            "Age of the oldest expired item at the last scan",
            labels=["data_type"],
        )
        for data_type in sorted({facet.data_type for facet in index.facets}):

            def goes(facet: Facet, data_type: str = data_type) -> bool:
                return facet.goes and facet.data_type == data_type

            tally, first = index.tally(goes), index.oldest(index.made_ns, goes, 1)
            files.add_metric([data_type], tally.files)
            size.add_metric([data_type], tally.bytes)
            age_ns = index.made_ns - first[0].since_ns if first else 0
            oldest.add_metric([data_type], age_ns / NS_PER_SECOND)
        yield from (files, size, oldest)
        yield GaugeMetricFamily(
            "cleanup_scan_timestamp_seconds", "When the last scan was made", index.made_ns / NS_PER_SECOND
        )
