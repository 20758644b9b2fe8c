"""A shop of each test's own, on SQLite or on Postgres, with a past that is executed once and copied."""

import os
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from run_history_helpers import Past, Shop, make_history
from sqlalchemy import URL, create_engine, text
from sqlalchemy.pool import NullPool


@pytest.fixture(scope="session")
def pasts(postgres_server_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Generator[Callable[[str], Past]]:
    """What makes the past on a storage, at its first use: executing it takes ten seconds."""
    with ExitStack() as stack:
        made: dict[str, Past] = {}

        def past_on(storage: str) -> Past:
            if storage not in made:
                server = postgres_server_url if storage == "postgres" else None
                made[storage] = stack.enter_context(_executed(server, tmp_path_factory.mktemp("past")))
            return made[storage]

        yield past_on


@contextmanager
def _executed(server: URL | None, home: Path) -> Generator[Past]:
    name = f"past_{home.name.replace('-', '_')}"
    if server is not None:
        _execute(server, f"CREATE DATABASE {name}")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _clear_environment(monkeypatch, home)
        shop = Shop(home, server.set(database=name) if server is not None else None)
        ids = make_history(shop)
        shop.close()
    yield Past(shop, ids, server)
    if server is not None:
        _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def past(request: pytest.FixtureRequest, pasts: Callable[[str], Past]) -> Past:
    """A shop that was executed, to be copied, and its runs by what they did."""
    return pasts(request.param)


@pytest.fixture
def shop(past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Shop]:
    _clear_environment(monkeypatch, tmp_path)
    name = f"shop_{abs(hash(tmp_path))}"
    if past.server is not None:
        assert past.shop.url is not None
        _execute(past.server, f"CREATE DATABASE {name} TEMPLATE {past.shop.url.database}")
    made = past.shop.copy(tmp_path, past.server.set(database=name) if past.server is not None else None)
    yield made
    made.close()
    if past.server is not None:
        _execute(past.server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def ids(past: Past) -> dict[str, str]:
    return past.ids


def _clear_environment(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name in os.environ:
        if name.startswith(("CLEANUP_", "DBT_", "DAGSTER_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLEANUP_CONFIG", str(home / "cleanup.yaml"))


def _execute(url: URL, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as conn:
        conn.execute(text(statement))
