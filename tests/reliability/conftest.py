"""How much is struck: a sample by default, every point under `make prove`."""

import os

import pytest


@pytest.fixture(scope="session")
def thorough() -> bool:
    return os.environ.get("PROVE") == "all"
