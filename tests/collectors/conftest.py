"""A platform for every test of this room: a root with files, a place for backups, one for manifests."""

from pathlib import Path

import pytest
from deletion_helpers import Platform


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path)
