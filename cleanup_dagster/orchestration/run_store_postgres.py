# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# Dagster's tables and connections are untyped.
"""Runs on Postgres: a batch goes in one transaction, verified in it row by row against what was archived.

Postgres itself writes the rows as JSON, every column there is, and reads them again: nothing is lost between a value,
its Python object and its text, whatever the version of the schema.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from cleanup_dagster.orchestration.run_store import (
    ARCHIVED_TABLES,
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
    row_of,
)
from cleanup_dagster.run_history.store import Doomed, Ended, Keep, Line, RunStoreError, Weight

_TABLES = tuple(table.name for table in ARCHIVED_TABLES)
_ORDER = {name: number for number, name in enumerate(_TABLES)}
_INSERTED = 1_000  # rows per statement
_INSERTED_BYTES = 8 << 20
#: What Postgres says of a lock that was not to be had in time, and of a deadlock.
_WAITED_FOR = frozenset({"55P03", "40P01"})
_LARGE = 10_000  # events of a run whose rows are not fetched at once

#: All rows of one run but those of its checks, for which there is no index by run.
_ROWS = sa.text(
    """
    SELECT part, row FROM (
        SELECT 0 AS part, id, row_to_json(t)::text AS row FROM runs t WHERE run_id = :run_id
        UNION ALL SELECT 1, id, row_to_json(t)::text FROM run_tags t WHERE run_id = :run_id
        UNION ALL SELECT 2, id, row_to_json(t)::text FROM event_logs t WHERE run_id = :run_id
        UNION ALL SELECT 3, t.id, row_to_json(t)::text FROM asset_event_tags t
            JOIN event_logs e ON e.id = t.event_id WHERE e.run_id = :run_id
    ) rows ORDER BY part, id
    """
)
_CHECK_ROWS = sa.text(
    "SELECT run_id, row_to_json(t)::text FROM asset_check_executions t WHERE run_id = ANY(:run_ids) ORDER BY run_id, id"
)
_SAME_DATABASE = sa.text("SELECT current_database(), pg_postmaster_start_time(), 'runs'::regclass::oid")


class _RowsChangedError(Exception):
    """Other rows were there when they were deleted than when they were compared."""


class PostgresRunStore(StoreOverSql):
    """The runs of an instance on Postgres, with runs and events in one database."""

    atomic = True

    @contextmanager
    def runs_connection(self) -> Generator[sa.Connection]:
        """Open a connection with transactions; Dagster's own has none."""
        with super().runs_connection() as conn:
            yield _exact(conn.execution_options(isolation_level="READ COMMITTED"))

    @contextmanager
    def index_connection(self) -> Generator[sa.Connection]:
        """Open a connection with transactions; Dagster's own has none."""
        with super().index_connection() as conn:
            yield _exact(conn.execution_options(isolation_level="READ COMMITTED"))

    def problems(self) -> list[str]:
        """Return what is missing, and whether runs and events are in different databases."""
        with self.runs_connection() as runs, self.index_connection() as index:
            here = runs.execute(_SAME_DATABASE).one()
            try:
                there = index.execute(_SAME_DATABASE).one()
            except ProgrammingError:
                there = None
        if here != there:
            return ["runs and events are in different databases, so no transaction can delete both"]
        return super().problems()

    def weigh(self, run_ids: Sequence[str], keep: Keep) -> Mapping[str, Weight]:
        """Return events and their bytes by run, and which runs assets need."""
        size = sa.func.sum(sa.func.octet_length(EVENTS.event))
        query = (
            sa.select(EVENTS.run_id, sa.func.count(), size).where(EVENTS.run_id.in_(run_ids)).group_by(EVENTS.run_id)
        )
        bodies = sa.select(RUNS.run_id, sa.func.octet_length(RUNS.run_body)).where(RUNS.run_id.in_(run_ids))
        with self.index_connection() as conn:
            events = {run_id: (count, int(size or 0)) for run_id, count, size in conn.execute(query)}
            needed = kept_of(conn, run_ids, keep)
            partitions = kept_partitions(conn, conn, run_ids, keep)
            weights: dict[str, Weight] = {}
            for run_id, body in conn.execute(bodies):
                count, text = events.get(run_id, (0, 0))
                size = text + (body or 0) + log_bytes(self._logs, run_id)
                weights[run_id] = Weight(count, size, needed.get(run_id, ""), partitions.get(run_id, ""))
            return weights

    def documents(self, run_ids: Sequence[str]) -> Iterator[tuple[str, Iterator[Line]]]:
        """Yield the document of each run that is there, read from the database as it is asked for."""
        with self.index_connection() as conn:
            weights = dict(
                conn.execute(
                    sa.select(EVENTS.run_id, sa.func.count()).where(EVENTS.run_id.in_(run_ids)).group_by(EVENTS.run_id)
                )
                .tuples()
                .all()
            )
            there = set(conn.execute(sa.select(RUNS.run_id).where(RUNS.run_id.in_(run_ids))).scalars())
            checks = _checks_of(conn, run_ids)
            for run_id in run_ids:
                if run_id in there:
                    stream = weights.get(run_id, 0) > _LARGE
                    yield run_id, self._document(conn, run_id, checks.get(run_id, []), stream=stream)

    def _document(self, conn: sa.Connection, run_id: str, checks: Sequence[bytes], *, stream: bool) -> Iterator[Line]:
        yield head(run_id)
        yield from (row_line(table, row) for table, row in _rows(conn, run_id, checks, stream=stream))
        yield from log_lines(self._logs, run_id)

    def purge(self, groups: Sequence[Sequence[Doomed]], keep: Keep) -> Mapping[str, Ended]:
        """Delete runs in one transaction, in which each was compared with its archive."""
        with self.index_connection() as conn:
            try:
                ended, gone = self._purge(conn, groups, keep)
                conn.commit()
            except _RowsChangedError:
                conn.rollback()
                changed = Ended(State.DRIFTED, "rows of its batch were written while it was being deleted")
                return {one.run_id: changed for group in groups for one in group}
            except OperationalError as error:
                conn.rollback()
                if getattr(error.orig, "pgcode", None) not in _WAITED_FOR:
                    raise
                busy = Ended(State.BUSY, "another transaction holds rows of its batch")
                return {one.run_id: busy for group in groups for one in group}
        # The logs only now: a file cannot be rolled back.
        return ended | {run_id: Ended(State.DELETED, self.clear(run_id, logs)) for run_id, logs in gone.items()}

    def _purge(
        self, conn: sa.Connection, groups: Sequence[Sequence[Doomed]], keep: Keep
    ) -> tuple[dict[str, Ended], dict[str, dict[str, str]]]:
        run_ids = [one.run_id for group in groups for one in group]
        conn.execute(sa.text("SET LOCAL lock_timeout = '2s'"))
        rows = (
            sa.select(RUNS.run_id).where(RUNS.run_id.in_(run_ids)).order_by(RUNS.id).with_for_update(skip_locked=True)
        )
        locked = set(conn.execute(rows).scalars())
        found, kept = still_doomed(conn, conn, groups, keep)
        for run_id in run_ids:
            if run_id not in locked and run_id not in found:
                found[run_id] = Ended(State.BUSY, "its row is locked by another transaction")
        checks = _checks_of(conn, run_ids)
        found_now: dict[str, Summary] = {}
        for one in (one for group in groups for one in group if one.run_id not in found):
            lines = self._document(conn, one.run_id, checks.get(one.run_id, []), stream=one.events > _LARGE)
            compare(one, lines, found_now, found)
        doomed = {one.run_id: found_now[one.run_id] for one in spare_groups(groups, found)}
        if doomed:
            sums = [sum(summary.rows.get(table, 0) for summary in doomed.values()) for table in _TABLES]
            _delete(conn, list(doomed), sums, kept.events, kept.checks)
        return found, {run_id: summary.logs for run_id, summary in doomed.items()}

    def restore(self, run_id: str, lines: Callable[[], Iterable[Line]], *, dry_run: bool) -> tuple[RestoreState, str]:
        """Insert the missing rows of a run in one transaction, and commit when it then equals its archive."""
        try:
            with self.index_connection() as conn:
                before = difference(lines(), self._now(conn, run_id))
                if before.problem:
                    return RestoreState.EXISTS, before.problem
                if before.is_none:
                    return RestoreState.PRESENT, ""
                if dry_run:
                    return RestoreState.WOULD_RESTORE, ""
                if before.rows:
                    _insert(conn, lines(), before.rows)
                    after = difference(lines(), self._now(conn, run_id))
                    if after.rows or after.problem:
                        why = after.problem or "rows of it were not taken"
                        return RestoreState.FAILED, f"it would not be what was archived: {why}; nothing was written"
                    conn.commit()
        except RunStoreError as error:
            return RestoreState.FAILED, str(error)
        return self.put_logs(run_id, lines)

    def maintain(self) -> None:
        """Run VACUUM (ANALYZE): new rows use the room of the deleted ones. The files stay as large as they are."""
        with meeting("VACUUM"), self._instance.event_log_storage.index_connection() as conn:  # pyright: ignore[reportAttributeAccessIssue]
            for table in _TABLES:
                conn.exec_driver_sql(f"VACUUM (ANALYZE) {table}")

    def _now(self, conn: sa.Connection, run_id: str) -> Iterator[Line]:
        checks = _checks_of(conn, [run_id])
        return self._document(conn, run_id, checks.get(run_id, []), stream=False)


