"""The policies a new database is seeded with, once. Nobody falls back to them: an unreadable database means keep."""

from cleanup_dagster.retention.models import Policy

DEFAULT_POLICIES = (
    Policy(
        "pipeline_operations", 30, True, description="Execution records and progress files, neither finished nor failed"
    ),
    Policy("dbt_logs", 7, True, description="dbt logs and artifacts"),
    Policy("failed_operations", 14, True, description="Failed operations, kept for debugging"),
    Policy("completed_operations", 90, True, description="Successful operations"),
    Policy("system_logs", 30, True, description="Application and system logs"),
    Policy("temp_files", 1, True, description="Temporary files and caches"),
    Policy("dagster_runs", 90, False, description="Dagster's finished runs with event logs, tags and compute logs"),
)

DATA_TYPES = tuple(policy.data_type for policy in DEFAULT_POLICIES)

RETENTION_DAYS_MIN = 1
RETENTION_DAYS_MAX = 36_500
