"""The target of Dagster's runs in `cleanup.yaml` and in the defaults."""

import json
from pathlib import Path
from typing import Any

import pytest

from cleanup_dagster.settings import ConfigError, Settings, load_settings

RUNS = {"name": "runs", "kind": "dagster_runs"}


def load(tmp_path: Path, *targets: dict[str, Any], **keys: Any) -> Settings:
    file = tmp_path / "cleanup.yaml"
    file.write_text(json.dumps({"state_dir": str(tmp_path / "state"), "targets": list(targets), **keys}))
    return load_settings({}, file)


def test_the_defaults_have_it_where_there_is_an_instance(tmp_path: Path) -> None:
    runs = load_settings({"DAGSTER_HOME": str(tmp_path)}).dagster_runs

    assert runs is not None
    assert (runs.name, runs.asset_events, runs.keep_last_per_job, runs.purge_run_keys) == (
        "dagster_runs",
        "keep_latest",
        1,
        False,
    )
    assert load_settings({"CLEANUP_STATE_DIR": str(tmp_path)}).dagster_runs is None


def test_it_has_no_root_and_its_own_limits(tmp_path: Path) -> None:
    settings = load(tmp_path, {**RUNS, "limits": {"max_files": 7}}, limits={"max_share": 0.9})

    assert settings.targets == ()
    assert settings.dagster_runs is not None
    assert (settings.dagster_runs.limits.max_files, settings.dagster_runs.limits.max_share) == (7, 0.9)
    assert [target.name for target in settings.all_targets] == ["runs"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"statuses": ["success", "started"]}, "'started' is no status to purge by"),
        ({"statuses": []}, "is no status to purge by"),
        ({"asset_events": "purge"}, "'purge' is not keep_latest, keep_all or keep_whole_run"),
        ({"root": "/srv/x"}, "root: is no known key"),
        ({"job_names": "export"}, "is not a list of texts"),
        ({"batch_runs": 0}, "0 is not a whole number from 1 to 1000"),
        ({"name": "Runs"}, "is not a name"),
        ({"retention_days_min": 9, "retention_days_max": 8}, "8 is less than retention_days_min, 9"),
    ],
)
def test_a_doubtful_key_is_refused(tmp_path: Path, target: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, {**RUNS, **target})


def test_there_is_one_instance_and_one_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is one instance"):
        load(tmp_path, RUNS, {**RUNS, "name": "others"})
    with pytest.raises(ConfigError, match="names the runs already"):
        load(tmp_path, RUNS, {"name": "runs", "kind": "operations", "root": str(tmp_path / "ops")})
    with pytest.raises(ConfigError, match="write a target of kind dagster_runs"):
        load(tmp_path, RUNS, dagster_runs=RUNS)
