"""A command that executes no job starts without what it has no use for. How long that takes: benchmarks/startup.py."""

import subprocess
import sys

import pytest
from cli_helpers import Platform

_CODE = """
import sys
from cleanup_dagster.cli.main import run
code = run(sys.argv[2:])
print(*sorted(name for name in sys.argv[1].split(",") if name in sys.modules), file=sys.stderr)
sys.exit(code)
"""


def _brought_along(platform: Platform, *arguments: str, names: str) -> list[str]:
    command = [sys.executable, "-c", _CODE, names, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=platform.environment(), timeout=60)
    return done.stderr.splitlines()[-1].split()


@pytest.mark.parametrize(
    "command",
    ["policies list", "holds list", "stats", "history", "backups list", "backups verify", "explain {file}", "check"],
)
def test_dagster_is_left_alone(platform: Platform, command: str) -> None:
    platform.call("policies", "list")  # makes the database, which takes Alembic
    arguments = command.format(file=platform.ops / "operation_old.json").split()
    scratch = "" if command == "check" else ",alembic"  # its round trip makes a database of its own
    assert _brought_along(platform, *arguments, names=f"dagster,rich,psycopg2{scratch}") == []


def test_help_needs_click_alone(platform: Platform) -> None:
    assert _brought_along(platform, "run", "--help", names="dagster,sqlalchemy,pydantic,rich,msgspec,click") == [
        "click"
    ]


def test_a_job_brings_dagster(platform: Platform) -> None:
    assert "dagster" in _brought_along(platform, "plan", names="dagster")
