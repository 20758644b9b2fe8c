"""How much is struck (a sample by default, every point under `make prove`), and where other users attack."""

import os
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from attackers import NOBODY, SECRET
from service_helpers import Platform


@pytest.fixture(scope="session")
def thorough() -> bool:
    return os.environ.get("PROVE") == "all"


@pytest.fixture
def seconds(thorough: bool) -> float:
    """How long an attack lasts."""
    return 10.0 if thorough else 1.0


@pytest.fixture
def place() -> Generator[Path]:
    """A directory in memory that everybody can enter, with a root that belongs to the other user."""
    path = Path(tempfile.mkdtemp())
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
        path.rmdir()


@pytest.fixture
def platform(place: Path) -> Platform:
    """A platform there, with something outside of its roots that is secret."""
    platform = Platform(place)
    platform.config["limits"]["max_growth"] = 1_000_000
    (place / "special").mkdir()
    (place / "outside").mkdir()
    (place / "outside/secret").write_text(SECRET)
    (place / "outside/secret").chmod(0o600)
    for path in (platform.logs, place / "special"):
        os.chown(path, NOBODY, NOBODY)
    return platform
