"""Both databases, empty (`url`) or with the schema and its seeds (`engine`)."""

from collections.abc import Generator
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine

from cleanup_dagster.database.engine import open_engine
from cleanup_dagster.database.schema import upgrade


@pytest.fixture
def sqlite_url(tmp_path: Path) -> URL:
    return URL.create("sqlite", database=str(tmp_path / "cleanup.db"))


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> URL:
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def empty(url: URL) -> Generator[Engine]:
    """An engine on a database without any table of ours. On SQLite not even the file is there."""
    engine = open_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def engine(empty: Engine) -> Engine:
    upgrade(empty)
    return empty


@pytest.fixture
def sqlite_engine(sqlite_url: URL) -> Engine:
    engine = open_engine(sqlite_url)
    upgrade(engine)
    return engine


@pytest.fixture
def postgres_engine(postgres_url: URL) -> Generator[Engine]:
    engine = open_engine(postgres_url)
    upgrade(engine)
    yield engine
    engine.dispose()
