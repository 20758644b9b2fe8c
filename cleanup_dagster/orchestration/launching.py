# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# Dagster leaves parts of its own signatures unknown.
"""Executing a job in this process, and asking the instance about the schedule, for the command line."""

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import dagster as dg

from cleanup_dagster.tags import EXECUTED_BY_TAG, SCHEDULE

#: Dagster lists every key that an instance could have had, when one is wrong.
_SAID_MAX = 400


class InstanceError(Exception):
    """Dagster's instance cannot be used; the message is Dagster's own."""


class Launched(NamedTuple):
    """How a run ended for Dagster. `failure` is the first failed step's sentence, empty on success."""

    success: bool
    failure: str


class ScheduleState(NamedTuple):
    """Whether the daily schedule runs, and whether a daemon is alive to fire it."""

    running: bool
    daemon: bool


def launch(
    definitions: dg.Definitions, job: str, run_config: Mapping[str, Any], run_id: str, executed_by: str
) -> Launched:
    """Execute a job in this process, on the instance of DAGSTER_HOME when that is set. Raises InstanceError."""
    with _instance() as instance:
        result = definitions.resolve_job_def(job).execute_in_process(
            run_config=dict(run_config),
            instance=instance,
            raise_on_error=False,
            run_id=run_id,
            tags={EXECUTED_BY_TAG: executed_by},
        )
    failures = (sentence_of(event) for event in result.all_events if event.is_step_failure)
    return Launched(result.success, "" if result.success else next(failures, "the run failed"))


def schedule_state() -> ScheduleState:
    """Return the state of the daily schedule on the instance of DAGSTER_HOME. Raises InstanceError."""
    with _instance() as instance:
        return state_of_schedule(instance)


def state_of_schedule(instance: dg.DagsterInstance) -> ScheduleState:
    """Return the state of the daily schedule on an instance. Raises InstanceError."""
    try:
        states = instance.all_instigator_state()
        running = any(state.instigator_name == SCHEDULE and state.is_running for state in states)
        daemon = instance.get_daemon_statuses().get("SCHEDULER")
    except Exception as error:
        raise InstanceError(_said(error)) from error
    return ScheduleState(running, bool(daemon and daemon.healthy))


@contextmanager
def _instance() -> Generator[dg.DagsterInstance]:
    try:
        # Without DAGSTER_HOME, `get` would read a dagster.yaml that happens to lie in the working directory.
        opened = dg.DagsterInstance.get() if os.environ.get("DAGSTER_HOME") else dg.DagsterInstance.ephemeral()
    except Exception as error:
        raise InstanceError(_said(error)) from error
    with opened as instance:
        yield instance


def sentence_of(event: dg.DagsterEvent) -> str:
    """Return why a step failed, in the words of whoever made it fail."""
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return data.user_failure_data.description
    return data.error.message.strip() if data.error else "a step failed"


def _said(error: BaseException) -> str:
    """Return what Dagster, its YAML reader or its database said, on one line and cut where it gets long."""
    lines = [line.strip() for line in str(error).splitlines() if not line.startswith("(Background on this error")]
    cause = error.__cause__
    if cause is not None and str(cause) not in str(error):  # "too many retries" alone helps nobody
        lines.append(f"({str(cause).strip().partition(chr(10))[0]})")
    return " ".join(filter(None, lines))[:_SAID_MAX] or type(error).__name__
