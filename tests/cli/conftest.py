"""A platform of each test's own, and an environment that leads nowhere else."""

import os
from pathlib import Path

import pytest
from cli_helpers import Platform


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    for name in os.environ:
        if name.startswith(("CLEANUP_", "DBT_", "DAGSTER_", "NO_COLOR", "COLUMNS", "SUDO_")):
            monkeypatch.delenv(name)
    home = tmp_path / "platform"
    home.mkdir()
    made = Platform(home, monkeypatch)
    monkeypatch.setenv("CLEANUP_CONFIG", str(made.config))
    return made
