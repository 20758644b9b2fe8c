# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
"""What is archived and read of Dagster's tables, held against what the installed version has."""

from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata
from dagster._core.storage.runs.schema import RunStorageSqlMetadata

from cleanup_dagster.orchestration.run_store import ARCHIVED_TABLES

COLUMNS = {
    "runs": "id run_id snapshot_id pipeline_name mode status run_body partition partition_set create_timestamp "
    "update_timestamp start_time end_time backfill_id",
    "run_tags": "id run_id key value",
    "event_logs": "id run_id event dagster_event_type timestamp step_key asset_key partition",
    "asset_event_tags": "id event_id asset_key key value event_timestamp",
    "asset_check_executions": "id asset_key check_name partition run_id execution_status evaluation_event "
    "evaluation_event_timestamp evaluation_event_storage_id materialization_event_storage_id create_timestamp",
}


def test_the_columns_of_the_archived_tables_are_those_that_were_looked_at() -> None:
    assert {table.name: [column.name for column in table.columns] for table in ARCHIVED_TABLES} == {
        name: columns.split() for name, columns in COLUMNS.items()
    }


def test_no_other_table_refers_to_a_run() -> None:
    """Besides concurrency slots, which keep a run from being purged, and the latest run of an asset."""
    tables = [*RunStorageSqlMetadata.tables.values(), *SqlEventLogStorageMetadata.tables.values()]
    referring = {table.name for table in tables if any("run_id" in column.name for column in table.columns)}
    assert referring == {
        "runs",
        "run_tags",
        "event_logs",
        "asset_check_executions",
        "asset_keys",
        "concurrency_slots",
        "pending_steps",
    }
