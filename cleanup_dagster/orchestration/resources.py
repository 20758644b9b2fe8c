"""The filesystem, the database, and the service over both.

Nothing is opened before an op asks: a database that is down should fail an op with one sentence, not the run's
initialisation with a traceback. No secret is part of a resource's configuration, where the UI would show it.
"""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
from pydantic import Field, PrivateAttr
from sqlalchemy import Engine

from cleanup_dagster import progress
from cleanup_dagster.bootstrap import open_database, wait_for_database
from cleanup_dagster.database.errors import DatabaseUnavailable, SchemaMismatch
from cleanup_dagster.filesystem.private import UnsafeDirectoryError
from cleanup_dagster.installation import Installation
from cleanup_dagster.orchestration.run_stores import run_store_of
from cleanup_dagster.service import CleanupService
from cleanup_dagster.settings import ConfigError, Settings, load_settings
from cleanup_dagster.state import StateDirectory, open_state


class FilesystemResource(dg.ConfigurableResource[object]):
    """What may be cleaned: the targets, the backup directory and the state directory of `cleanup.yaml`."""

    config_file: str = Field(
        default="", description="Path of cleanup.yaml; empty for the one in CLEANUP_CONFIG, or the packaged defaults."
    )

    def settings(self) -> Settings:
        """Read the configuration anew, so that a change takes effect at the next run. Raises ConfigError."""
        return load_settings(config_file=Path(self.config_file) if self.config_file else None)


class DatabaseResource(dg.ConfigurableResource[object]):
    """Policies, holds, runs and audit: Postgres from CLEANUP_DATABASE_URL or CLEANUP_DB_*, else the embedded SQLite."""

    def engine(self, settings: Settings, state: StateDirectory) -> Engine:
        """Open the database. Raises DatabaseUnavailable or SchemaMismatch."""
        return open_database(settings, state)


class CleanupResource(dg.ConfigurableResource[object]):
    """The service over both, opened when the first op asks for it and closed, with its locks, when the run ends."""

    filesystem: FilesystemResource
    database: DatabaseResource
    _opened: ExitStack = PrivateAttr(default_factory=ExitStack)
    _service: CleanupService | None = PrivateAttr(default=None)
    _instance: dg.DagsterInstance | None = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator["CleanupResource"]:
        """Yield the resource, and close at the end what was opened by it."""
        self._instance = context.instance
        with self._opened:
            yield self

    def service(self) -> CleanupService:
        """Return the service. Raises Failure, with a sentence for people, when it cannot be opened."""
        if self._service is None:
            try:
                self._service = self._open()
            except (ConfigError, DatabaseUnavailable, SchemaMismatch, UnsafeDirectoryError) as error:
                progress.hand_over(error)
                raise dg.Failure(str(error), allow_retries=False) from None
        return self._service

    def _open(self) -> CleanupService:
        settings = self.filesystem.settings()
        state = self._opened.enter_context(open_state(settings.state_dir))
        wait_for_database(settings, dg.get_dagster_logger().warning)
        engine = self.database.engine(settings, state)
        self._opened.callback(engine.dispose)
        # Also without a target of runs: what an interrupted purge left is settled, and nothing else, by whoever comes.
        runs = run_store_of(self._instance) if self._instance is not None else None
        installation = Installation(settings, engine, state, open_runs=runs)
        self._opened.callback(installation.close)
        return CleanupService(installation)
