"""Everything below the faces starts without Dagster, FastAPI and click: workers and commands start fast."""

import subprocess
import sys
from pathlib import Path

import cleanup_dagster

PACKAGE = Path(cleanup_dagster.__file__).parent
#: The faces, each with its own dependencies, and what runs on its own.
FACES = {"orchestration", "cli", "web"}
#: Modules that are not below the faces: what Dagster loads, scripts, and Alembic's own.
NOT_BELOW = {"definitions", "demo"}
FORBIDDEN = ("dagster", "fastapi", "click")

CODE = """
import importlib, sys
for name in sys.argv[2:]:
    importlib.import_module(name)
print(*sorted(name for name in sys.argv[1].split(",") if name in sys.modules))
"""


def modules_below_the_faces() -> list[str]:
    found: list[str] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if FACES & set(parts) or "migrations" in parts or NOT_BELOW & set(parts):
            continue
        found.append(".".join(("cleanup_dagster", *(part for part in parts if part != "__init__"))))
    return found


def imported(*modules: str) -> list[str]:
    """Import modules in a fresh interpreter, and return which of the forbidden ones came along."""
    command = [sys.executable, "-c", CODE, ",".join(FORBIDDEN), *modules]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


def test_nothing_below_the_faces_brings_a_face_along() -> None:
    modules = modules_below_the_faces()
    assert {"cleanup_dagster.service", "cleanup_dagster.bootstrap", "cleanup_dagster.database.engine"} <= set(modules)
    assert imported(*modules) == []


def test_the_check_sees_a_face_that_came_along() -> None:
    assert "dagster" in imported("cleanup_dagster.definitions")
