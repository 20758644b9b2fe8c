"""A platform to clean and to undo on: plain, with each format of backups, or with its database elsewhere."""

import shutil
from pathlib import Path

import pytest
from service_helpers import Platform
from sqlalchemy import URL

from cleanup_dagster.collectors import deletion
from cleanup_dagster.database.engine import open_engine
from cleanup_dagster.database.schema import upgrade


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hundred files are several batches."""
    monkeypatch.setattr(deletion, "BATCH", 128)


@pytest.fixture(scope="session")
def fresh_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded database as it is on first use. Copying it takes a fiftieth of the time of making it."""
    made = Platform(tmp_path_factory.mktemp("fresh"))
    with made.service():
        pass
    return made.state / "cleanup.db"


@pytest.fixture
def platform(tmp_path: Path, fresh_database: Path) -> Platform:
    made = Platform(tmp_path)
    made.state.mkdir(mode=0o700)
    shutil.copy2(fresh_database, made.state)
    return made


@pytest.fixture(params=["files", "archive"])
def each_format(platform: Platform, request: pytest.FixtureRequest) -> Platform:
    for target in platform.config["targets"]:
        target["format"] = request.param
    return platform


@pytest.fixture
def outside(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform whose database does not lie in the state directory, so that either can be lost."""
    platform.database = URL.create("sqlite", database=str(tmp_path_factory.mktemp("database") / "outside.db"))
    engine = open_engine(platform.database)
    upgrade(engine)
    engine.dispose()
    return platform
