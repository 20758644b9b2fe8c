"""Platforms to clean, on the embedded SQLite (`platform`), on Postgres, or on each in turn (`either`)."""

from pathlib import Path

import pytest
from service_helpers import Platform


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path)


@pytest.fixture
def postgres(tmp_path: Path, request: pytest.FixtureRequest) -> Platform:
    return Platform(tmp_path, request.getfixturevalue("postgres_url"))


@pytest.fixture(params=["platform", "postgres"])
def either(request: pytest.FixtureRequest) -> Platform:
    return request.getfixturevalue(request.param)
