# ruff: noqa: S608  statements over ids of these tests themselves
# pyright: reportUnknownMemberType=false
"""What people are shown of Dagster's runs: in Dagster, by the checks, and by `explain`."""

import json

import dagster as dg
import pytest
from run_history_helpers import LIVE, Shop, why

from cleanup_dagster.bootstrap import open_installation
from cleanup_dagster.cli import invoking
from cleanup_dagster.cli.executing import Watch
from cleanup_dagster.explaining import Explanation, OutsideError
from cleanup_dagster.installation import Progress
from cleanup_dagster.orchestration.assets import key_of
from cleanup_dagster.orchestration.checks import OVERDUE, asset_checks
from cleanup_dagster.progress import listening
from cleanup_dagster.retention.models import Reason
from cleanup_dagster.run_history.explaining import explain_run, run_named
from cleanup_dagster.service import no_progress
from cleanup_dagster.settings import load_settings

pytestmark = pytest.mark.parametrize("past", ["sqlite"], indirect=True)

RUNS = frozenset({"dagster_runs"})


class Silent:
    """Shows no progress."""

    def begin(self, done: str, subject: str, of: int, what: str) -> Progress:  # noqa: ARG002 as those that show it
        return no_progress

    def say(self, text: str) -> None:
        raise AssertionError(text)


def explained(run_id: str) -> Explanation:
    with open_installation(load_settings()) as installation:
        return explain_run(installation, run_id)


def test_dagster_shows_runs_and_calls_them_so(shop: Shop, ids: dict[str, str]) -> None:
    watch = Watch(Silent())
    with listening(watch):
        purged = shop.job(LIVE)

    assert purged.success, why(purged)
    assert [watch.counted(done) for done in ("judged", "backed up", "deleted")] == ["15 runs", "10 runs", "10 runs"]
    with shop.service() as service:
        step = service.progress_of(purged.run_id)
    assert step is not None
    assert (step.done, step.what) == ("deleted", "runs")
    (seen,) = (one for one in purged.get_asset_observation_events() if one.asset_key == key_of("dagster_runs"))
    observed = seen.asset_observation_data.asset_observation
    assert str(observed.description).startswith("10 of 10 expired runs deleted")
    shown = {name: value.value for name, value in observed.metadata.items()}
    present = len(ids) - 10 + 1  # and the purge itself
    assert {name: shown[name] for name in ("runs_present", "runs_expired", "runs_deleted", "bytes_freed")} == {
        "runs_present": present,
        "runs_expired": 10,
        "runs_deleted": 10,
        "bytes_freed": 0,  # of a database; what it reuses is not free
    }
    assert "bytes_present" not in shown
    assert shown["targets"] == "runs"
    said = [str(one.event_specific_data) for one in purged.all_events if one.is_successful_output]
    assert any("this run is to delete 10 of 15 runs" in one for one in said)
    assert any("runs: 10 runs (" in one and "backed up" in one for one in said)


def test_a_run_that_outlived_its_retention_is_noticed(shop: Shop) -> None:
    assert dg.AssetCheckKey(key_of("dagster_runs"), OVERDUE) in {
        key for one in asset_checks(load_settings()) for key in one.check_keys
    }
    with shop.service() as service:
        (late,) = service.watch.overdue(RUNS, no_progress)
    assert (late.files, late.problem) == (10, "")
    assert late.said.startswith("10 runs (")

    shop.state_sql("UPDATE cleanup_policies SET enabled = false")
    with shop.service() as service:
        (left,) = service.watch.overdue(RUNS, no_progress)
    assert (left.files, left.said) == (0, "its policy is disabled or missing, so everything is kept")


def test_a_run_is_explained_by_its_id(shop: Shop, ids: dict[str, str]) -> None:
    shop.clean(dry=True)
    going, staying = explained(ids["export"]), explained(ids["new daily"])
    assert going.verdict is not None
    assert (going.verdict.delete, going.path.endswith(f"/export/{ids['export']}")) == (True, True)
    assert staying.verdict is not None
    assert staying.verdict.reason is Reason.ASSET_STATE
    assert "it is the latest run of asset daily" in staying.reason
    assert run_named(going.path) == run_named(ids["export"]) == ids["export"]
    assert run_named("/srv/ops/operation_1.json") is None

    shown = explained(ids["export again"]).path
    assert shown.startswith("/dagster_runs/*/")  # the instance has no id yet, and gets one in the live run
    shop.state_sql(f"INSERT INTO cleanup_holds (pattern, reason) VALUES ('{shown}', 'as shown')")

    purged = shop.clean().checked.run.request.run_id
    assert ids["export again"] in shop.run_ids()
    gone = explained(ids["export"])
    assert (gone.exists, [copy.run_id for copy in gone.copies]) == (False, [purged])
    assert gone.reason.startswith("it was purged")

    assert not shop.restore(purged, f"**/{ids['export']}").problems
    shop.clean(dry=True)
    back = explained(ids["export"])
    assert back.verdict is not None
    assert back.verdict.reason is Reason.HELD

    with pytest.raises(OutsideError, match="make one with `cleanup-operations plan`"):
        explained("00000000-0000-4000-8000-000000000000")


def test_a_run_that_was_archived_and_then_left_is_not_called_purged(shop: Shop, ids: dict[str, str]) -> None:
    change = f"UPDATE runs SET status = 'STARTED' WHERE run_id = '{ids['export']}'"

    shop.clean(before_deleting=lambda: shop.sql(change))

    left = explained(ids["export"])
    assert (left.exists, left.copies) == (True, ())
    assert not explained(ids["export again"]).exists


def test_a_purge_is_made_and_undone_on_the_command_line(
    shop: Shop, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(shop.dagster_home))

    def call(*arguments: str) -> str:
        code = invoking.run(arguments)
        said = capsys.readouterr()
        assert code == 0, said
        return said.out

    before = shop.fingerprint()
    assert call("holds", "add", ids["daily"], "--reason", "audit")
    plan = json.loads(call("plan", "--files", "--json"))
    assert {one["path"].rpartition("/")[2] for one in plan["files"]} >= {ids["export"], ids["flaky"]}
    assert ids["daily"] not in str(plan["files"])

    applied = call("apply", plan["run_id"], "--yes")
    assert "Runs" in applied
    assert "Deleted 9 runs (" in applied
    run_id = applied.rpartition("restore ")[2].strip()
    gone = call("explain", ids["export"])
    assert f"Restore   cleanup-operations restore {run_id} '{ids['export']}'" in gone
    assert "runs" in call("backups", "list")
    assert ids["export"] in call("backups", "show", run_id)
    assert "9 runs (" in call("backups", "verify")

    call("restore", run_id, ids["export"])
    assert {ids["export"]} <= shop.run_ids()
    assert ids["export again"] not in shop.run_ids()
    call("restore", run_id)
    assert shop.fingerprint() == before
