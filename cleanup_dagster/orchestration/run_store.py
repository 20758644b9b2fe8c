# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# Dagster's tables and connections are untyped.
"""The runs of an instance, over the connections of its own storage: they carry its credentials and its tables' names.

Dagster offers `delete_run` alone: ten statements on six connections for one run, the run's row before its events, no
check of its status, and with the events goes what its assets are known by. What is used instead are its table
definitions and the connections of its storage classes, the same in 1.9 to 1.13; `problems` refuses whatever else.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    AssetKeyTable,
    ConcurrencySlotsTable,
    PendingStepsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.runs.schema import BulkActionsTable, InstanceInfo, RunsTable, RunTagsTable
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import SQLAlchemyError

from cleanup_dagster.retention.models import RestoreState, State
from cleanup_dagster.retention.times import to_ns
from cleanup_dagster.run_history.document import Summary, put_logs_back, remove_logs, summary_of
from cleanup_dagster.run_history.eligibility import is_run_id
from cleanup_dagster.run_history.store import ROOT, Doomed, Ended, Keep, Line, RunLogError, RunRow, RunStoreError

RUNS, TAGS, EVENTS, EVENT_TAGS, CHECKS = (
    RunsTable.c,
    RunTagsTable.c,
    SqlEventLogStorageTable.c,
    AssetEventTagsTable.c,
    AssetCheckExecutionsTable.c,
)
#: The tables a run's rows are in, with what is archived of them: every column there is.
ARCHIVED_TABLES = (RunsTable, RunTagsTable, SqlEventLogStorageTable, AssetEventTagsTable, AssetCheckExecutionsTable)

ROOT_TAG, PARENT_TAG, BACKFILL_TAG, RUN_KEY_TAG = (
    "dagster/root_run_id",
    "dagster/parent_run_id",
    "dagster/backfill",
    "dagster/run_key",
)
_DATA_VERSION_TAG = "dagster/data_version"
_MATERIALIZED, _OBSERVED, _PLANNED, _FAILED = (
    "ASSET_MATERIALIZATION",
    "ASSET_OBSERVATION",
    "ASSET_MATERIALIZATION_PLANNED",
    "ASSET_FAILED_TO_MATERIALIZE",
)
#: The events by whose latest one, per asset and partition, Dagster tells the state of an asset.
_STATE_EVENTS = (_MATERIALIZED, _OBSERVED, _PLANNED, _FAILED)
_CHECK_PLANNED = "PLANNED"
_CANCELED = "CANCELED"
_FINISHED = ("SUCCESS", "FAILURE", _CANCELED)


@contextmanager
def meeting(doing: str) -> Generator[None]:
    """Turn what a database says into a RunStoreError: one sentence, without a URL or a statement."""
    try:
        yield
    except (SQLAlchemyError, DagsterPostgresException) as error:
        said = str(getattr(error, "orig", None) or error.__cause__ or error).strip().splitlines()
        raise RunStoreError(f"{doing} failed: {said[0] if said else type(error).__name__}") from None


class StoreOverSql:
    """What both storages have in common: reading runs, and telling what an asset's state depends on."""

    atomic = False

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        manager = instance.compute_log_manager
        local = isinstance(manager, LocalComputeLogManager)
        self._logs = Path(manager._base_dir).resolve() if local else None  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  it has no public name

    @contextmanager
    def runs_connection(self) -> Generator[sa.Connection]:
        """Open a connection to where the runs are."""
        with meeting("Working on Dagster's runs"), self._instance.run_storage.connect() as conn:  # pyright: ignore[reportAttributeAccessIssue]
            yield conn

    @contextmanager
    def index_connection(self) -> Generator[sa.Connection]:
        """Open a connection to where the events of assets are."""
        with meeting("Working on Dagster's events"), self._instance.event_log_storage.index_connection() as conn:  # pyright: ignore[reportAttributeAccessIssue]
            yield conn

    def root(self, *, create: bool) -> str:
        """Return `/dagster_runs/<id of the run storage>`; the id is Dagster's own, made on first use.

        Until then it is `*`: a path that a dry run shows must still hold its run when there is an id.
        """
        with self.runs_connection() as conn:
            found = conn.execute(sa.select(InstanceInfo.c.run_storage_id)).scalar()
        if found is None and create:
            found = self._instance.run_storage.get_run_storage_id()  # pyright: ignore[reportAttributeAccessIssue]
        return f"{ROOT}/{found or '*'}"

    def problems(self) -> list[str]:
        """Return which tables, columns and indexes are missing."""
        found: list[str] = []
        for connect, tables in (
            (self.runs_connection, (RunsTable, RunTagsTable, BulkActionsTable, InstanceInfo)),
            (
                self.index_connection,
                (*ARCHIVED_TABLES[2:], AssetKeyTable, ConcurrencySlotsTable, PendingStepsTable),
            ),
        ):
            with connect() as conn:
                inspector = sa.inspect(conn)
                for table in tables:
                    found += _missing(inspector, table)
                found += self._missing_indexes(inspector, {table.name for table in tables})
        upgrade = "run `dagster instance migrate`"
        return [f"{problem}; {upgrade}" for problem in found]

    def _missing_indexes(self, inspector: Any, tables: set[str]) -> list[str]:
        needed = {"run_tags": "idx_run_tags_run_idx", "event_logs": "idx_events_by_run_id"}
        return [
            f"the table {table} has no index {index}, without which a purge takes hours"
            for table, index in needed.items()
            if table in tables and index not in {one["name"] for one in inspector.get_indexes(table)}
        ]

    def runs(self, keep_tag: str) -> Iterator[RunRow]:
        """Yield every run by its row's id, as a stream."""
        tags = [_tag(key) for key in (ROOT_TAG, PARENT_TAG, BACKFILL_TAG, RUN_KEY_TAG, keep_tag)]
        query = sa.select(
            RUNS.id,
            RUNS.run_id,
            RUNS.pipeline_name,
            RUNS.status,
            RUNS.end_time,
            RUNS.update_timestamp,
            RUNS.create_timestamp,
            *tags,
        ).order_by(RUNS.id)
        with self.runs_connection() as conn:
            for row in conn.execution_options(stream_results=True, max_row_buffer=1_000).execute(query):
                number, run_id, job, status, ended, updated, created, root, parent, backfill, run_key, keep = row
                yield RunRow(
                    number,
                    str(run_id),
                    job or "",
                    status or "unknown",
                    int(ended * 1_000_000_000) if ended is not None else None,
                    _moment(updated or created),
                    root or parent,
                    backfill,
                    run_key,
                    keep,
                )

    def retry_roots(self) -> frozenset[str]:
        """Return the runs that were executed again."""
        with self.runs_connection() as conn:
            query = sa.select(TAGS.value).where(TAGS.key.in_([ROOT_TAG, PARENT_TAG])).distinct()
            return frozenset(value for value in conn.execute(query).scalars() if value)

    def backfills(self) -> Mapping[str, bool]:
        """Return the backfills there are, and whether each has ended."""
        over = {status.value for status in BULK_ACTION_TERMINAL_STATUSES}
        with self.runs_connection() as conn:
            query = sa.select(BulkActionsTable.c.key, BulkActionsTable.c.status)
            return {key: status in over for key, status in conn.execute(query)}

    def present(self, run_ids: Sequence[str]) -> frozenset[str]:
        """Return which runs have a row."""
        with self.runs_connection() as conn:
            return frozenset(conn.execute(sa.select(RUNS.run_id).where(RUNS.run_id.in_(run_ids))).scalars())

    def clear(self, run_id: str, logs: Mapping[str, str]) -> str:
        """Remove the logs of a purged run, as far as they have these sha256, and say why they could not go."""
        try:
            if is_run_id(run_id):
                remove_logs(self._logs, run_id, logs)
        except OSError as error:
            return f"its logs stay: {error.strerror or error}"
        return ""

    def put_logs(self, run_id: str, lines: Callable[[], Iterable[Line]]) -> tuple[RestoreState, str]:
        """Put the logs of a run back whose rows are there again, and say how its restore ended."""
        try:
            return RestoreState.RESTORED, put_logs_back(self._logs, run_id, lines())
        except OSError as error:
            return RestoreState.FAILED, f"its rows are back, its logs are not: {error.strerror or error}"


