# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# Dagster's tables and connections are untyped.
"""Runs on SQLite: rows in `runs.db`, what concerns assets in `index.db`, all events of a run in a file of its own.

No transaction spans the three. A purge deletes from the index, then removes the file, and the row of the run goes last:
whatever a crash leaves has its row still, and gets back from the archive what it lost. Removing the file really frees
its room on the disk; `delete_run` leaves it there.
"""

import os
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import sqlalchemy as sa
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable

from cleanup_dagster.orchestration.run_store import (
    CHECKS,
    EVENT_TAGS,
    EVENTS,
    RUNS,
    TAGS,
    StoreOverSql,
    compare,
    kept_of,
    kept_partitions,
    meeting,
    spare_groups,
    still_doomed,
)
from cleanup_dagster.retention.models import RestoreState, State
from cleanup_dagster.run_history.document import (
    Summary,
    difference,
    entry_of,
    head,
    log_bytes,
    log_lines,
    row_line,
)
from cleanup_dagster.run_history.eligibility import is_run_id
from cleanup_dagster.run_history.store import Doomed, Ended, Keep, Line, RunStoreError, Weight

_SHARD = "shard."  # before the names of tables in a run's own file
_SUFFIXES = ("", "-wal", "-shm")
_RUN_TABLES = ("runs", "run_tags")
_INDEX_TABLES = {
    "event_logs": "run_id = ?",
    "asset_event_tags": "event_id IN (SELECT id FROM event_logs WHERE run_id = ?)",
    "asset_check_executions": "run_id = ?",
}

_encode = msgspec.json.Encoder().encode