def _exact(conn: sa.Connection) -> sa.Connection:
    conn.exec_driver_sql("SET extra_float_digits = 3")  # before version 12 floats lost their last digits without it
    return conn


def _checks_of(conn: sa.Connection, run_ids: Sequence[str]) -> dict[str, list[bytes]]:
    rows = conn.execute(_CHECK_ROWS, {"run_ids": list(run_ids)})
    return {run_id: [row.encode() for _, row in some] for run_id, some in groupby(rows, key=lambda row: row[0])}


def _rows(conn: sa.Connection, run_id: str, checks: Sequence[bytes], *, stream: bool) -> Iterator[tuple[str, bytes]]:
    query = _ROWS.execution_options(stream_results=True, max_row_buffer=1_000) if stream else _ROWS
    for part, row in conn.execute(query, {"run_id": run_id}):
        yield _TABLES[part], row.encode()
    for row in checks:
        yield _TABLES[-1], row


def _delete(
    conn: sa.Connection, doomed: Sequence[str], archived: Sequence[int], kept_events: set[int], kept_checks: set[int]
) -> None:
    """Delete the rows of some runs, children first. Raises _RowsChangedError unless they are those that were archived.

    An event that was committed a moment ago, with an id from before, would otherwise go without ever being archived.
    """
    runs, tags, events, event_tags, checks = archived
    of_events = sa.select(EVENTS.id).where(EVENTS.run_id.in_(doomed))
    some = EVENTS.id.in_(list(kept_events))
    steps = (
        (event_tags, EVENT_TAGS, EVENT_TAGS.event_id.in_(of_events), EVENT_TAGS.event_id.in_(list(kept_events))),
        (checks, CHECKS, CHECKS.run_id.in_(doomed), CHECKS.id.in_(list(kept_checks))),
        (events, EVENTS, EVENTS.run_id.in_(doomed), some),
        (tags, TAGS, TAGS.run_id.in_(doomed), sa.false()),
        (runs, RUNS, RUNS.run_id.in_(doomed), sa.false()),
    )
    for count, columns, theirs, stays in steps:
        table = columns.id.table
        deleted = conn.execute(sa.delete(table).where(theirs, sa.not_(stays))).rowcount
        left = conn.execute(sa.select(sa.func.count()).where(theirs)).scalar_one()
        expected = conn.execute(sa.select(sa.func.count()).where(theirs, stays)).scalar_one()
        if left != expected or deleted + left != count:
            raise _RowsChangedError


def _insert(conn: sa.Connection, lines: Iterable[Line], missing: set[tuple[str, int]]) -> None:
    pending: list[bytes] = []
    size, table = 0, ""
    for line in lines:
        entry = entry_of(line)
        if (entry.t, entry.r.get("id")) not in missing:
            continue
        if entry.t != table or len(pending) >= _INSERTED or size >= _INSERTED_BYTES:
            _insert_rows(conn, table, pending)
            pending, size, table = [], 0, entry.t
        row = row_of(line)
        pending.append(row)
        size += len(row)
    _insert_rows(conn, table, pending)


def _insert_rows(conn: sa.Connection, table: str, rows: Sequence[bytes]) -> None:
    if not rows:
        return
    if table not in _ORDER:
        raise RunStoreError(f"the archive has rows of a table {table}, which is none of Postgres")
    insert = sa.text(
        f"INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, CAST(:rows AS json)) "  # noqa: S608 one of our five names
        "ON CONFLICT DO NOTHING"
    )
    try:
        conn.execute(insert, {"rows": (b"[" + b",".join(rows) + b"]").decode()})
    except IntegrityError:
        raise RunStoreError("the snapshot of its job is gone, which its row refers to") from None
