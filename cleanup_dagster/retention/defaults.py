"""The policies a new database is seeded with, once. Nobody falls back to them: an unreadable database means keep."""

from collections.abc import Iterable

from cleanup_dagster.retention.models import Policy

#: The data type whose items are no files.
DAGSTER_RUNS = "dagster_runs"

DEFAULT_POLICIES = (
    Policy(
        "pipeline_operations", 30, True, description="Execution records and progress files, neither finished nor failed"
    ),
    Policy("dbt_logs", 7, True, description="dbt logs and artifacts"),
    Policy("failed_operations", 14, True, description="Failed operations, kept for debugging"),
    Policy("completed_operations", 90, True, description="Successful operations"),
    Policy("system_logs", 30, True, description="Application and system logs"),
    Policy("temp_files", 1, True, description="Temporary files and caches"),
    Policy(DAGSTER_RUNS, 90, False, description="Dagster's finished runs with event logs, tags and compute logs"),
)

DATA_TYPES = tuple(policy.data_type for policy in DEFAULT_POLICIES)

RETENTION_DAYS_MIN = 1
RETENTION_DAYS_MAX = 36_500


def things(data_types: Iterable[str]) -> str:
    """Return what the items of some data types are called: `files`, `runs`, or `files and runs`."""
    return together("runs" if name == DAGSTER_RUNS else "files" for name in data_types)


def together(kinds: Iterable[str]) -> str:
    """Return `files and runs` where there are both, else what there is."""
    return " and ".join(sorted(set(kinds))) or "files"


def counted(number: int, what: str = "files") -> str:
    """Return `1 file`, `1,234 files` or `5 runs`."""
    return f"{number:,} {what[:-1] if number == 1 and ' ' not in what else what}"
