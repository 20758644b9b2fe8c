"""The page over a platform of each test's own."""

from collections.abc import Generator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from web_helpers import OPERATOR, ORIGIN, VIEWER, Platform, bearer


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path)


@pytest.fixture
def client(platform: Platform) -> Generator[TestClient]:
    """Nobody: without a token, without a cookie, at `localhost`."""
    with TestClient(platform.app(), ORIGIN, raise_server_exceptions=False, follow_redirects=False) as client:
        yield client


@pytest.fixture
def operator(client: TestClient) -> TestClient:
    client.headers.update(bearer(OPERATOR))
    return client


@pytest.fixture
def viewer(client: TestClient) -> TestClient:
    client.headers.update(bearer(VIEWER))
    return client
