# pyright: reportUnknownMemberType=false
# Dagster leaves parts of its own signatures unknown.
"""Opening the store of the instance a job runs on: an instance of its own, so that nobody else's limits apply to it."""

from collections.abc import Generator
from contextlib import contextmanager

import dagster as dg
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage

from cleanup_dagster.orchestration.run_store import meeting
from cleanup_dagster.run_history.store import OpenRunStore, RunStore, RunStoreError


def run_store_of(instance: dg.DagsterInstance) -> OpenRunStore | None:
    """Return what opens the store of an instance's runs; None for an instance that keeps nothing.

    Opened, it raises RunStoreError for storages that are not known: there is no fallback that would lose data.
    """
    if instance.is_ephemeral:
        return None
    reference = instance.get_ref()

    @contextmanager
    def open_store() -> Generator[RunStore]:
        # The webserver's instance has a time limit of 15 s on every statement.
        with meeting("Opening Dagster's storage"), dg.DagsterInstance.from_ref(reference) as own:
            yield _store_of(own)

    return open_store


def _store_of(instance: dg.DagsterInstance) -> RunStore:
    runs, events = type(instance.run_storage), type(instance.event_log_storage)
    if (runs, events) == (SqliteRunStorage, SqliteEventLogStorage):
        from cleanup_dagster.orchestration.run_store_sqlite import SqliteRunStore

        return SqliteRunStore(instance)
    if (runs.__name__, events.__name__) == ("PostgresRunStorage", "PostgresEventLogStorage"):
        from cleanup_dagster.orchestration.run_store_postgres import PostgresRunStore

        return PostgresRunStore(instance)
    raise RunStoreError(
        f"Dagster's runs can be purged from Postgres and from SQLite, not from {runs.__name__} with {events.__name__}; "
        "remove the target of kind dagster_runs"
    )
