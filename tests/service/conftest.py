"""Platforms to clean, on the embedded SQLite (`platform`), on Postgres, or on each in turn (`either`)."""

from pathlib import Path

import pytest
from service_helpers import Platform

from cleanup_dagster.collectors import deletion


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hundred files are several batches."""
    monkeypatch.setattr(deletion, "BATCH", 128)


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path)


@pytest.fixture
def postgres(tmp_path: Path, request: pytest.FixtureRequest) -> Platform:
    return Platform(tmp_path, request.getfixturevalue("postgres_url"))


@pytest.fixture(params=["platform", "postgres"])
def either(request: pytest.FixtureRequest) -> Platform:
    return request.getfixturevalue(request.param)
