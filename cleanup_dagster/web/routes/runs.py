"""Runs: what they did, how far they are, and the launching of new ones."""

from datetime import datetime, timezone
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response

from cleanup_dagster.database.runs import RunRecord, RunStatus
from cleanup_dagster.documents import Document, iso, of_audit, of_backups, of_run
from cleanup_dagster.handles import Step
from cleanup_dagster.inventory import BackupSet
from cleanup_dagster.records import RunNotFoundError
from cleanup_dagster.retention.models import NS_PER_SECOND, CleanupType
from cleanup_dagster.tags import EXECUTED_BY_TAG
from cleanup_dagster.web.auth import visitor_of
from cleanup_dagster.web.bodies import CleanupRequest, Nothing, RestoreRequestBody
from cleanup_dagster.web.described import BACKUPS, HISTORY, LAUNCHED, RUN, ok
from cleanup_dagster.web.errors import reply
from cleanup_dagster.web.launcher import UNFINISHED, DagsterUnavailable, LaunchedRun
from cleanup_dagster.web.parts import API, Parts, parts_of

router = APIRouter(prefix=API, tags=["runs"])

_PER_PAGE = 50
_STEPS = {"judged": "scan", "backed up": "back up", "deleted": "delete", "restored": "restore"}
_PROGRESS = {
    "step": "delete",
    "target": "operations",
    "done": 40,
    "of": 120,
    "things": "files",
    "rate": 20.5,
    "remaining_s": 4.0,
}
_TARGET = {
    "target": "operations",
    "root": "/srv/operations",
    "scanned_files": 1000,
    "expired_files": 120,
    "expired_bytes": 7340032,
    "deleted_files": 120,
    "freed_bytes": 7340032,
    "failed_files": 0,
    "backup_files": 120,
    "backup_bytes": 7340032,
}

Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=200)]
RunIdPath = Annotated[str, Path(pattern="^[A-Za-z0-9_-]{1,80}$")]


@router.post("/run", responses=ok({**LAUNCHED, "cleanup_type": "manual", "dry_run": True}))
def run(request: Request, body: CleanupRequest, idempotency_key: Key = None) -> Response:
    """Launch a cleanup in Dagster. One at a time: 409 names the run that is at work."""
    config = {"dry_run": body.dry_run, "type": body.cleanup_type, "skip_backup": body.skip_backup}
    said = "the dry run was launched; it deletes nothing" if body.dry_run else "the cleanup was launched"
    more: Document = {"cleanup_type": body.cleanup_type, "dry_run": body.dry_run}
    return _launch(request, "cleanup", config, idempotency_key, said, more)


@router.post("/plans/{run_id}/apply", responses=ok(LAUNCHED))
def apply(request: Request, run_id: RunIdPath, _: Nothing | None = None, idempotency_key: Key = None) -> Response:
    """Launch a run that deletes exactly what a dry run's plan names, each file verified again."""
    service = parts_of(request).platform.service
    if parts_of(request).platform.records.run(run_id) is None:
        raise RunNotFoundError(f"there is no run {run_id!r} whose plan could be applied")
    service.require_applicable(run_id)
    config = {"dry_run": False, "type": "manual", "plan": run_id}
    return _launch(request, "cleanup", config, idempotency_key, "the plan is being applied", {})


@router.post("/restore", responses=ok(LAUNCHED))
def restore(request: Request, body: RestoreRequestBody, idempotency_key: Key = None) -> Response:
    """Launch a restore: of a whole run, or of what matches one of the paths and data types."""
    undone = parts_of(request).platform.records.run(body.run_id)
    if undone is None:
        raise RunNotFoundError(f"there is no run {body.run_id!r} that could be undone")
    config = {
        "run_id": body.run_id,
        "dry_run": body.dry_run,
        "paths": list(body.paths),
        "data_types": list(body.data_types),
    }
    said = "the backups are being verified" if body.dry_run else "the restore was launched"
    return _launch(request, "restore", config, idempotency_key, said, {})


@router.get("/runs", responses=ok({"runs": [RUN], "page": 1, "per_page": 50}))
def runs(request: Request, page: Annotated[int, Query(ge=1, le=10**6)] = 1) -> Response:
    """Return the runs, newest first; before them on the first page those that wait in Dagster."""
    parts = parts_of(request)
    known = parts.platform.records.runs(_PER_PAGE, (page - 1) * _PER_PAGE)
    listed = [_with_url(parts, of_run(one), one.cleanup_type) for one in known]
    if page == 1:
        ids = {one.run_id for one in known}
        listed = [_queued(parts, one) for one in _unfinished(parts) if one.run_id not in ids] + listed
    return reply({"success": True, "runs": listed, "page": page, "per_page": _PER_PAGE})


