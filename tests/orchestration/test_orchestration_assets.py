# pyright: reportUnknownMemberType=false
# Dagster leaves parts of its own signatures unknown.
"""What Dagster's asset pages show after a run, also after one that failed."""

from typing import Any

import dagster as dg
import pytest
from orchestration_helpers import LIVE, Platform

from cleanup_dagster.database import audit
from cleanup_dagster.database.errors import DatabaseUnavailable


class Observed:
    """Runs a job on an instance that is kept, and reads what was observed."""

    def __init__(self, platform: Platform, instance: dg.DagsterInstance) -> None:
        self.platform = platform
        self.instance = instance

    def run(self, config: dict[str, Any] | None = None) -> bool:
        job = self.platform.definitions().resolve_job_def("cleanup")
        return job.execute_in_process(run_config=config or {}, instance=self.instance, raise_on_error=False).success

    def last(self, *path: str) -> dict[str, Any]:
        records = self.instance.fetch_observations(dg.AssetKey(["cleanup", *path]), limit=1).records
        assert records, f"{path} was never observed"
        observation = records[0].asset_observation
        assert observation is not None
        return {key: value.value for key, value in observation.metadata.items()}

    def count(self, *path: str) -> int:
        return len(self.instance.fetch_observations(dg.AssetKey(["cleanup", *path]), limit=100).records)


@pytest.fixture
def observed(platform: Platform) -> Any:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Observed(platform, instance)


def test_a_dry_run_observes_what_is_there_and_what_is_expired(observed: Observed) -> None:
    assert observed.run()
    shown = observed.last("completed_operations")
    assert (shown["files_present"], shown["files_expired"], shown["files_deleted"]) == (2, 1, 0)
    assert shown["bytes_present"] > shown["bytes_expired"] > 0
    assert shown["oldest_age_days"] == pytest.approx(120, abs=0.1)
    assert shown["dry_run"] is True
    assert (shown["bytes_freed"], shown["bytes_held_by_backups"]) == (0, 0)
    assert observed.last("dbt_logs")["bytes_expired"] == 1000
    assert observed.last("system", "runs")["files_expired"] == 3
    assert observed.last("system", "backups")["files_held"] == 0
    assert 0 < observed.last("system", "disk")["used_percent"] < 100


def test_a_live_run_tells_deleted_held_and_freed_apart(observed: Observed) -> None:
    assert observed.run(LIVE)
    shown = observed.last("dbt_logs")
    assert (shown["files_present"], shown["files_expired"], shown["files_deleted"]) == (2, 1, 1)
    assert (shown["bytes_deleted"], shown["bytes_held_by_backups"]) == (1000, 1000)
    assert shown["bytes_freed"] == 0, "the copy is on the same disk"
    store = observed.last("system", "backups")
    assert (store["files_held"], store["backup_sets"]) == (3, 2)
    assert observed.last("system", "runs")["files_deleted"] == 3


def test_a_refused_run_is_observed_all_the_same(observed: Observed) -> None:
    observed.platform.configure(limits={"max_files": 1})
    assert not observed.run(LIVE)
    shown = observed.last("completed_operations")
    assert (shown["files_expired"], shown["files_deleted"]) == (1, 0)
    assert observed.last("system", "runs")["status"] == "refused"
    assert "max_files" in observed.last("system", "runs")["problems"]


def test_observations_outlive_an_audit_that_cannot_be_written(
    observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise DatabaseUnavailable("nothing answers for the database")

    monkeypatch.setattr(audit, "append", gone)
    assert not observed.run(LIVE)
    assert observed.last("dbt_logs")["files_deleted"] == 1


def test_a_target_that_was_not_judged_has_no_numbers(observed: Observed) -> None:
    observed.platform.dbt.rename(observed.platform.home / "elsewhere")
    assert not observed.run()
    shown = observed.last("dbt_logs")
    assert "does not exist" in shown["problem"]
    assert "files_present" not in shown
    assert observed.last("completed_operations")["files_present"] == 2


def test_figures_that_cannot_be_made_do_not_make_the_run_fail(
    observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("cleanup_dagster.watch.figures.held_by_type", broken)
    assert observed.run(LIVE)
    assert observed.count("dbt_logs") == 0
    assert observed.count("system", "runs") == 1


def test_every_run_adds_a_point_to_the_plot(observed: Observed) -> None:
    assert observed.run()
    assert observed.run(LIVE)
    assert observed.run()
    assert observed.count("completed_operations") == 3


def test_a_data_type_without_a_target_says_so(platform: Platform) -> None:
    platform.configure(
        targets=[{"name": "exports", "kind": "files", "data_type": "exports", "root": str(platform.dbt)}],
    )
    specs = {spec.key.to_user_string(): spec for spec in platform.definitions().resolve_all_asset_specs()}
    assert specs["cleanup/temp_files"].metadata["targets"] == "no target configured"
    assert (specs["cleanup/temp_files"].description or "").startswith("No target configured")
    assert str(platform.dbt) in specs["cleanup/exports"].metadata["targets"]
    assert {spec.group_name for spec in specs.values()} == {"cleanup"}
