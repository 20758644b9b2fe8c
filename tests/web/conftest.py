"""The page over a platform of each test's own; and in a browser, on real processes that a file's tests share."""

import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from httpx import Client
from page_site import Site, Visitor, chromium, in_ci, site_of
from playwright.sync_api import Browser
from sqlalchemy import URL, create_engine, text
from sqlalchemy.pool import NullPool
from web_helpers import OPERATOR, ORIGIN, VIEWER, Platform, asking, bearer


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path)


@pytest.fixture
def client(platform: Platform) -> Generator[Client]:
    """Nobody: without a token, without a cookie, at `localhost`."""
    with asking(platform.app(), ORIGIN, follow_redirects=False) as client:
        yield client


@pytest.fixture
def operator(client: Client) -> Client:
    client.headers.update(bearer(OPERATOR))
    return client


@pytest.fixture
def viewer(client: Client) -> Client:
    client.headers.update(bearer(VIEWER))
    return client


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    try:
        started = chromium()
        opened = started.__enter__()
    except FileNotFoundError as missing:
        if in_ci():
            raise
        pytest.skip(str(missing))
    yield opened
    started.__exit__(None, None, None)


@pytest.fixture(scope="module")
def site(browser: Browser, postgres_server_url: URL) -> Generator[Site]:
    """Everything, started once: it takes most of a file's time."""
    del browser  # without one there is nothing to start for
    engine = create_engine(postgres_server_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as conn:
        conn.execute(text("CREATE DATABASE page"))
    with (
        tempfile.TemporaryDirectory(prefix="page") as home,
        site_of(Path(home), postgres_server_url.set(database="page")) as ready,
    ):
        yield ready
    with engine.connect() as conn:
        conn.execute(text("DROP DATABASE page WITH (FORCE)"))


@pytest.fixture
def visitor(browser: Browser, site: Site) -> Generator[Visitor]:
    """Whoever opens the page. A complaint of the browser, such as a breach of the CSP, fails the test."""
    site.release()
    someone = Visitor(browser, site.url)
    yield someone
    someone.close()
    assert someone.complaints == []