def _missing(inspector: Any, table: sa.Table) -> list[str]:
    if not inspector.has_table(table.name):
        return [f"there is no table {table.name}"]
    there = {column["name"] for column in inspector.get_columns(table.name)}
    return [f"the table {table.name} has no column {name}" for name in table.c.keys() if name not in there]  # noqa: SIM118 of a collection of columns


def _tag(key: str) -> Any:
    return sa.select(TAGS.value).where(TAGS.run_id == RUNS.run_id, TAGS.key == key).limit(1).scalar_subquery()


def _moment(value: datetime | None) -> int:
    return to_ns(value.replace(tzinfo=timezone.utc)) if value is not None else 0


def kept_events(run_ids: Sequence[str], asset_events: str) -> sa.Select[Any]:
    """Select id, run and type of the events of some runs that tell the state of an asset.

    These are the latest of each type of an asset and partition, and the latest of them with a data version, which need
    not be the same: an observation may have none. Two branches, so that each finds its partial index.
    """
    old = SqlEventLogStorageTable.alias("old")
    columns = (old.c.id, old.c.run_id, old.c.dagster_event_type, old.c.asset_key)
    of_runs = (old.c.run_id.in_(run_ids), old.c.asset_key.is_not(None))
    if asset_events == "keep_all":
        return sa.select(*columns).where(*of_runs)
    newer = SqlEventLogStorageTable.alias("newer")
    same = sa.and_(
        newer.c.asset_key == old.c.asset_key,
        newer.c.dagster_event_type == old.c.dagster_event_type,
        newer.c.id > old.c.id,
    )
    branches: list[Any] = []
    for has_none in (True, False):
        here = old.c.partition.is_(None) if has_none else old.c.partition.is_not(None)
        there = newer.c.partition.is_(None) if has_none else newer.c.partition == old.c.partition
        for versioned in (False, True):
            superseded = sa.select(1).where(same, there, *([_has_version(newer)] if versioned else []))
            branches.append(
                sa.select(*columns).where(
                    *of_runs,
                    old.c.dagster_event_type.in_(_STATE_EVENTS),
                    here,
                    *([_has_version(old)] if versioned else []),
                    ~superseded.exists(),
                )
            )
    union = sa.union(*branches).subquery()
    return sa.select(union.c.id, union.c.run_id, union.c.dagster_event_type, union.c.asset_key)


