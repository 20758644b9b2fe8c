"""A command that executes no job starts without what it has no use for. How long that takes: benchmarks/startup.py."""

import subprocess
import sys

from cli_helpers import Platform

_CODE = """
import sys
from cleanup_dagster.cli.invoking import run
codes = [run(command.split()) for command in sys.argv[2:]]
print(*sorted(name for name in sys.argv[1].split(",") if name in sys.modules), file=sys.stderr)
sys.exit(max(codes))
"""


def _brought_along(platform: Platform, *commands: str, names: str) -> list[str]:
    command = [sys.executable, "-c", _CODE, names, *commands]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=platform.environment(), timeout=60)
    return done.stderr.splitlines()[-1].split()


COMMANDS = ("policies list", "holds list", "stats", "history", "backups list", "backups verify", "explain {file}")


def test_dagster_is_left_alone(platform: Platform) -> None:
    platform.call("policies", "list")  # makes the database, which takes Alembic
    commands = [command.format(file=platform.ops / "operation_old.json") for command in COMMANDS]
    assert _brought_along(platform, *commands, names="dagster,fastapi,uvicorn,jinja2,rich,psycopg2,alembic") == []
    assert _brought_along(platform, "check", names="dagster,fastapi,uvicorn,jinja2,rich,psycopg2") == []


def test_help_needs_click_alone(platform: Platform) -> None:
    assert _brought_along(platform, "run --help", names="dagster,sqlalchemy,pydantic,rich,msgspec,click") == ["click"]
