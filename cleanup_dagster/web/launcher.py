"""Runs are launched in Dagster and watched there, through its webserver's GraphQL: the page deletes nothing by itself.

Plain HTTP instead of Dagster's own client: that one imports all of Dagster into the page (0.9 s of processor time and
37 MB more than the page itself needs), has no time-out, and asks only for what a launch needs.
"""

import time
from collections.abc import Mapping
from http import HTTPStatus
from threading import Lock
from typing import Any, NamedTuple, cast

import httpx

from cleanup_dagster.tags import LOCK_TAG, SCHEDULE
from cleanup_dagster.web.errors import Refusal
from cleanup_dagster.web_settings import Web

KEY_TAG = "cleanup/idempotency_key"
REQUEST_TAG = "cleanup/idempotency_request"
#: Dagster's words for a run that has not ended.
UNFINISHED = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")
_TIMEOUT = httpx.Timeout(20, connect=2)
_STATE_SECONDS = 5.0

_RUN = "runId jobName status creationTime startTime endTime runConfig tags { key value }"
_LOCATIONS = """{ repositoriesOrError {
  __typename
  ... on RepositoryConnection { nodes { name location { name } jobs { name } schedules {
    name scheduleState { status } futureTicks(limit: 1) { results { timestamp } } } } }
  ... on PythonError { message } } }"""
_LAUNCH = """mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on RunConfigValidationInvalid { errors { message } }
  ... on Error { message } } }"""
_RUN_QUERY = (
    "query Run($id: ID!) { runOrError(runId: $id) { __typename ... on Run { "
    + _RUN
    + """ eventConnection(limit: 1000) { events { __typename
      ... on ExecutionStepFailureEvent { failureMetadata { description } error { message } }
      ... on RunFailureEvent { message error { message } } } } } } }"""
)
_RUNS_QUERY = (
    "query Runs($filter: RunsFilter!, $limit: Int!) { runsOrError(filter: $filter, limit: $limit) { __typename "
    "... on Runs { results { " + _RUN + " } } ... on Error { message } } }"
)


class DagsterUnavailable(Exception):  # noqa: N818 - reads as what it says
    """Dagster's webserver does not answer, or not as it should; the message says what to start."""


class LaunchedRun(NamedTuple):
    """A run as Dagster knows it. Moments are seconds since the epoch; `failure` is what it failed with, if it did."""

    run_id: str
    job: str
    status: str
    created: float | None
    started: float | None
    ended: float | None
    tags: Mapping[str, str]
    config: Mapping[str, Any]
    failure: str = ""


class DagsterState(NamedTuple):
    """Whether Dagster answers, whether the daily schedule runs, and when it fires next (seconds since the epoch)."""

    reachable: bool
    schedule_running: bool = False
    next_run: float | None = None
    problem: str = ""


class _Location(NamedTuple):
    location: str
    repository: str
    schedule: Mapping[str, Any]


