# pyright: reportPrivateUsage=false
# It is counted how often Dagster makes an event log.
"""A purge is killed, and the next live run settles it: every run is gone as a whole or there as a whole."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from run_history_helpers import Shop, catalog

from cleanup_dagster.retention.models import RestoreState

#: Of each storage every point; without `make prove` only those after which rows or files are missing.
POINTS = {
    "sqlite": ("archived", "promised", "committed", "some logs removed", "index deleted", "some event logs removed"),
    "postgres": ("archived", "promised", "committed", "some logs removed", "rows deleted"),
}
_SAMPLE = {"sqlite": ("index deleted", "some event logs removed"), "postgres": ("rows deleted", "committed")}
_STRUCK = POINTS if os.environ.get("PROVE") == "all" else _SAMPLE


@pytest.mark.parametrize(
    ("past", "point"),
    [(storage, point) for storage, points in _STRUCK.items() for point in points],
    indirect=["past"],
)
def test_killed_at_any_point_a_purge_is_settled_and_can_be_undone(shop: Shop, point: str) -> None:
    before, logs, known = shop.fingerprint(), shop.logs(), catalog(shop)
    url = shop.url.render_as_string(hide_password=False) if shop.url is not None else ""
    script = str(Path(__file__).with_name("killed.py"))

    killed = subprocess.run([sys.executable, script, str(shop.home), url, point], check=False)

    assert killed.returncode == -9
    settled = shop.clean()
    assert settled.status == "done", settled.problems
    assert "run killed had been interrupted" in settled.checked.run.recovered[0]
    assert catalog(shop) == known
    ours = settled.checked.run.request.run_id
    gone = shop.state_sql("SELECT run_id FROM cleanup_run_targets WHERE deleted_files > 0")
    for (run_id,) in gone:
        assert not shop.restore(run_id).problems
    assert shop.fingerprint() == before
    assert shop.logs() == logs
    deleted = shop.state_sql("SELECT sum(records_deleted) FROM cleanup_audit WHERE data_type = 'dagster_runs'")
    assert deleted == [(10,)], ours


@pytest.mark.parametrize(
    ("past", "point"),
    [("sqlite", "log half made"), ("sqlite", "log made"), ("postgres", "rows inserted")],
    indirect=["past"],
)
def test_a_restore_that_is_killed_is_finished_by_the_next(shop: Shop, point: str) -> None:
    before, logs, known, tables = shop.fingerprint(), shop.logs(), catalog(shop), _tables(shop)
    of_run = shop.clean().checked.run.request.run_id
    url = shop.url.render_as_string(hide_password=False) if shop.url is not None else ""
    script = str(Path(__file__).with_name("killed.py"))

    killed = subprocess.run([sys.executable, script, str(shop.home), url, point, of_run], check=False)

    assert killed.returncode == -9
    report = shop.restore(of_run)
    assert not report.problems
    found = {state: tally.files for state, tally in report.states.items()}
    assert found[RestoreState.PRESENT] > 0, "what was back already is left as it is"
    assert sum(found.values()) == 10
    assert (shop.fingerprint(), shop.logs(), catalog(shop), _tables(shop)) == (before, logs, known, tables)


def _tables(shop: Shop) -> dict[str, list[tuple[str, ...]]]:
    """Return what makes the event log of each run on SQLite, as Dagster made it at first."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for path in shop.shards():
        with closing(sqlite3.connect(path)) as shard:
            schema = shard.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
            stamp = shard.execute("SELECT * FROM alembic_version").fetchall()
            found[path.name] = sorted([*schema, *stamp, *shard.execute("PRAGMA journal_mode").fetchall()])
    return found


@pytest.mark.parametrize("past", ["sqlite"], indirect=True)
def test_dagster_makes_one_event_log_of_a_restore_and_not_all(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    of_run = shop.clean().checked.run.request.run_id
    made: list[object] = []
    make = SqliteEventLogStorage._initdb

    def counted(self: SqliteEventLogStorage, engine: sa.Engine, **how: bool) -> None:
        made.append(Path(str(engine.url.database)).stem)
        make(self, engine, **how)

    monkeypatch.setattr(SqliteEventLogStorage, "_initdb", counted)
    assert shop.restore(of_run).states[RestoreState.RESTORED].files == 10
    assert len([name for name in made if name != "index"]) == 1, (
        "it reads all of its migrations for each, which takes a third of a second"
    )
