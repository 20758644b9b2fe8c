"""Launching one run at a time, and the same one for a request that is repeated under its idempotency key."""

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from http import HTTPStatus
from threading import Lock
from typing import Any, NamedTuple

import msgspec

from cleanup_dagster.database.runs import RunRecord
from cleanup_dagster.installation import Installation
from cleanup_dagster.records import Records
from cleanup_dagster.retention.models import NS_PER_SECOND
from cleanup_dagster.tags import EXECUTED_BY_TAG
from cleanup_dagster.web.errors import Refusal
from cleanup_dagster.web.launcher import KEY_TAG, REQUEST_TAG, DagsterUnavailable, Launcher
from cleanup_dagster.web.platform import Platform

_KEYS = 1_000
_KEY_SECONDS = 24 * 3_600
_ALIVE_NS = 60 * NS_PER_SECOND


class _Known(NamedTuple):
    request: str
    run_id: str
    at: float


class Launching:
    """The one place from which the page launches. A second launch waits for the first to be decided."""

    def __init__(self, platform: Platform, launcher: Launcher) -> None:
        self._platform = platform
        self._launcher = launcher
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lock = Lock()

    def launch(self, job: str, run_config: Mapping[str, Any], actor: str, key: str | None) -> str:
        """Launch a run, or find the one that this request launched before, and return its id.

        Raises Refusal: 409 when another run is at work or the key belongs to another request, 503 without Dagster.
        """
        if key is not None and not re.fullmatch(r"[!-~]{1,200}", key):
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "Idempotency-Key takes 1 to 200 visible characters")
        request = hashlib.sha256(msgspec.json.encode([job, dict(run_config)], order="sorted")).hexdigest()[:32]
        with self._lock:
            try:
                if key is not None and (known := self._before(key, request)):
                    return known
                self._require_alone()
                tags = {EXECUTED_BY_TAG: actor}
                if key is not None:
                    tags |= {KEY_TAG: key, REQUEST_TAG: request}
                run_id = self._launcher.launch(job, run_config, tags)
            except DagsterUnavailable as error:
                raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None
            if key is not None:
                self._remember(key, request, run_id)
            return run_id

    def _before(self, key: str, request: str) -> str | None:
        """Return the run that was launched under a key, by this process or by one before it."""
        known = self._known.get(key)
        if known is None or time.monotonic() - known.at > _KEY_SECONDS:
            launched = self._launcher.by_key(key)
            if launched is None:
                return None
            known = self._remember(key, launched.tags.get(REQUEST_TAG, ""), launched.run_id)
        if known.request != request:
            raise Refusal(
                HTTPStatus.CONFLICT,
                "this Idempotency-Key belongs to another request; use a new one for each",
                run_id=known.run_id,
            )
        return known.run_id

    def _remember(self, key: str, request: str, run_id: str) -> _Known:
        known = self._known[key] = _Known(request, run_id, time.monotonic())
        self._known.move_to_end(key)
        while len(self._known) > _KEYS:
            self._known.popitem(last=False)
        return known

    def _require_alone(self) -> None:
        """Refuse to launch beside another run: of Dagster's, or of a command line with the same database."""
        busy = self._launcher.unfinished()
        if busy:
            other = busy[0]
            how = "is queued" if other.status in {"QUEUED", "NOT_STARTED"} else "is at work"
            raise Refusal(
                HTTPStatus.CONFLICT,
                f"run {other.run_id} ({other.job}) {how} in Dagster; wait for it, or end it there",
                run_id=other.run_id,
            )
        run = at_work(self._platform.installation)
        if run is not None:
            raise Refusal(
                HTTPStatus.CONFLICT,
                f"run {run.run_id} is at work: process {run.pid} on {run.host}; wait for it",
                run_id=run.run_id,
            )


def at_work(installation: Installation) -> RunRecord | None:
    """Return the live run that is at work now, if there is one: its lock is held here, or it gave a sign of life."""
    unfinished = Records(installation).at_work()
    if not unfinished:
        return None
    run = unfinished[-1]
    if run.state_id != installation.state.id:
        return run if installation.clock() - run.heartbeat_ns < _ALIVE_NS else None
    with installation.state.lock() as free:
        return None if free else run
