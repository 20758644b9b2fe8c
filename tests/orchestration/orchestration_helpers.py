# pyright: reportUnknownMemberType=false
# Dagster leaves parts of its own signatures unknown.
"""A small platform with something to clean, and the code location over it, as Dagster would load it."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
from two_roots import TwoRoots

from cleanup_dagster.orchestration.location import code_location
from cleanup_dagster.settings import load_settings

LIVE = {"dry_run": False, "type": "manual"}

#: Name, days old, and what it says: two that have outlived their policies (90 and 14 days) and three that have not.
OPERATIONS = (
    ("operation_old.json", 120, {"status": "completed", "success": True}),
    ("operation_crashed.json", 20, {"status": "error", "success": False, "message": "out of memory"}),
    ("operation_new.json", 5, {"status": "completed", "success": True}),
    ("operation_crashed_now.json", 2, {"status": "failed", "success": False}),
    ("operation_running.json", 0, {"status": "running", "progress": 40, "completed": False}),
)
EXPIRED_OPERATIONS = {"operation_old.json", "operation_crashed.json"}
EXPIRED_LOGS = {"dbt.log.2"}


class Platform(TwoRoots):
    """Directories `ops` and `dbt` with files of all ages, and a `cleanup.yaml` for them."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        for name, days, said in OPERATIONS:
            self.put(self.ops / name, json.dumps({"operation_id": name, **said}), days)
        for number, days in enumerate((0, 3, 9)):
            self.put(self.dbt / f"dbt.log.{number}", "x" * 1000, days)
        self.configure()

    def definitions(self) -> dg.Definitions:
        """Return what Dagster would load now."""
        return code_location(load_settings())

    def files(self) -> dict[str, bytes]:
        """Return what both targets hold."""
        found = [path for root in (self.ops, self.dbt) if root.is_dir() for path in root.rglob("*") if path.is_file()]
        return {path.name: path.read_bytes() for path in found}

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Return the answer of the embedded database."""
        with closing(sqlite3.connect(self.state / "cleanup.db")) as conn:
            return conn.execute(query).fetchall()

    def tell(self, statement: str) -> None:
        """Change the embedded database as a person would."""
        with closing(sqlite3.connect(self.state / "cleanup.db")) as conn, conn:
            conn.execute(statement)


class Ran:
    """A finished run: what succeeded, what failed with which words, and what the steps showed."""

    def __init__(self, result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance) -> None:
        self.run_id = result.run_id
        self.success = result.success
        self._events = result.all_events
        self._logs = [entry for entry in instance.all_logs(result.run_id) if entry.dagster_event is None]

    @property
    def steps(self) -> set[str]:
        """The steps that succeeded, without their mapping keys."""
        return {str(event.step_key).split("[")[0] for event in self._events if event.is_step_success}

    @property
    def failures(self) -> dict[str, str]:
        """The steps that failed, each with the one sentence that it says."""
        return {
            str(event.step_key): str(event.step_failure_data.user_failure_data.description)
            for event in self._events
            if event.is_step_failure and event.step_failure_data.user_failure_data
        }

    def failure_metadata(self, step: str) -> dict[str, Any]:
        for event in self._events:
            if event.is_step_failure and event.step_key == step and event.step_failure_data.user_failure_data:
                return _plain(event.step_failure_data.user_failure_data.metadata)
        raise LookupError(step)

    def shown(self, step: str, output: str = "result") -> dict[str, Any]:
        """Return the metadata of a step's output; a table comes as the list of its rows."""
        for event in self._events:
            if event.is_successful_output and event.step_key == step:
                data = event.step_output_data
                if data.output_name == output and not data.step_output_handle.mapping_key:
                    return _plain(data.metadata)
        raise LookupError(f"{step}.{output}")

    def logged(self, level: int) -> list[str]:
        """Return what the steps logged at one level, in order."""
        return [entry.user_message for entry in self._logs if entry.level == level]


def _plain(metadata: Any) -> dict[str, Any]:
    return {
        key: _rows(value) if isinstance(value, dg.TableMetadataValue) else value.value
        for key, value in metadata.items()
    }


def _rows(table: dg.TableMetadataValue) -> list[dict[str, Any]]:
    return [dict(record.data) for record in table.records]


def run_job(
    platform: Platform, config: dict[str, Any] | None = None, job: str = "cleanup", tags: dict[str, str] | None = None
) -> Ran:
    """Load the code location and run a job of it in this process."""
    return run_loaded(platform.definitions(), config, job, tags)


def run_loaded(
    defs: dg.Definitions, config: dict[str, Any] | None = None, job: str = "cleanup", tags: dict[str, str] | None = None
) -> Ran:
    """Run a job of a code location that was loaded before."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def(job).execute_in_process(
            run_config=config or {}, instance=instance, raise_on_error=False, tags=tags
        )
        return Ran(result, instance)