def _has_version(events: Any) -> Any:
    return sa.select(1).where(EVENT_TAGS.event_id == events.c.id, EVENT_TAGS.key == _DATA_VERSION_TAG).exists()


def kept_checks(run_ids: Sequence[str], asset_events: str) -> sa.Select[Any]:
    """Select the rows of checks of some runs that tell the state of a check: the latest, and the latest that ended."""
    old = AssetCheckExecutionsTable.alias("old")
    columns = (old.c.id, old.c.run_id, old.c.execution_status, old.c.evaluation_event_storage_id, old.c.check_name)
    query = sa.select(*columns).where(old.c.run_id.in_(run_ids))
    if asset_events == "keep_all":
        return query
    newer = AssetCheckExecutionsTable.alias("newer")
    same = (newer.c.asset_key == old.c.asset_key, newer.c.check_name == old.c.check_name, newer.c.id > old.c.id)
    partition = sa.or_(
        newer.c.partition == old.c.partition, sa.and_(newer.c.partition.is_(None), old.c.partition.is_(None))
    )
    latest = ~sa.select(1).where(*same, partition).exists()
    ended = sa.and_(
        old.c.execution_status != _CHECK_PLANNED,
        ~sa.select(1).where(*same, partition, newer.c.execution_status != _CHECK_PLANNED).exists(),
    )
    return query.where(sa.or_(latest, ended))


