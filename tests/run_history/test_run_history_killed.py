"""A purge is killed, and the next live run settles it: every run is gone as a whole or there as a whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from run_history_helpers import Shop, catalog

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
