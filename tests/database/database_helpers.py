"""What several test files of this room say."""

import subprocess
import sys
from typing import Any

from sqlalchemy import Engine

from cleanup_dagster.database.runs import reserve_run
from cleanup_dagster.retention.models import NS_PER_SECOND, CleanupType

#: A Tuesday in 2026, in nanoseconds; whole microseconds, which is what the databases keep.
NOW = 1_767_700_000 * NS_PER_SECOND


def run_sql(engine: Engine, *statements: str) -> None:
    """Run statements as a person would type them, in one transaction."""
    with engine.begin() as conn:
        for statement in statements:
            conn.exec_driver_sql(statement)


def ask(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query as plain tuples."""
    with engine.connect() as conn:
        return [tuple(row) for row in conn.exec_driver_sql(query)]


def start_run(engine: Engine, run_id: str, *, dry_run: bool = False, at: int = NOW) -> bool:
    with engine.begin() as conn:
        return reserve_run(
            conn,
            run_id=run_id,
            cleanup_type=CleanupType.AUTOMATIC,
            dry_run=dry_run,
            host="host-a",
            state_id="state-a",
            pid=4711,
            executed_by="schedule",
            now_ns=at,
        )


def python(code: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start another process of ours that runs `code`, with pipes to talk to it."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]", said: str = "") -> str:
    """Say `said` to the process, wait until it succeeds, and return what it answered."""
    out, _ = process.communicate(said, timeout=60)
    assert process.returncode == 0
    return out.strip()
