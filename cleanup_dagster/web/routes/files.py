"""The files that the last scan saw, sorted, filtered and paged; and a new scan."""

import subprocess
import time
import uuid
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from cleanup_dagster.documents import Document, iso
from cleanup_dagster.interpreter import command_of
from cleanup_dagster.retention.defaults import things
from cleanup_dagster.retention.models import NS_PER_DAY, Reason
from cleanup_dagster.retention.rules import sentence
from cleanup_dagster.web.auth import visitor_of
from cleanup_dagster.web.bodies import Nothing
from cleanup_dagster.web.described import FILE, LAUNCHED, ok
from cleanup_dagster.web.errors import Refusal, reply
from cleanup_dagster.web.index import FileIndex, Filter, Row
from cleanup_dagster.web.parts import API, Parts, parts_of

router = APIRouter(prefix=f"{API}/files", tags=["files"])

PAGE_MAX = 500
Sort = Literal["age", "-age", "size", "-size", "path", "-path", "pipeline", "-pipeline"]
_EXAMPLE = {
    "total_files": 1000,
    "things": "files",
    "matching": 120,
    "matching_bytes": 7340032,
    "page": 1,
    "per_page": 50,
}
_SHORT = Query(max_length=200)


class Asked:
    """Which files, in which order, which page of them."""

    def __init__(
        self,
        q: Annotated[str, Query(max_length=500, description="part of the path")] = "",
        data_type: Annotated[str | None, _SHORT] = None,
        verdict: Literal["delete", "keep"] | None = None,
        reason: Annotated[Reason | None, Query(description="the rule that decided")] = None,
        status: Annotated[str | None, _SHORT] = None,
        sort: Sort = "-age",
        page: Annotated[int, Query(ge=1, le=10**9)] = 1,
        per_page: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
    ) -> None:
        goes = None if verdict is None else verdict == "delete"
        self.filter = Filter(q, data_type or None, goes, reason.value if reason else None, status or None)
        self.sort = sort
        self.page = page
        self.per_page = per_page

    def of(self, index: FileIndex, wanted: Filter) -> Document:
        """Return the page, with how much there is of what was asked for."""
        listed = index.page(
            wanted,
            self.sort.removeprefix("-"),
            (self.page - 1) * self.per_page,
            self.per_page,
            descending=self.sort.startswith("-"),
        )
        now_ns = time.time_ns()
        return {
            "matching": listed.matching.files,
            "matching_bytes": listed.matching.bytes,
            "page": self.page,
            "per_page": self.per_page,
            "scanned_at": iso(index.made_ns),
            "rows": [of_row(row, now_ns) for row in listed.rows],
        }


@router.get("", responses=ok({**_EXAMPLE, "scanned_at": "2026-01-31T09:00:00Z", "operations": [FILE]}))
def files(request: Request, asked: Annotated[Asked, Depends()]) -> Response:
    """Return files as the last scan saw them, with the verdict on each and the reason for it."""
    current = parts_of(request).snapshots.current
    if current is None:
        nothing = {"matching": 0, "matching_bytes": 0, "page": asked.page, "per_page": asked.per_page}
        nothing |= {"things": things(())}
        return reply({"success": True, "total_files": 0, **nothing, "scanned_at": None, "operations": []})
    found = asked.of(current.index, asked.filter)
    rows = found.pop("rows")
    what = things(facet.data_type for facet in current.index.facets)
    return reply({"success": True, "total_files": current.index.files, "things": what, **found, "operations": rows})


@router.post("/refresh", status_code=HTTPStatus.ACCEPTED, responses=ok(LAUNCHED, 202))
def refresh(request: Request, _: Nothing | None = None) -> Response:
    """Scan anew: a dry run in Dagster, or without Dagster a scan of the page's own. Nothing is deleted either way."""
    parts, actor = parts_of(request), visitor_of(request).actor
    if parts.launcher.state().reachable:
        run_id = parts.launching.launch("cleanup", {"dry_run": True, "type": "manual"}, actor, None)
        url = parts.launcher.url(run_id)
    else:
        run_id, url = _scan(parts, actor), None
    document = {"success": True, "message": "a new scan has begun", "run_id": run_id, "url": url}
    return reply(document, HTTPStatus.ACCEPTED)


def of_row(row: Row, now_ns: int) -> Document:
    """Return one file. Its age is as of now, its verdict and sentence as of the scan."""
    candidate = row.verdict.candidate
    return {
        "file_path": row.path,
        "file_size": row.size,
        "created_at": iso(row.since_ns),
        "modified_at": iso(row.mtime_ns),
        "age_days": round((now_ns - row.since_ns) / NS_PER_DAY, 2),
        "status": candidate.status,
        "pipeline_name": candidate.pipeline,
        "data_type": candidate.data_type,
        "verdict": "delete" if row.verdict.delete else "keep",
        "reason": row.verdict.reason.value,
        "sentence": sentence(row.verdict),
    }


def _scan(parts: Parts, actor: str) -> str:
    _ = parts.platform.installation  # whatever keeps it from opening is said now, and not in another process's log
    if parts.snapshots.is_scanning:
        raise Refusal(HTTPStatus.CONFLICT, "a scan is at work already; its result is shown when it is there")
    run_id = str(uuid.uuid4())
    parts.snapshots.scan(
        subprocess.Popen(  # noqa: S603  our own module
            command_of("cleanup_dagster.web.scanning", run_id, actor),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    )
    return run_id
