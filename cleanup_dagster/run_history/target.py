"""The target of kind `dagster_runs`: no directory, but the Dagster instance that the job runs on."""

from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field

from cleanup_dagster.config_file import shown
from cleanup_dagster.retention.defaults import DAGSTER_RUNS
from cleanup_dagster.run_history.store import Keep
from cleanup_dagster.targets import TRUTH, Duration, Governed, whole

DATA_TYPE = DAGSTER_RUNS
KIND = "dagster_runs"

#: Dagster's statuses of runs that have ended. Whatever else there is, or will be, is not finished.
FINISHED = ("success", "failure", "canceled")


def _texts(value: Any) -> tuple[str, ...]:
    items = tuple(cast("list[object]", value)) if isinstance(value, (list, tuple)) else (None,)
    for item in items:
        if not isinstance(item, str) or not item.strip():
            raise ValueError(f"{shown(cast('object', value))} is not a list of texts; write ['daily_*', 'export']")
    return cast("tuple[str, ...]", items)


def _statuses(value: object) -> tuple[str, ...]:
    items = _texts(value)
    unknown = sorted(set(items) - set(FINISHED))
    if unknown or not items:
        right = f"write some of {', '.join(FINISHED)}: only finished runs can go"
        raise ValueError(f"{shown(unknown[0] if unknown else value)} is no status to purge by; {right}")
    return items


class RunsTarget(Governed):
    """Which of the instance's finished runs may go, and how. The policy `dagster_runs` says when."""

    kind: Literal["dagster_runs"] = Field(description=KIND)
    statuses: Annotated[tuple[str, ...], BeforeValidator(_statuses)] = FINISHED
    job_names: Annotated[tuple[str, ...], BeforeValidator(_texts)] = ("*",)
    keep_last_per_job: int = whole(1, 0, 10**6)
    keep_tag: str = Field(default="cleanup/keep", min_length=1, description="the key of a run tag")
    purge_run_keys: bool = Field(default=False, description=TRUTH)
    asset_events: Literal["keep_latest", "keep_all", "keep_whole_run"] = Field(
        default="keep_latest", description="keep_latest, keep_all or keep_whole_run"
    )
    keep_job_partitions: bool = Field(default=True, description=TRUTH)
    batch_runs: int = whole(100, 1, 1_000)
    pause_ms: int = whole(0, 0, 60_000, "a whole number of milliseconds")
    time_budget: Duration = Field(
        default=0.0, ge=0, le=7 * 86_400, description="seconds, or text such as '30m' or '2h', up to 7 days; 0 is none"
    )
    vacuum: bool = Field(default=True, description=TRUTH)

    @property
    def data_types(self) -> tuple[str, ...]:
        """The data type whose policy governs runs."""
        return (DATA_TYPE,)

    @property
    def keep(self) -> Keep:
        """What must be known after a purge as before."""
        return Keep(self.asset_events, self.keep_job_partitions)
