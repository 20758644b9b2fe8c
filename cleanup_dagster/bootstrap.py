"""The composition root: from settings to a service with all its parts."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from cleanup_dagster.database.engine import open_engine
from cleanup_dagster.database.schema import open_configured, open_embedded
from cleanup_dagster.database.waiting import wait_until_ready
from cleanup_dagster.installation import Clock, Installation
from cleanup_dagster.settings import Settings
from cleanup_dagster.state import StateDirectory, open_state

if TYPE_CHECKING:
    from cleanup_dagster.service import CleanupService


def open_database(settings: Settings, state: StateDirectory) -> Engine:
    """Open the database of an installation.

    The embedded one is made and seeded on first use; a configured one is taken as it is or refused.

    Raises:
        DatabaseUnavailable: it cannot be reached.
        SchemaMismatch: its tables are absent, older or newer than this version's.
    """
    if settings.database_url is None:
        return open_embedded(state.database_path)
    return open_configured(settings.database_url.get_secret_value())


def wait_for_database(settings: Settings, say: Callable[[str], None]) -> None:
    """Give a configured database that is starting up to `database_wait_seconds`; `say` is told when that takes a while.

    Raises DatabaseUnavailable.
    """
    if settings.database_url is None:
        return
    engine = open_engine(settings.database_url.get_secret_value())
    try:
        wait_until_ready(engine, settings.database_wait_seconds, say)
    finally:
        engine.dispose()


@contextmanager
def open_installation(settings: Settings, clock: Clock = time.time_ns) -> Generator[Installation]:
    """Open state directory and database, and yield the installation over them; locks are let go at the end.

    Raises UnsafeDirectoryError when the state directory is not ours alone, else as `open_database` does.
    """
    with open_state(settings.state_dir) as state:
        engine = open_database(settings, state)
        installation = Installation(settings, engine, state, clock)
        try:
            yield installation
        finally:
            installation.close()
            engine.dispose()


@contextmanager
def open_service(settings: Settings, clock: Clock = time.time_ns) -> Generator["CleanupService"]:
    """Open an installation, and yield the service over it. Raises as `open_installation` does."""
    from cleanup_dagster.service import CleanupService  # a tenth of a second that looking at records does without

    with open_installation(settings, clock) as installation:
        yield CleanupService(installation)
