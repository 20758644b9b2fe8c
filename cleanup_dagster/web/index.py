"""Lists of files from an index of the last scan: sorted, filtered and paged, as fast at the end as at the start.

Files that agree in everything that is filtered by share a facet. For each sort key the index has the files by rank, and
how many of each facet lie in each block of ranks. The sums of the facets that a filter wants lead to the block in which
a page begins, so that no page reads more than its own rows and a block around them.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from queue import LifoQueue
from typing import Any, NamedTuple

import msgspec

from cleanup_dagster.retention.models import AgeSource, Candidate, Identity, Reason, Tally, Verdict
from cleanup_dagster.web.errors import Refusal
from cleanup_dagster.web.indexing import BLOCK, COLUMNS, ORDERS

_SEARCHES = 8
#: Searches at work or waiting. Each has one of the forty threads that answer everybody.
_WAITING = 8
_NOWHERE = Identity(0, 0, 0, 0, 0, 0, 0)


class Facet(NamedTuple):
    """What the files that share it agree in. `guarded` files stay even when their policy lets them go."""

    number: int
    target: str
    data_type: str
    goes: bool
    reason: str
    status: str | None
    guarded: bool


class Filter(NamedTuple):
    """Which files are wanted; None means any."""

    text: str = ""
    data_type: str | None = None
    goes: bool | None = None
    reason: str | None = None
    status: str | None = None

    def wants(self, facet: Facet) -> bool:
        """Tell whether the files of a facet are among them, but for the text."""
        return (
            self.data_type in {None, facet.data_type}
            and self.goes in {None, facet.goes}
            and self.reason in {None, facet.reason}
            and self.status in {None, facet.status}
        )


class Row(NamedTuple):
    """One file as it was scanned, with its verdict."""

    path: str
    size: int
    since_ns: int
    mtime_ns: int
    verdict: Verdict


class Listed(NamedTuple):
    """One page, and how much there is of what was asked for."""

    matching: Tally
    rows: list[Row]


class _Order:
    """For one sort key: how many files and bytes of each facet come before each block."""

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks
        self._files: dict[int, array[int]] = {}
        self._bytes: dict[int, array[int]] = {}

    def add(self, facet: int, block: int, files: int, size: int) -> None:
        for sums, value in ((self._files, files), (self._bytes, size)):
            sums.setdefault(facet, array("q", bytes(8 * (self._blocks + 1))))[block + 1] = value

    def sum_up(self) -> None:
        for sums in (*self._files.values(), *self._bytes.values()):
            for block in range(self._blocks):
                sums[block + 1] += sums[block]

    def before(self, facets: Collection[int], block: int) -> int:
        """Return how many files of the facets come before a block."""
        return sum(self._files[facet][block] for facet in facets if facet in self._files)

    def tally_before(self, facets: Collection[int], block: int) -> Tally:
        size = sum(self._bytes[facet][block] for facet in facets if facet in self._bytes)
        return Tally(self.before(facets, block), size)

    def total(self, facets: Collection[int]) -> Tally:
        return self.tally_before(facets, self._blocks)

    def block_of(self, facets: Collection[int], position: int) -> int:
        """Return the block in which the file of the facets at a position lies."""
        return bisect_right(range(self._blocks), position, key=lambda block: self.before(facets, block)) - 1


class FileIndex:
    """One index, opened for reading. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # One more than there are processors: a search, of which there is one at a time, must not keep a page waiting.
        self._connections = [_open(path) for _ in range((os.cpu_count() or 1) + 1)]
        self._idle: LifoQueue[sqlite3.Connection] = LifoQueue()
        for opened in self._connections:
            self._idle.put(opened)
        conn = self._connections[0]
        ((self.made_ns,),) = conn.execute("SELECT made_ns FROM meta")
        ((self.files,),) = conn.execute("SELECT coalesce(max(rank), 0) FROM by_path")
        self.facets = [
            Facet(number, target, data_type, bool(goes), reason, status, bool(guarded))
            for number, target, data_type, goes, reason, status, guarded in conn.execute("SELECT * FROM facets")
        ]
        self._orders = {sort: _Order(-(-self.files // BLOCK)) for sort in ORDERS}
        for sort, facet, block, files, size in conn.execute("SELECT * FROM blocks"):
            self._orders[sort].add(facet, block, files, size)
        for order in self._orders.values():
            order.sum_up()
        self._found: OrderedDict[tuple[str, tuple[int, ...], str], tuple[array[int], int]] = OrderedDict()
        self._searching = threading.Lock()
        self._may_wait = threading.BoundedSemaphore(_WAITING)

    def remove(self) -> None:
        """Close every connection and remove the file; only when nobody reads any more."""
        for conn in self._connections:
            conn.close()
        self._path.unlink(missing_ok=True)

    def tally(self, wanted: Callable[[Facet], bool]) -> Tally:
        """Return how many files there are of the facets that are wanted."""
        return self._orders["path"].total(self._numbers(wanted))

    def older_than(self, moment_ns: int, wanted: Callable[[Facet], bool]) -> Tally:
        """Return how many files, of the facets that are wanted, count their age from before a moment."""
        numbers, order = self._numbers(wanted), self._orders["age"]
        young = self._younger(moment_ns)
        block = young // BLOCK
        before = order.tally_before(numbers, block)
        with self._connection() as conn:
            ((files, size),) = conn.execute(
                "SELECT count(*), coalesce(sum(size), 0) FROM by_age "  # noqa: S608
                f"WHERE rank > ? AND rank <= ? AND {_among(numbers)}",
                (block * BLOCK, young),
            )
        everything = order.total(numbers)
        return Tally(everything.files - before.files - files, everything.bytes - before.bytes - size)

    def oldest(self, moment_ns: int, wanted: Callable[[Facet], bool], limit: int) -> list[Row]:
        """Return examples of what `older_than` counts, the oldest first."""
        numbers, order = self._numbers(wanted), self._orders["age"]
        total = order.total(numbers).files
        rows = self._rows(self._ranks("age", numbers, max(0, total - limit), min(limit, total)))
        return [row for row in reversed(rows) if row.since_ns < moment_ns]

    def older_beyond_newest(
        self, moment_ns: int, wanted: Callable[[Facet], bool], ranked: Callable[[Facet], bool], keep: int, limit: int
    ) -> tuple[Tally, list[Row]]:
        """Return what `older_than` and `oldest` do, without the newest `keep` of each pipeline in each target.

        `ranked` are the facets that take places among the newest. All of their files are put in order, which takes a
        second for a million: one at a time, as a search.
        """
        with self._one_search(), self._connection() as conn:
            ((files, size, first),) = conn.execute(
                "WITH old AS MATERIALIZED (SELECT id, size, since_ns FROM (SELECT id, size, since_ns, files.facet, "  # noqa: S608
                "row_number() OVER (PARTITION BY target, pipeline ORDER BY since_ns DESC, id DESC) AS place "
                f"FROM files JOIN facets ON facets.facet = files.facet WHERE files.{_among(self._numbers(ranked))}) "
                f"WHERE place > ? AND since_ns < ? AND {_among(self._numbers(wanted))}) "
                "SELECT count(*), coalesce(sum(size), 0), (SELECT json_group_array(id) FROM "
                "(SELECT id FROM old ORDER BY since_ns, id LIMIT ?)) FROM old",
                (keep, moment_ns, limit),
            ).fetchall()
        return Tally(files, size), self._rows(msgspec.json.decode(first))

    def page(self, wanted: Filter, sort: str, start: int, limit: int, *, descending: bool) -> Listed:
        """Return `limit` files from the position `start` on."""
        numbers = self._numbers(wanted.wants)
        if wanted.text:
            ids, size = self._search(wanted.text, numbers, sort)
            matching = Tally(len(ids), size)
        else:
            ids, matching = None, self._orders[sort].total(numbers)
        first, count = start, max(0, min(limit, matching.files - start))
        if descending:
            first = matching.files - start - count
        if not count:
            return Listed(matching, [])
        chosen = self._ranks(sort, numbers, first, count) if ids is None else ids[first : first + count]
        rows = self._rows(chosen)
        return Listed(matching, rows[::-1] if descending else rows)

    def _numbers(self, wanted: Callable[[Facet], bool]) -> tuple[int, ...]:
        return tuple(facet.number for facet in self.facets if wanted(facet))

    def _ranks(self, sort: str, numbers: tuple[int, ...], start: int, count: int) -> list[int]:
        """Return the ids of `count` files of the facets, from a position on, in their order."""
        order = self._orders[sort]
        if not count:
            return []
        first, last = order.block_of(numbers, start), order.block_of(numbers, start + count - 1)
        return self._list(
            f"SELECT file AS one FROM by_{sort} WHERE rank > ? AND rank <= ? AND {_among(numbers)} "  # noqa: S608
            "ORDER BY rank LIMIT ? OFFSET ?",
            (first * BLOCK, (last + 1) * BLOCK, count, start - order.before(numbers, first)),
        )

    def _search(self, text: str, numbers: tuple[int, ...], sort: str) -> tuple[array[int], int]:
        """Return the ids of the files whose path holds a text, in their order, and their bytes.

        One search at a time: it reads every path, a quarter of a second for a million, and the pages that need none
        must not wait for processors.
        """
        key = (text.lower(), numbers, sort)
        with self._one_search():
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
            escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
            with self._connection() as conn:
                ((found, size),) = conn.execute(
                    "SELECT json_group_array(id), coalesce(sum(size), 0) FROM (SELECT id, size FROM files "  # noqa: S608
                    f"WHERE path LIKE ? ESCAPE '\\' AND {_among(numbers)} ORDER BY {ORDERS[sort]})",
                    (f"%{escaped}%",),
                ).fetchall()
            ids = array("q", msgspec.json.decode(found))
            self._found[key] = ids, size
            if len(self._found) > _SEARCHES:
                self._found.popitem(last=False)
            return ids, size

    def _younger(self, moment_ns: int) -> int:
        """Return how many files count their age from that moment or later, by halving."""
        low, high = 0, self.files
        with self._connection() as conn:
            while low < high:
                middle = (low + high) // 2
                ((since_ns,),) = conn.execute(
                    "SELECT since_ns FROM by_age JOIN files ON files.id = by_age.file WHERE rank = ?", (middle + 1,)
                )
                low, high = (middle + 1, high) if since_ns >= moment_ns else (low, middle)
        return low

    def _rows(self, ids: Sequence[int]) -> list[Row]:
        chosen = ",".join(map(str, ids))
        rows = self._list(
            f"SELECT json_array(id, {COLUMNS}) AS one FROM files WHERE id IN ({chosen})",  # noqa: S608  numbers
            (),
        )
        found = {row[0]: row for row in rows}
        return list(self._verdicts(found[number] for number in ids))

    def _verdicts(self, found: Iterator[Any]) -> Iterator[Row]:
        facets = {facet.number: facet for facet in self.facets}
        for row in found:
            _, path, number, size, since_ns, age_from, mtime_ns, pipeline, status, detail, note, days = row
            facet = facets[number]
            candidate = Candidate(
                path,
                _NOWHERE,
                facet.data_type,
                since_ns,
                AgeSource(age_from),
                status,
                pipeline,
                note=note,
            )
            verdict = Verdict(candidate, facet.goes, Reason(facet.reason), self.made_ns - since_ns, days, detail)
            yield Row(path, size, since_ns, mtime_ns, verdict)

    def _list(self, query: str, values: tuple[int, ...]) -> list[Any]:
        """Return the column `one` of a query, row by row, in a single step of SQLite.

        Each step gives the interpreter's lock away and waits for it again: with forty threads, row by row, a page took
        fifteen seconds. For the same reason there are no more connections than processors can be busy with.
        """
        with self._connection() as conn:
            gathered = conn.execute(f"SELECT json_group_array(json(one)) FROM ({query})", values)  # noqa: S608
            ((text,),) = gathered.fetchall()
        return msgspec.json.decode(text)

    @contextmanager
    def _one_search(self) -> Generator[None]:
        """Wait for the searches before this one. Raises Refusal when too many wait already."""
        if not self._may_wait.acquire(blocking=False):
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many searches at once; try again in a few seconds")
        try:
            with self._searching:
                yield
        finally:
            self._may_wait.release()

    @contextmanager
    def _connection(self) -> Generator[sqlite3.Connection]:
        """Lend one of a few connections: each maps the whole file into memory once more, and counts it as its own."""
        conn = self._idle.get()
        try:
            yield conn
        finally:
            self._idle.put(conn)


def _open(path: Path) -> sqlite3.Connection:
    conn = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True, check_same_thread=False)
    for pragma in ("mmap_size = 2147483648", "cache_size = -256", "query_only = ON"):
        conn.execute(f"PRAGMA {pragma}").close()
    return conn


def _among(numbers: Collection[int]) -> str:
    return f"facet IN ({','.join(map(str, numbers))})"
