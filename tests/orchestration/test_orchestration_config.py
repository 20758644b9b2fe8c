"""What the launchpad accepts: root-level keys, safe defaults, and nothing that could be misread."""

from typing import Any

import dagster as dg
import pytest
from orchestration_helpers import Platform

from cleanup_dagster.orchestration.config import CleanupConfig


def _read(platform: Platform, config: dict[str, Any]) -> dict[str, Any]:
    job = platform.definitions().resolve_job_def("cleanup")
    return dict(dg.validate_run_config(job, config)["ops"]["load_policies"]["config"])


def test_an_empty_config_is_a_dry_manual_run_with_backups(platform: Platform) -> None:
    asked = {"dry_run": True, "type": "manual", "plan": "", "skip_backup": False, "disk_pressure": False}
    assert _read(platform, {}) == asked
    assert CleanupConfig().model_dump() == asked


def test_every_key_stands_at_the_root(platform: Platform) -> None:
    asked = {"dry_run": False, "type": "emergency", "plan": "", "skip_backup": True, "disk_pressure": True}
    assert _read(platform, asked) == asked


@pytest.mark.parametrize("kind", ["automatic", "manual", "emergency"])
def test_the_types_are_written_as_people_say_them(platform: Platform, kind: str) -> None:
    assert _read(platform, {"type": kind})["type"] == kind


@pytest.mark.parametrize(
    "config",
    [
        {"dryrun": False},
        {"dry_run": "false"},
        {"dry_run": 0},
        {"dry_run": None},
        {"dry_run": {"env": "DRY_RUN"}},
        {"type": "AUTOMATIC"},
        {"type": "scheduled"},
        {"type": ""},
        {"skip_backup": "yes"},
        {"skip_backup": {"env": "SKIP"}},
        {"plan": 7},
        {"ops": {"load_policies": {"config": {"dry_run": False}}}},
    ],
)
def test_anything_else_is_rejected_before_a_run_exists(
    platform: Platform, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRY_RUN", "")  # which Dagster would take for false, and so for a live run
    monkeypatch.setenv("SKIP", "true")
    with pytest.raises(dg.DagsterInvalidConfigError):
        _read(platform, config)


def test_every_field_is_explained_in_the_launchpad() -> None:
    assert all(field.description for field in CleanupConfig.model_fields.values())
