"""Making an index of files from the manifests of a scan, in a process of its own: a million files take a while.

The index is one SQLite file, a cache that nothing depends on. `index.py` reads it, and says what the tables are for.
"""

import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from cleanup_dagster.backups.manifest import ManifestError, read_header, read_manifest
from cleanup_dagster.filesystem.names import to_text
from cleanup_dagster.retention.models import Outcome, Reason, State, Verdict
from cleanup_dagster.retention.rules import ACTIVE_WITHIN_NS

#: Ranks that are counted together. Reading a page means to read at most two such blocks more than the page.
BLOCK = 2_000
#: Sort keys, each with what the files are ordered by.
ORDERS = {"path": "id", "age": "since_ns DESC, id", "size": "size, id", "pipeline": "coalesce(pipeline, ''), id"}
#: Kinds of files that are told apart. What files say of their status could be a million things.
FACETS_MAX = 1_000
#: The exit code that says: the plan is damaged, so another attempt would fail as well.
DAMAGED = 3
_ROWS = 10_000
_ELIGIBLE = frozenset({Reason.NOT_EXPIRED, Reason.POLICY_DISABLED})

_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -65536;
CREATE TABLE scanned (
    path TEXT, facet INTEGER, size INTEGER, since_ns INTEGER, age_from TEXT, mtime_ns INTEGER, pipeline TEXT,
    status TEXT, detail TEXT, note TEXT, days INTEGER
);
CREATE TABLE gone (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE facets (
    facet INTEGER PRIMARY KEY, target TEXT, data_type TEXT, goes INTEGER, reason TEXT, status TEXT, guarded INTEGER
);
CREATE TABLE files (
    id INTEGER PRIMARY KEY, path TEXT, facet INTEGER, size INTEGER, since_ns INTEGER, age_from TEXT,
    mtime_ns INTEGER, pipeline TEXT, status TEXT, detail TEXT, note TEXT, days INTEGER
);
CREATE TABLE blocks (sort TEXT, facet INTEGER, block INTEGER, files INTEGER, bytes INTEGER);
CREATE TABLE meta (made_ns INTEGER);
"""
COLUMNS = "path, facet, size, since_ns, age_from, mtime_ns, pipeline, status, detail, note, days"


class Material(Struct, frozen=True):
    """What an index is made of: a scan's manifests, the outcomes of what went since, and where the index goes.

    `min_age_ns` is by target: what was modified more recently stays, whatever its policy says.
    """

    plans: tuple[str, ...]
    outcomes: tuple[str, ...]
    min_age_ns: dict[str, int]
    output: str


class _Facets:
    """Numbers for the kinds of files that are filtered by."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str, bool, str, str | None, bool], int] = {}

    def number(self, target: str, verdict: Verdict, now_ns: int, min_age_ns: int) -> int:
        candidate = verdict.candidate
        modified_ago_ns = now_ns - candidate.identity.mtime_ns
        guarded = verdict.reason in _ELIGIBLE and (
            (candidate.active and modified_ago_ns < ACTIVE_WITHIN_NS) or modified_ago_ns < min_age_ns
        )
        key = (target, candidate.data_type, verdict.delete, verdict.reason.value, candidate.status, guarded)
        number = self.known.get(key)
        if number is None:
            if len(self.known) >= FACETS_MAX:
                key = (target, candidate.data_type, verdict.delete, verdict.reason.value, None, guarded)
            number = self.known.setdefault(key, len(self.known) + 1)
        return number


class DamagedPlanError(Exception):
    """A plan cannot be read to its end, today or ever."""


def make_index(material: Material) -> None:
    """Write the index. Raises DamagedPlanError, ManifestError, sqlite3.Error or OSError; then there is none."""
    output = Path(material.output)
    part = output.with_suffix(".part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as conn:
            conn.executescript(_TABLES)
            conn.execute("BEGIN")
            _fill(conn, material)
            conn.execute("COMMIT")
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)


def _fill(conn: sqlite3.Connection, material: Material) -> None:
    for path in material.outcomes:
        conn.executemany("INSERT OR IGNORE INTO gone VALUES (?)", _deleted(Path(path)))
    facets = _Facets()
    made_ns = 0
    for path in material.plans:
        try:
            made_ns = max(made_ns, read_header(Path(path)).made_at_ns)
            conn.executemany(
                "INSERT INTO scanned VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _rows(Path(path), facets, material)
            )
        except ManifestError as error:
            raise DamagedPlanError(str(error)) from None
    conn.execute("INSERT INTO meta VALUES (?)", (made_ns,))
    conn.executemany(
        "INSERT INTO facets VALUES (?, ?, ?, ?, ?, ?, ?)", [(number, *key) for key, number in facets.known.items()]
    )
    conn.execute(
        f"INSERT INTO files ({COLUMNS}) SELECT {COLUMNS} FROM scanned "  # noqa: S608  constants
        "WHERE path NOT IN (SELECT path FROM gone) ORDER BY path"
    )
    conn.execute("DROP TABLE scanned")
    conn.execute("DROP TABLE gone")
    for sort, order in ORDERS.items():
        conn.execute(f"CREATE TABLE by_{sort} (rank INTEGER PRIMARY KEY, file INTEGER, facet INTEGER, size INTEGER)")
        conn.execute(f"INSERT INTO by_{sort} (file, facet, size) SELECT id, facet, size FROM files ORDER BY {order}")  # noqa: S608
        conn.execute(
            f"INSERT INTO blocks SELECT ?, facet, (rank - 1) / {BLOCK}, count(*), sum(size) FROM by_{sort} "  # noqa: S608
            f"GROUP BY facet, (rank - 1) / {BLOCK}",
            (sort,),
        )


def _deleted(path: Path) -> Iterator[tuple[str]]:
    root = to_text(read_header(path).root)
    for outcome in read_manifest(path, Outcome, torn=True):
        if outcome.state is State.DELETED:
            yield (f"{root}/{outcome.path}",)


def _rows(path: Path, facets: _Facets, material: Material) -> Iterator[tuple[object, ...]]:
    header = read_header(path)
    root, now_ns = to_text(header.root), header.made_at_ns
    min_age_ns = material.min_age_ns.get(header.target, 0)
    for verdict in read_manifest(path, Verdict):
        candidate = verdict.candidate
        yield (
            f"{root}/{candidate.path}",
            facets.number(header.target, verdict, now_ns, min_age_ns),
            candidate.identity.size,
            candidate.since_ns,
            candidate.age_from.value,
            candidate.identity.mtime_ns,
            candidate.pipeline,
            candidate.status,
            verdict.detail,
            candidate.note,
            verdict.retention_days,
        )


def main() -> int:
    """Make the index that stdin describes; say on stderr why there is none."""
    os.nice(10)
    try:
        make_index(msgspec.json.decode(sys.stdin.buffer.read(), type=Material))
    except DamagedPlanError as error:
        sys.stderr.write(f"{error}\n")
        return DAMAGED
    except (ManifestError, sqlite3.Error, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
