"""The page over a platform of each test's own."""

from collections.abc import Generator
from pathlib import Path

import pytest
from httpx import Client
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
