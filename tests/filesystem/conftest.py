"""A directory that other users can reach, unlike pytest's own."""

import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest


@pytest.fixture
def shared_path() -> Generator[Path]:
    path = Path(tempfile.mkdtemp(prefix="cleanup-shared-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