class Launcher:
    """One webserver of Dagster, asked over HTTP. Thread-safe."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._client = httpx.Client(timeout=_TIMEOUT, follow_redirects=False, trust_env=False)
        self._state = DagsterState(reachable=False, problem="not asked yet")
        self._asked = -_STATE_SECONDS
        self._asking = Lock()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def url(self, run_id: str) -> str:
        """Return where a browser sees a run in Dagster."""
        return f"{self._web.links_to}/runs/{run_id}"

    def state(self) -> DagsterState:
        """Return how Dagster is, as it was at most five seconds ago; whoever comes while it is asked takes that."""
        if time.monotonic() - self._asked >= _STATE_SECONDS and self._asking.acquire(blocking=self._asked < 0):
            try:
                self._state = self._ask_state()
                self._asked = time.monotonic()
            finally:
                self._asking.release()
        return self._state

    def launch(self, job: str, run_config: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Launch a run and return its id. Raises DagsterUnavailable, or Refusal when Dagster does not take it."""
        place = self._location()
        params = {
            "selector": {
                "repositoryLocationName": place.location,
                "repositoryName": place.repository,
                "jobName": job,
            },
            "runConfigData": dict(run_config),
            "executionMetadata": {"tags": _tags(tags)},
        }
        launched = self._ask(_LAUNCH, params=params)["launchRun"]
        if launched["__typename"] == "LaunchRunSuccess":
            return launched["run"]["runId"]
        said = "; ".join(error["message"] for error in launched.get("errors", [])) or launched.get("message", "")
        raise Refusal(HTTPStatus.BAD_GATEWAY, f"Dagster did not take the run: {_first_line(said)}")

    def run(self, run_id: str) -> LaunchedRun | None:
        """Return a run, or None when Dagster has none of that id. Raises DagsterUnavailable."""
        found = self._ask(_RUN_QUERY, id=run_id)["runOrError"]
        return _launched(found) if found["__typename"] == "Run" else None

    def unfinished(self) -> list[LaunchedRun]:
        """Return the cleanups and restores that are queued or at work, newest first. Raises DagsterUnavailable."""
        return self._runs({"tags": _tags(LOCK_TAG), "statuses": list(UNFINISHED)}, 25)

    def by_key(self, key: str) -> LaunchedRun | None:
        """Return the run that was launched with an idempotency key, or None. Raises DagsterUnavailable."""
        return next(iter(self._runs({"tags": _tags({KEY_TAG: key})}, 1)), None)

    def _runs(self, wanted: Mapping[str, Any], limit: int) -> list[LaunchedRun]:
        found = self._ask(_RUNS_QUERY, filter=wanted, limit=limit)["runsOrError"]
        if found["__typename"] != "Runs":
            raise DagsterUnavailable(f"Dagster does not list its runs: {_first_line(found.get('message', ''))}")
        return [_launched(run) for run in found["results"]]

    def _ask_state(self) -> DagsterState:
        try:
            schedule = self._location().schedule
        except DagsterUnavailable as error:
            return DagsterState(reachable=False, problem=str(error))
        running = schedule.get("scheduleState", {}).get("status") == "RUNNING"
        ticks = schedule.get("futureTicks", {}).get("results", [])
        return DagsterState(True, running, ticks[0]["timestamp"] if running and ticks else None)

    def _location(self) -> _Location:
        """Return the code location that has our jobs, wherever the workspace put it."""
        found = self._ask(_LOCATIONS)["repositoriesOrError"]
        if found["__typename"] != "RepositoryConnection":
            raise DagsterUnavailable(f"Dagster cannot load its workspace: {_first_line(found.get('message', ''))}")
        for node in found["nodes"]:
            schedules = {schedule["name"]: schedule for schedule in node["schedules"]}
            if {"cleanup", "restore"} <= {job["name"] for job in node["jobs"]} and SCHEDULE in schedules:
                return _Location(node["location"]["name"], node["name"], schedules[SCHEDULE])
        raise DagsterUnavailable(
            f"Dagster at {self._web.dagster_url} has not loaded the code location cleanup_dagster; add it to its "
            "workspace, and look there for what keeps it from loading"
        )

    def _ask(self, query: str, **variables: Any) -> dict[str, Any]:
        url = f"{self._web.dagster_url}/graphql"
        try:
            answered = self._client.post(url, json={"query": query, "variables": variables})
            document: Any = answered.json()
        except (httpx.HTTPError, ValueError) as error:
            problem = f"Dagster's webserver does not answer at {self._web.dagster_url} ({type(error).__name__})"
        else:
            data = cast("dict[str, Any]", document).get("data") if isinstance(document, dict) else None
            if answered.status_code == HTTPStatus.OK and data:
                return data
            problem = f"what answers at {self._web.dagster_url} is no webserver of Dagster, or of another version"
        raise DagsterUnavailable(
            f"{problem}; start dagster-webserver and dagster-daemon (make serve starts both), or correct "
            "DAGSTER_WEBSERVER_URL"
        )


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def _launched(run: Mapping[str, Any]) -> LaunchedRun:
    return LaunchedRun(
        run["runId"],
        run["jobName"],
        run["status"],
        run["creationTime"],
        run["startTime"],
        run["endTime"],
        {tag["key"]: tag["value"] for tag in run["tags"]},
        run["runConfig"] if isinstance(run["runConfig"], dict) else {},
        _failure(run.get("eventConnection", {}).get("events", [])),
    )


def _failure(events: list[Mapping[str, Any]]) -> str:
    """Return what a run failed with: the first failed step's own sentence, else what Dagster says of the run."""
    steps = [event for event in events if event["__typename"] == "ExecutionStepFailureEvent"]
    ends = [event for event in events if event["__typename"] == "RunFailureEvent"]
    for event in steps:
        metadata: dict[str, Any] = event.get("failureMetadata") or {}
        if metadata.get("description"):
            return metadata["description"]
    for event in (*steps, *ends):
        error: dict[str, Any] = event.get("error") or {}
        if said := error.get("message") or event.get("message"):
            return _first_line(said)
    return ""


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0][:500] if lines else "no reason was given"