@router.get(
    "/runs/{run_id}",
    responses=ok(
        {
            "run": RUN,
            "progress": _PROGRESS,
            "dagster_status": "SUCCESS",
            "audit": [HISTORY],
            "targets": [_TARGET],
            "backups": [BACKUPS],
            "restorable": True,
        }
    ),
)
def one_run(request: Request, run_id: RunIdPath) -> Response:
    """Return one run: how far it is, what it did by data type and target, and what backups of it there are."""
    parts = parts_of(request)
    records, service = parts.platform.records, parts.platform.service
    record = records.run(run_id)
    launched = _in_dagster(parts, run_id)
    if record is None:
        if launched is None:
            raise RunNotFoundError(f"there is no run {run_id!r}")
        nothing: Document = {"audit": [], "targets": [], "backups": [], "restorable": False}
        status = {"progress": None, "dagster_status": launched.status}
        return reply({"success": True, "run": _queued(parts, launched), **status, **nothing})
    document = _with_url(parts, of_run(record), record.cleanup_type)
    is_running = record.status is RunStatus.RUNNING
    if is_running and launched is not None and launched.status not in UNFINISHED:
        said = "its process ended before the run did; the next live run settles what was in hand"
        document |= {"status": RunStatus.INTERRUPTED.value, "message": said}
        is_running = False
    backups = service.backups(run_id)
    return reply(
        {
            "success": True,
            "run": document,
            "progress": _progress(service.progress_of(run_id)) if is_running else None,
            "dagster_status": launched.status if launched else None,
            "audit": [of_audit(row) for row in records.history(None, of_run=run_id)],
            "targets": _targets(parts, run_id),
            "backups": [of_backups(one) for one in backups],
            "restorable": _is_restorable(record, backups),
        }
    )


def _launch(request: Request, job: str, config: dict[str, Any], key: str | None, said: str, more: Document) -> Response:
    parts = parts_of(request)
    run_id = parts.launching.launch(job, config, visitor_of(request).actor, key)
    url = parts.launcher.url(run_id)
    return reply({"success": True, "message": said, **more, "run_id": run_id, "url": url})


def _with_url(parts: Parts, document: Document, kind: CleanupType) -> Document:
    what = "restore" if kind is CleanupType.RESTORE else "cleanup"
    return {**document, "kind": what, "url": parts.launcher.url(str(document["run_id"]))}


def _unfinished(parts: Parts) -> list[LaunchedRun]:
    if not parts.launcher.state().reachable:
        return []
    try:
        return parts.launcher.unfinished()
    except DagsterUnavailable:
        return []


def _in_dagster(parts: Parts, run_id: str) -> LaunchedRun | None:
    if not parts.launcher.state().reachable:
        return None
    try:
        return parts.launcher.run(run_id)
    except DagsterUnavailable:
        return None


def _queued(parts: Parts, run: LaunchedRun) -> Document:
    """Describe a run that Dagster knows and we do not: it waits, or it failed before it could say anything."""
    waiting = run.status in UNFINISHED
    began = run.started or run.created
    message = "" if waiting else run.failure or f"it ended in Dagster ({run.status.lower()}) before it began"
    return {
        "run_id": run.run_id,
        "cleanup_type": "restore" if run.job == "restore" else str(run.config.get("type", "manual")),
        "kind": "restore" if run.job == "restore" else "cleanup",
        "dry_run": bool(run.config.get("dry_run", True)),
        "status": "queued" if waiting else "failed",
        "started_at": _moment(began),
        "finished_at": _moment(run.ended),
        "executed_by": run.tags.get(EXECUTED_BY_TAG, "Dagster"),
        "host": "",
        "plan": str(run.config.get("plan", "")) or None,
        **dict.fromkeys(
            ("scanned_files", "expired_files", "expired_bytes", "deleted_files", "freed_bytes", "failed_files"), 0
        ),
        "message": message,
        "url": parts.launcher.url(run.run_id),
    }


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def _progress(step: Step | None) -> Document | None:
    if step is None:
        return None
    seconds = (step.at_ns - step.began_ns) / NS_PER_SECOND
    rate = round(step.files / seconds, 1) if seconds > 0 else 0.0
    remaining = round((step.of - step.files) / rate, 1) if rate and step.of >= step.files else None
    return {
        "step": _STEPS.get(step.done, step.done),
        "target": step.target,
        "done": step.files,
        "of": step.of or None,
        "things": step.what,
        "rate": rate,
        "remaining_s": remaining,
        "at": iso(step.at_ns),
    }


def _targets(parts: Parts, run_id: str) -> list[Document]:
    return [
        {
            "target": one.target,
            "root": one.root,
            "scanned_files": one.scanned_files,
            "expired_files": one.expired_files,
            "expired_bytes": one.expired_bytes,
            "deleted_files": one.deleted_files,
            "freed_bytes": one.freed_bytes,
            "failed_files": max(0, one.backup_files - one.deleted_files) if one.finished_ns else 0,
            "backup_files": one.backup_files,
            "backup_bytes": one.backup_bytes,
        }
        for one in parts.platform.records.targets_of(run_id)
    ]


def _is_restorable(record: RunRecord, backups: list[BackupSet]) -> bool:
    return bool(backups) and not record.dry_run and record.status is not RunStatus.RUNNING
