"""The backups: what there are, until when, and every file in them."""

from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from cleanup_dagster.documents import of_backup_file, of_backups
from cleanup_dagster.records import RunNotFoundError
from cleanup_dagster.web.described import BACKUPS, ok
from cleanup_dagster.web.errors import reply
from cleanup_dagster.web.parts import API, parts_of
from cleanup_dagster.web.routes.files import PAGE_MAX
from cleanup_dagster.web.routes.runs import RunIdPath

router = APIRouter(prefix=f"{API}/backups", tags=["backups"])

_FILE = {
    "target": "operations",
    "path": "/srv/operations/operation_17.json",
    "data_type": "completed_operations",
    "bytes": 2048,
    "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "copy": "/tmp/cleanup_backups/operation_17.json.backup",  # noqa: S108  an example
}


@router.get("", responses=ok({"backups": [BACKUPS]}))
def backups(request: Request) -> Response:
    """Return what backups there are, by run and target, and when each expires."""
    found = parts_of(request).platform.service.backups()
    return reply({"success": True, "backups": [of_backups(one) for one in found]})


@router.get("/{run_id}/files", responses=ok({"files": [_FILE], "matching": 120, "page": 1, "per_page": 50}))
def backed_up_files(
    request: Request,
    run_id: RunIdPath,
    q: Annotated[str, Query(max_length=500, description="part of the path")] = "",
    page: Annotated[int, Query(ge=1, le=10**9)] = 1,
    per_page: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
) -> Response:
    """Return the files that a run backed up, and where their copies lie. Reads the run's manifests as a stream."""
    service = parts_of(request).platform.service
    if not service.backups(run_id):
        raise RunNotFoundError(f"there are no backups of a run {run_id!r}")
    text = q.lower()
    wanted = (one for one in service.backed_up_files(run_id) if text in one.path.lower())
    start = (page - 1) * per_page
    before = sum(1 for _ in islice(wanted, start))
    shown = list(islice(wanted, per_page))
    matching = before + len(shown) + sum(1 for _ in wanted)
    documents = [of_backup_file(one) for one in shown]
    return reply({"success": True, "files": documents, "matching": matching, "page": page, "per_page": per_page})