class SqliteRunStore(StoreOverSql):
    """The runs of an instance on SQLite, as in `$DAGSTER_HOME/history`."""

    #: What makes an empty event log, once Dagster has made one for a restore.
    _blank_log: Sequence[tuple[str, tuple[Any, ...]]] = ()

    def _missing_indexes(self, inspector: Any, tables: set[str]) -> list[str]:  # noqa: ARG002 a file is small
        return []

    def _shard(self, run_id: str) -> Path:
        if not is_run_id(run_id):
            raise RunStoreError(f"{run_id!r} is no run id")
        return Path(self._instance.event_log_storage.path_for_shard(run_id))  # pyright: ignore[reportAttributeAccessIssue]

    def weigh(self, run_ids: Sequence[str], keep: Keep) -> Mapping[str, Weight]:
        """Return the size of each run's file, and which runs assets need."""
        with self.runs_connection() as runs, self.index_connection() as index:
            needed = kept_of(index, run_ids, keep)
            partitions = kept_partitions(runs, index, run_ids, keep)
        return {
            run_id: Weight(0, self._size(run_id), needed.get(run_id, ""), partitions.get(run_id, ""))
            for run_id in run_ids
        }

    def _size(self, run_id: str) -> int:
        shard, size = self._shard(run_id), log_bytes(self._logs, run_id)
        for suffix in _SUFFIXES:
            with suppress(FileNotFoundError):
                size += shard.with_name(shard.name + suffix).stat().st_size
        return size

    def documents(self, run_ids: Sequence[str]) -> Iterator[tuple[str, Iterator[Line]]]:
        """Yield the document of each run that is there, read from the databases as it is asked for."""
        with self.runs_connection() as runs, self.index_connection() as index:
            for run_id in run_ids:
                if runs.execute(sa.select(RUNS.id).where(RUNS.run_id == run_id)).first() is not None:
                    yield run_id, self._document(runs, index, run_id)

    def _document(self, runs: sa.Connection, index: sa.Connection, run_id: str) -> Iterator[Line]:
        yield head(run_id)
        for table in _RUN_TABLES:
            yield from _rows(runs, table, "run_id = ?", run_id)
        for table, where in _INDEX_TABLES.items():
            yield from _rows(index, table, where, run_id)
        with _opened(self._shard(run_id)) as shard:
            for table in _tables_of(shard):
                columns = shard.execute(f'SELECT * FROM "{table}" ORDER BY id')  # noqa: S608 a name from sqlite_master
                names = [column[0] for column in columns.description]
                yield from (_line(_SHARD + table, names, row) for row in columns)
        yield from log_lines(self._logs, run_id)

    def purge(self, groups: Sequence[Sequence[Doomed]], keep: Keep) -> Mapping[str, Ended]:
        """Delete runs that equal their archives, with the rows of the runs locked from the comparison to the end."""
        run_ids = [one.run_id for group in groups for one in group]
        with self.runs_connection() as runs:
            runs.execute(sa.update(RunsTable).where(RUNS.run_id.in_(run_ids)).values(status=RUNS.status))  # locks
            with self.index_connection() as index:
                found, kept = still_doomed(runs, index, groups, keep)
                found_now: dict[str, Summary] = {}
                for one in (one for group in groups for one in group if one.run_id not in found):
                    compare(one, self._document(runs, index, one.run_id), found_now, found)
                _spare_newest(runs, run_ids, found)
                doomed = [one.run_id for one in spare_groups(groups, found)]
                _delete_from_index(index, doomed, kept.events, kept.checks)
            for run_id in doomed:
                self._unlink(run_id)
            runs.execute(sa.delete(RunTagsTable).where(TAGS.run_id.in_(doomed)))
            runs.execute(sa.delete(RunsTable).where(RUNS.run_id.in_(doomed)))
        return found | {run_id: Ended(State.DELETED, self.clear(run_id, found_now[run_id].logs)) for run_id in doomed}

    def _unlink(self, run_id: str) -> None:
        shard = self._shard(run_id)
        try:
            for suffix in _SUFFIXES:
                with suppress(FileNotFoundError):
                    os.unlink(shard.with_name(shard.name + suffix))  # noqa: PTH108 Path.unlink is the same
        except OSError as error:
            raise RunStoreError(f"the event log of run {run_id} cannot be removed: {error.strerror}") from None

    def restore(self, run_id: str, lines: Callable[[], Iterable[Line]], *, dry_run: bool) -> tuple[RestoreState, str]:
        """Insert the missing rows of a run, its own row last, and say whether it then equals its archive."""
        before = self._compared(run_id, lines)
        if before.problem:
            return RestoreState.EXISTS, before.problem
        if before.is_none:
            return RestoreState.PRESENT, ""
        if dry_run:
            return RestoreState.WOULD_RESTORE, ""
        if before.rows:
            taken = self._taken(lines(), before.rows)
            if taken:
                return RestoreState.FAILED, f"{taken}; nothing was written"
            if any(table.startswith(_SHARD) for table, _ in before.rows) and not self._usable(run_id):
                self._unlink(run_id)  # what a process left that had it open: an empty file, without tables
            self._insert(run_id, lines, before.rows)
            after = self._compared(run_id, lines)
            if after.rows or after.problem:
                return RestoreState.FAILED, after.problem or "rows of it were not taken"
        return self.put_logs(run_id, lines)

    def _compared(self, run_id: str, lines: Callable[[], Iterable[Line]]) -> Any:
        with self.runs_connection() as runs, self.index_connection() as index:
            return difference(lines(), self._document(runs, index, run_id))

    def _usable(self, run_id: str) -> bool:
        with _opened(self._shard(run_id)) as shard:
            return bool(_tables_of(shard))

    def _taken(self, lines: Iterable[Line], missing: set[tuple[str, int]]) -> str:
        """Say which of the missing rows has an id that another run's row has by now. SQLite gives ids again."""
        with self.runs_connection() as runs, self.index_connection() as index:
            for entry in map(entry_of, lines):
                if (entry.t, entry.r.get("id")) not in missing or entry.t.startswith(_SHARD):
                    continue
                conn = runs if entry.t in _RUN_TABLES else index
                found = conn.exec_driver_sql(f"SELECT 1 FROM {_known(entry.t)} WHERE id = ?", (entry.r["id"],)).first()  # noqa: S608 a known name
                if found is not None:
                    return f"another row has the id {entry.r['id']} in {entry.t} by now"
        return ""

    def _insert(self, run_id: str, lines: Callable[[], Iterable[Line]], missing: set[tuple[str, int]]) -> None:
        """Insert the missing rows: of the run's own file, then of the index, then of the run itself."""
        storage: Any = self._instance.event_log_storage
        tables = {table for table, _ in missing}
        if any(table.startswith(_SHARD) for table in tables):
            fresh = not self._shard(run_id).exists()
            if fresh and self._blank_log:
                self._make_log(run_id, lines(), missing)
            else:
                with meeting("Making its event log"), storage.run_connection(run_id) as shard:
                    _insert_rows(shard.exec_driver_sql, lines(), missing, lambda table: table.startswith(_SHARD))
                if fresh:
                    with _opened(self._shard(run_id)) as made:
                        self._blank_log = _blank(made)
        if not tables.isdisjoint(_INDEX_TABLES):
            with self.index_connection() as index:
                _insert_rows(index.exec_driver_sql, lines(), missing, lambda table: table in _INDEX_TABLES)
        if not tables.isdisjoint(_RUN_TABLES):
            with self.runs_connection() as runs:
                _insert_rows(runs.exec_driver_sql, lines(), missing, lambda table: table in _RUN_TABLES)

    def _make_log(self, run_id: str, lines: Iterable[Line], missing: set[tuple[str, int]]) -> None:
        """Make a run's own file as Dagster made one before, with all its rows or none: Dagster alone takes 0.3 s."""
        try:
            with closing(sqlite3.connect(self._shard(run_id), isolation_level=None)) as shard:
                shard.execute("PRAGMA journal_mode=WAL")
                shard.execute("BEGIN IMMEDIATE")
                for statement, values in self._blank_log:
                    shard.execute(statement, values)
                _insert_rows(shard.execute, lines, missing, lambda table: table.startswith(_SHARD))
                shard.execute("COMMIT")
        except sqlite3.Error as error:
            raise RunStoreError(f"Making its event log failed: {error}") from None

    def maintain(self) -> None:
        """Do nothing: the events' files are gone, and pages of the others are used again."""


