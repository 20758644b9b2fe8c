"""The job `restore`: undo from the launchpad, dry unless told otherwise."""

import pytest
from orchestration_helpers import EXPIRED_LOGS, EXPIRED_OPERATIONS, LIVE, Platform, run_job


def test_a_restore_without_more_than_a_run_id_writes_nothing(platform: Platform) -> None:
    cleaned = run_job(platform, LIVE)
    left = platform.files()
    ran = run_job(platform, {"run_id": cleaned.run_id}, job="restore")
    assert ran.success
    assert platform.files() == left
    assert ran.shown("restore_files")["summary"].startswith("3 files (")
    assert ran.shown("restore_files")["summary"].endswith(" would be put back")


def test_a_live_restore_puts_a_whole_run_back(platform: Platform) -> None:
    before = platform.files()
    cleaned = run_job(platform, LIVE)
    ran = run_job(platform, {"run_id": cleaned.run_id, "dry_run": False}, job="restore")
    assert ran.success
    assert platform.files() == before
    assert [(row["state"], row["files"]) for row in ran.shown("restore_files")["files"]] == [("restored", 3)]
    assert run_job(platform, LIVE).shown("conclude") == {"summary": "nothing was deleted"}


def test_a_selection_by_data_type_and_by_path(platform: Platform) -> None:
    cleaned = run_job(platform, LIVE)
    wanted = {"run_id": cleaned.run_id, "dry_run": False}
    assert run_job(platform, {**wanted, "data_types": ["dbt_logs"]}, job="restore").success
    assert platform.files().keys() & (EXPIRED_OPERATIONS | EXPIRED_LOGS) == EXPIRED_LOGS
    assert run_job(platform, {**wanted, "paths": [f"{platform.ops}/operation_old.json"]}, job="restore").success
    assert platform.files().keys() & EXPIRED_OPERATIONS == {"operation_old.json"}


def test_a_newer_file_of_the_name_stays_and_the_run_fails_saying_so(platform: Platform) -> None:
    cleaned = run_job(platform, LIVE)
    platform.put(platform.dbt / "dbt.log.2", "newer", days=0)
    ran = run_job(platform, {"run_id": cleaned.run_id, "dry_run": False}, job="restore")
    assert "a newer file has the name" in ran.failures["restore_files"]
    assert [row["path"].rsplit("/")[-1] for row in ran.failure_metadata("restore_files")["not_restored"]] == [
        "dbt.log.2"
    ]
    assert platform.files()["dbt.log.2"] == b"newer"
    assert platform.files().keys() >= EXPIRED_OPERATIONS


@pytest.mark.parametrize("run_id", ["", "1234", "../../etc"])
def test_an_unknown_run_is_refused(platform: Platform, run_id: str) -> None:
    run_job(platform, LIVE)
    ran = run_job(platform, {"run_id": run_id, "dry_run": False}, job="restore")
    assert ran.failures["restore_files"].startswith(f"there is no run {run_id!r}; ")
