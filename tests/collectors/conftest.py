"""A platform for every test of this room: a root with files, a place for backups, one for manifests."""

from pathlib import Path

import pytest
from deletion_helpers import Platform

from cleanup_dagster.backups.files import FileBackups
from cleanup_dagster.collectors import deletion


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files are a batch."""
    monkeypatch.setattr(deletion, "BATCH", 2)
    monkeypatch.setattr(FileBackups, "batch_files", 2)
