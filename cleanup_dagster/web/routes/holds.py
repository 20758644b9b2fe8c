"""Holds: promises that something stays, and why a file stays or would go."""

import time
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from cleanup_dagster.database.holds import InvalidHold
from cleanup_dagster.documents import of_explanation, of_hold
from cleanup_dagster.filesystem.names import to_os
from cleanup_dagster.retention.times import to_ns
from cleanup_dagster.web.auth import visitor_of
from cleanup_dagster.web.bodies import HoldRequest
from cleanup_dagster.web.described import HOLD, ok
from cleanup_dagster.web.errors import Refusal, reply
from cleanup_dagster.web.parts import API, parts_of

router = APIRouter(prefix=API, tags=["holds"])

_PLACED = {"message": "the hold is in force", "id": 1, "warning": None}
_EXPLAINED: dict[str, Any] = {
    "path": "/srv/operations/operation_17.json",
    "exists": True,
    "target": "operations",
    "data_type": "completed_operations",
    "retention_days": 90,
    "enabled": True,
    "age_days": 122.61,
    "age_from": "end_time",
    "would_delete": True,
    "rule": "expired",
    "reason": "older than 90 days: it is 122.6 days old by its end_time",
    "due_at": "2026-01-31T09:00:00Z",
    "backups": [],
}
_LATEST_YEAR = 9_000


@router.get("/holds", responses=ok({"holds": [HOLD]}))
def holds(request: Request) -> Response:
    """Return every hold, those that are over too."""
    now_ns = time.time_ns()
    records = parts_of(request).platform.records
    listed = [of_hold(row, now_ns, records.idleness(row.hold.pattern, row.hold.data_type)) for row in records.holds()]
    return reply({"success": True, "holds": listed})


@router.post("/holds", status_code=HTTPStatus.CREATED, responses=ok(_PLACED, 201))
def place(request: Request, body: HoldRequest) -> Response:
    """Place a hold. It wins over every policy and over type emergency, from the next item on.

    One that lies in no configured target is placed, too, with a `warning`: until there is such a target it keeps
    nothing.
    """
    records = parts_of(request).platform.records
    number = records.hold(
        body.pattern,
        body.reason,
        visitor_of(request).actor,
        data_type=body.data_type,
        pipeline=body.pipeline,
        until_ns=None if body.until is None else _moment(body.until),
    )
    warning = records.idleness(body.pattern, body.data_type)
    message = f"the hold is placed, but keeps nothing: {warning}" if warning else "the hold is in force"
    return reply({"success": True, "message": message, "id": number, "warning": warning or None}, HTTPStatus.CREATED)


@router.delete("/holds/{hold_id}", responses=ok({"message": "hold 1 is released"}))
def release(request: Request, hold_id: Annotated[int, Path(ge=1, le=2**31 - 1)]) -> Response:
    """Release a hold. What it protected is judged by its policy again."""
    if not parts_of(request).platform.records.release(hold_id):
        raise Refusal(HTTPStatus.NOT_FOUND, f"there is no hold {hold_id}")
    return reply({"success": True, "message": f"hold {hold_id} is released"})


@router.get("/explain", responses=ok(_EXPLAINED))
def explain(
    request: Request, path: Annotated[str, Query(min_length=1, max_length=4_096, examples=[_EXPLAINED["path"]])]
) -> Response:
    """Say which policy governs a file, whether it would go, and when; of one that is gone, where its backups are."""
    try:
        place = to_os(path)
    except ValueError as error:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
    if not place.startswith("/") or "\0" in place:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"{path[:200]!r} is no absolute path")
    return reply({"success": True, **of_explanation(parts_of(request).platform.service.explain(place))})


def _moment(text: str) -> int:
    """Return the moment that a text names, in nanoseconds. Raises InvalidHold."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or moment.year > _LATEST_YEAR:
        raise InvalidHold(f"until: {text!r} is no moment; write ISO 8601 with a zone, such as 2027-01-31T00:00:00Z")
    return to_ns(moment)