def _spare_newest(runs: sa.Connection, run_ids: Sequence[str], found: dict[str, Ended]) -> None:
    """Leave the runs of the newest rows for later: SQLite would give their ids again, and nothing could go back."""
    for columns in (RUNS, TAGS):
        newest = runs.execute(sa.select(columns.run_id).order_by(columns.id.desc()).limit(1)).scalar()
        if newest is not None and newest in run_ids:
            found.setdefault(newest, Ended(State.BUSY, "it has the newest row of all; a later run takes it"))


def _known(table: str) -> str:
    if table not in _RUN_TABLES and table not in _INDEX_TABLES:
        raise RunStoreError(f"the archive has rows of a table {table}, which is none of SQLite")
    return table


def _rows(conn: sa.Connection, table: str, where: str, run_id: str) -> Iterator[Line]:
    result = conn.exec_driver_sql(f"SELECT * FROM {table} WHERE {where} ORDER BY id", (run_id,))  # noqa: S608 our own names
    names = list(result.keys())
    return (_line(table, names, tuple(row)) for row in result)


def _line(table: str, names: Sequence[str], row: Sequence[object]) -> Line:
    return row_line(table, _encode(dict(zip(names, row, strict=True))))


@contextmanager
def _opened(shard: Path) -> Generator[sqlite3.Connection]:
    """Open a run's own file without making it: reading an unknown run's logs through Dagster would."""
    if not shard.exists():
        with closing(sqlite3.connect(":memory:")) as nothing:
            yield nothing
        return
    try:
        with closing(sqlite3.connect(f"file:{quote(str(shard))}?mode=rw", uri=True)) as conn:
            yield conn
    except sqlite3.Error as error:
        raise RunStoreError(f"the event log {shard} cannot be read: {error}") from None


def _tables_of(shard: sqlite3.Connection) -> list[str]:
    names = shard.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'alembic_version'"
        " ORDER BY name"
    )
    return [name for (name,) in names]


def _delete_from_index(index: sa.Connection, doomed: Sequence[str], events: set[int], checks: set[int]) -> None:
    ids = _ids(index, EVENTS, EVENTS.run_id.in_(doomed)) - events
    tags = {tag for some in _some(ids) for tag in _ids(index, EVENT_TAGS, EVENT_TAGS.event_id.in_(some))}
    rows = _ids(index, CHECKS, CHECKS.run_id.in_(doomed)) - checks
    for column, numbers in ((EVENT_TAGS.id, tags), (EVENTS.id, ids), (CHECKS.id, rows)):
        # The row with the highest id stays: SQLite would give its id again, and nothing could go back to it.
        numbers.discard(index.execute(sa.select(sa.func.max(column))).scalar() or 0)
        for some in _some(numbers):
            index.execute(sa.delete(column.table).where(column.in_(some)))


def _some(numbers: set[int]) -> Iterator[list[int]]:
    ordered = sorted(numbers)
    for start in range(0, len(ordered), 500):  # SQLite limits the variables of a statement
        yield ordered[start : start + 500]


def _ids(index: sa.Connection, columns: Any, which: Any) -> set[int]:
    return set(index.execute(sa.select(columns.id).where(which)).scalars())


def _blank(made: sqlite3.Connection) -> list[tuple[str, tuple[Any, ...]]]:
    """Return the statements that make an event log like this one, without its events."""
    schema = made.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")
    revisions = made.execute("SELECT version_num FROM alembic_version")
    stamped = (("INSERT INTO alembic_version VALUES (?)", revision) for revision in revisions)
    return [*((sql, ()) for (sql,) in schema), *stamped]


def _insert_rows(
    execute: Callable[[str, tuple[Any, ...]], object],
    lines: Iterable[Line],
    missing: set[tuple[str, int]],
    wanted: Callable[[str], bool],
) -> None:
    for entry in map(entry_of, lines):
        if (entry.t, entry.r.get("id")) in missing and wanted(entry.t):
            table = entry.t.removeprefix(_SHARD)
            names = ", ".join(f'"{name}"' for name in entry.r)
            marks = ", ".join("?" for _ in entry.r)
            execute(
                f'INSERT INTO "{table}" ({names}) VALUES ({marks})',  # noqa: S608 names from the archive, whose hash was compared
                tuple(entry.r.values()),
            )