class Kept(dict[str, str]):
    """Why runs are needed whole, by run; with the ids of the events and check rows that stay of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.events: set[int] = set()
        self.checks: set[int] = set()


def kept_of(conn: sa.Connection, run_ids: Sequence[str], keep: Keep) -> Kept:
    """Return what of some runs the state of assets depends on, at this moment and in this transaction."""
    kept, asset_events = Kept(), keep.asset_events
    for run_id, asset_key in conn.execute(
        sa.select(AssetKeyTable.c.last_run_id, AssetKeyTable.c.asset_key).where(
            AssetKeyTable.c.last_run_id.in_(run_ids)
        )
    ):
        kept.setdefault(run_id, f"it is the latest run of asset {_shown(asset_key)}")
    planned: list[int] = []
    for event_id, run_id, kind, asset_key in conn.execute(kept_events(run_ids, asset_events)):
        kept.events.add(event_id)
        if kind == _PLANNED:
            planned.append(event_id)
        if asset_events == "keep_whole_run":
            kept.setdefault(run_id, f"it holds the latest {kind.lower()} of asset {_shown(asset_key)}")
    for run_id, asset_key in conn.execute(_unfulfilled(planned)) if planned else ():
        kept.setdefault(run_id, f"it was the latest to try asset {_shown(asset_key)}, which was not materialized since")
    for check_id, run_id, status, event_id, name in conn.execute(kept_checks(run_ids, asset_events)):
        kept.checks.add(check_id)
        if event_id is not None:
            kept.events.add(event_id)
        if status == _CHECK_PLANNED:
            kept.setdefault(run_id, f"it was the latest to try check {name}")
        elif asset_events == "keep_whole_run":
            kept.setdefault(run_id, f"it holds the latest result of check {name}")
    return kept


def _unfulfilled(planned: Sequence[int]) -> sa.Select[Any]:
    """Select the runs of planned materializations that were the last to be planned, and did not come about.

    Whether such a partition failed, or is being made, Dagster asks of the run.
    """
    plan, newer = SqlEventLogStorageTable.alias("plan"), SqlEventLogStorageTable.alias("newer")
    same = (newer.c.asset_key == plan.c.asset_key, newer.c.id > plan.c.id)
    partition = sa.or_(
        newer.c.partition == plan.c.partition, sa.and_(newer.c.partition.is_(None), plan.c.partition.is_(None))
    )
    kinds = (_MATERIALIZED, _PLANNED)
    return sa.select(plan.c.run_id, plan.c.asset_key).where(
        plan.c.id.in_(planned),
        ~sa.select(1).where(*same, partition, newer.c.dagster_event_type.in_(kinds)).exists(),
    )


def kept_partitions(runs: sa.Connection, index: sa.Connection, run_ids: Sequence[str], keep: Keep) -> dict[str, str]:
    """Return which runs are the latest of a partition of their job, by which Dagster tells the partition's status.

    The partitions of a job of assets are told by its events. As Dagster does, canceled runs do not count.
    """
    if not keep.job_partitions:
        return {}
    old, newer = RunsTable.alias("old"), RunsTable.alias("newer")
    superseded = sa.select(1).where(
        newer.c.partition_set == old.c.partition_set,
        newer.c.partition == old.c.partition,
        newer.c.id > old.c.id,
        newer.c.status != _CANCELED,
    )
    latest = sa.select(old.c.run_id, old.c.partition, old.c.pipeline_name).where(
        old.c.run_id.in_(run_ids),
        old.c.partition_set.is_not(None),
        old.c.partition.is_not(None),
        old.c.status != _CANCELED,
        ~superseded.exists(),
    )
    found = {
        run_id: f"it is the latest run of partition {part} of job {job}" for run_id, part, job in runs.execute(latest)
    }
    of_assets = sa.select(EVENTS.run_id).where(
        EVENTS.run_id.in_(list(found)), EVENTS.dagster_event_type == _PLANNED, EVENTS.asset_key.is_not(None)
    )
    for run_id in index.execute(of_assets).scalars() if found else ():
        found.pop(run_id, None)
    return found


def _shown(asset_key: str) -> str:
    key = dg.AssetKey.from_db_string(asset_key) if asset_key else None
    return "/".join(key.path) if key is not None else "?"


def still_doomed(
    runs: sa.Connection, index: sa.Connection, groups: Sequence[Sequence[Doomed]], keep: Keep
) -> tuple[dict[str, Ended], Kept]:
    """Return the runs of some groups that must stay after all, as things are now, with the reason; and what is kept.

    Called with the rows of the runs locked.
    """
    members = {one.run_id: number for number, group in enumerate(groups) for one in group}
    found: dict[str, Ended] = {}
    statuses = dict(
        runs.execute(sa.select(RUNS.run_id, RUNS.status).where(RUNS.run_id.in_(list(members)))).tuples().all()
    )
    for run_id in members:
        if run_id not in statuses:
            found[run_id] = Ended(State.GONE, "it was gone before it could be purged")
        elif statuses[run_id] not in _FINISHED:
            found[run_id] = Ended(State.DRIFTED, f"its status is {statuses[run_id]} now")
    again = sa.select(TAGS.run_id, TAGS.value).where(
        TAGS.key.in_([ROOT_TAG, PARENT_TAG]), TAGS.value.in_(list(members))
    )
    for other, of in runs.execute(again):
        if members.get(other) != members[of]:
            found.setdefault(of, Ended(State.DRIFTED, f"it was executed again meanwhile, as run {other}"))
    for table in (ConcurrencySlotsTable, PendingStepsTable):
        for run_id in index.execute(sa.select(table.c.run_id).where(table.c.run_id.in_(list(members)))).scalars():
            found.setdefault(run_id, Ended(State.BUSY, "it holds a concurrency slot"))
    kept = kept_of(index, list(members), keep)
    for run_id, why in (*kept.items(), *kept_partitions(runs, index, list(members), keep).items()):
        found.setdefault(run_id, Ended(State.DRIFTED, f"{why} by now"))
    return found, kept


def compare(one: Doomed, lines: Iterable[Line], now: dict[str, Summary], found: dict[str, Ended]) -> None:
    """Note in `now` what a run is at this moment, and in `found` why it stays when that is not what was archived."""
    try:
        now[one.run_id] = summary_of(lines)
    except RunLogError as error:
        found[one.run_id] = Ended(State.FAILED, str(error))
        return
    if now[one.run_id].sha256 != one.sha256:
        found[one.run_id] = Ended(State.DRIFTED, "its rows or logs have changed since they were archived")


def spare_groups(groups: Sequence[Sequence[Doomed]], found: dict[str, Ended]) -> list[Doomed]:
    """Return the runs of the groups of which none must stay; into `found` goes why the others do."""
    doomed: list[Doomed] = []
    for group in groups:
        staying = next(
            (one.run_id for one in group if one.run_id in found and found[one.run_id].state is not State.GONE), None
        )
        for one in group:
            if one.run_id in found:
                continue
            if staying is None:
                doomed.append(one)
            else:
                found[one.run_id] = Ended(State.DRIFTED, f"of its retries run {staying} stays: {found[staying].detail}")
    return doomed
