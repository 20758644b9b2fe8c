"""What the database remembers and people may look at or change: policies, holds, runs and audit, for every face."""

from collections.abc import Callable, Collection, Sequence

from cleanup_dagster.database import audit, holds, policies, run_targets, runs
from cleanup_dagster.database.audit import AuditRow, AuditTotals
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.holds import HoldRow
from cleanup_dagster.database.policies import PolicyRow
from cleanup_dagster.database.run_targets import TargetRecord
from cleanup_dagster.database.runs import RunRecord, RunStatus
from cleanup_dagster.installation import Installation
from cleanup_dagster.reach import out_of_reach
from cleanup_dagster.retention.models import CleanupType

_NAMED = 8  # of the candidates for an ambiguous run id


class RunNotFoundError(LookupError):
    """A run id that names no run, or more than one; the message says which there are."""


class Records:
    """The records of one installation. Every verb raises DatabaseUnavailable when the database cannot be used."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._database = installation.database

    def policies(self) -> list[PolicyRow]:
        """Return every policy, those that cannot be obeyed with their problem."""
        with reading(self._database) as conn:
            return policies.list_policies(conn)

    def change_policies(
        self,
        data_types: Sequence[str],
        changed_by: str,
        *,
        retention_days: int | None = None,
        enabled: bool | None = None,
        keep_last: int | None = None,
        versions: Collection[str] | None = None,
    ) -> list[PolicyRow]:
        """Change the policies of some data types, all of them or none, and return them as they are now.

        With `versions` each has to be at one of them. Raises UnknownDataType, InvalidPolicy or PolicyChanged.
        """
        with self._database.begin() as conn:
            return [
                policies.change_policy(
                    conn,
                    data_type,
                    retention_days=retention_days,
                    enabled=enabled,
                    keep_last=keep_last,
                    changed_by=changed_by,
                    versions=versions,
                )
                for data_type in data_types
            ]

    def reset_policies(self, changed_by: str) -> list[str]:
        """Bring every default policy back, and return the data types that changed."""
        with self._database.begin() as conn:
            return policies.reset_policies(conn, changed_by)

    def holds(self) -> list[HoldRow]:
        """Return every hold, those that are over too."""
        with reading(self._database) as conn:
            return holds.list_holds(conn)

    def hold(
        self,
        pattern: str,
        reason: str,
        placed_by: str,
        *,
        data_type: str | None = None,
        pipeline: str | None = None,
        until_ns: int | None = None,
    ) -> int:
        """Place a hold and return its id. Raises InvalidHold for one that would protect nothing."""
        with self._database.begin() as conn:
            return holds.add_hold(
                conn,
                pattern=pattern,
                reason=reason,
                placed_by=placed_by,
                now_ns=self._installation.clock(),
                data_type=data_type,
                pipeline=pipeline,
                until_ns=until_ns,
            )

    def idleness(self, pattern: str, data_type: str | None = None) -> str:
        """Say why a hold keeps nothing as the targets are configured here; empty when it may keep something.

        A warning and no refusal: the target may be planned, or be another host's that shares the database.
        """
        return out_of_reach(self._installation.settings, pattern, data_type)

    def release(self, hold_id: int) -> bool:
        """Remove a hold; False when there is none of that id."""
        with self._database.begin() as conn:
            return holds.remove_hold(conn, hold_id)

    def history(self, limit: int | None, *, of_run: str | None = None, since_ns: int | None = None) -> list[AuditRow]:
        """Return the latest rows of the audit, newest first, of one run or from a moment on when that is given."""
        with reading(self._database) as conn:
            return audit.history(conn, limit, of_run=of_run, since_ns=since_ns)

    def totals(self) -> dict[str, AuditTotals]:
        """Return what all cleanups together did, by data type."""
        with reading(self._database) as conn:
            return audit.totals(conn)

    def runs(self, limit: int, offset: int = 0) -> list[RunRecord]:
        """Return the latest runs after the first `offset`, dry ones and restores too, newest first."""
        with reading(self._database) as conn:
            return runs.find_runs(conn, limit=limit, offset=offset)

    def run(self, run_id: str) -> RunRecord | None:
        """Return one run, or None when there is none of that id."""
        with reading(self._database) as conn:
            return runs.get_run(conn, run_id)

    def targets_of(self, run_id: str) -> list[TargetRecord]:
        """Return what a live run planned and did, target by target."""
        with reading(self._database) as conn:
            return run_targets.list_targets(conn, run_id)

    def run_counts(self) -> dict[tuple[CleanupType, bool, RunStatus], int]:
        """Return how many runs there are by type, by whether they were dry, and by status."""
        with reading(self._database) as conn:
            return runs.count_runs(conn)

    def at_work(self) -> list[RunRecord]:
        """Return the live runs that never ended, oldest first: the one at work, and those that died."""
        with reading(self._database) as conn:
            return runs.unfinished_live_runs(conn)

    def resolve(self, typed: str, wanted: Callable[[RunRecord], bool]) -> RunRecord:
        """Return the one run whose id is `typed` or begins with it, of those that are `wanted` if there are any.

        Raises RunNotFoundError when there is none, or more than one.
        """
        with reading(self._database) as conn:
            found = runs.find_runs(conn, typed) if typed else []
        exact = [run for run in found if run.run_id == typed]
        candidates = exact or [run for run in found if wanted(run)] or found
        if len(candidates) == 1:
            return candidates[0]
        if not candidates:
            raise RunNotFoundError(f"there is no run {typed!r}; `cleanup-operations history --runs` lists them")
        named = ", ".join(run.run_id for run in candidates[:_NAMED])
        more = f" and {len(candidates) - _NAMED} more" if len(candidates) > _NAMED else ""
        raise RunNotFoundError(f"{typed!r} could be {len(candidates)} runs: {named}{more}; type more of the id")
