"""A platform of each test's own."""

from pathlib import Path

import pytest
from end_to_end_helpers import Platform


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    home = tmp_path / "platform"
    home.mkdir()
    return Platform(home)
