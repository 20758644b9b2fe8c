"""What there is at a glance: figures, charts, and the configuration."""

import time
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from msgspec import structs

from cleanup_dagster import __version__
from cleanup_dagster.database.urls import describe, read_url
from cleanup_dagster.documents import Document, iso, of_audit, of_types
from cleanup_dagster.filesystem.space import free_bytes
from cleanup_dagster.inventory import list_backups
from cleanup_dagster.retention.defaults import things
from cleanup_dagster.retention.models import NS_PER_DAY, NS_PER_SECOND, CleanupType
from cleanup_dagster.run_history.store import ROOT
from cleanup_dagster.run_history.target import RunsTarget
from cleanup_dagster.settings import Settings, Target
from cleanup_dagster.web.described import HISTORY, ok
from cleanup_dagster.web.errors import reply
from cleanup_dagster.web.index import Facet
from cleanup_dagster.web.parts import API, Parts, parts_of

router = APIRouter(prefix=API, tags=["overview"])

_LATEST = 50
_RUNS = 200
_STATS = {
    "data_type": "dbt_logs",
    "retention_days": 7,
    "enabled": True,
    "last_cleanup": "2026-01-31T02:00:05Z",
    "total_cleaned": 4800,
    "space_saved": 293601280,
    "expired_files": 120,
    "expired_bytes": 7340032,
    "targets": ["dbt_target"],
    "problem": None,
}
_OVERVIEW = {
    "files_to_clean": 120,
    "things_to_clean": "files",
    "bytes_to_free": 7340032,
    "space_freed": 293601280,
    "held_by_backups": 52428800,
    "free_bytes": 107374182400,
    "last_cleanup": {"run_id": HISTORY["run_id"], "at": "2026-01-31T02:00:05Z", "outcome": "done", "message": ""},
    "next_run": "2026-02-01T02:00:00Z",
    "scanned_at": "2026-01-31T09:00:00Z",
    "scan_problem": "the plan of run 1a2b3c4d cannot be read: it was cut off",
    "schedule_running": True,
    "dagster_reachable": True,
}


@router.get("/stats", responses=ok({"stats": [_STATS], "history": [HISTORY], "overview": _OVERVIEW}))
def stats(request: Request) -> Response:
    """Return what was cleaned so far by data type, the latest rows of the audit, and the figures of the overview."""
    parts = parts_of(request)

    def make() -> bytes:
        history = [of_audit(row) for row in parts.platform.records.history(_LATEST)]
        document = {"success": True, "stats": _by_type(parts), "history": history, "overview": _overview(parts)}
        return msgspec.json.encode(document)

    return Response(parts.glance.of(make), media_type="application/json")


@router.get(
    "/charts",
    responses=ok(
        {"days": [{"date": "2026-01-31", "files": 120, "bytes": 7340032, "types": {}}]},
    ),
)
def charts(request: Request, days: Annotated[int, Query(ge=1, le=3650)] = 90) -> Response:
    """Return what was deleted day by day (UTC) and by data type, from the audit. Days without cleanup are left out."""
    since_ns = time.time_ns() - days * NS_PER_DAY
    found: dict[str, dict[str, Any]] = {}
    for row in reversed(parts_of(request).platform.records.history(None, since_ns=since_ns)):
        if row.cleanup_type == CleanupType.RESTORE.value or not row.records_deleted:
            continue
        date = (iso(row.executed_ns) or "")[:10]
        day = found.setdefault(date, {"date": date, "files": 0, "bytes": 0, "types": {}})
        for sums in (day, day["types"].setdefault(row.data_type, {"files": 0, "bytes": 0})):
            sums["files"] += row.records_deleted
            sums["bytes"] += row.space_freed_bytes
    return reply({"success": True, "days": list(found.values())})


@router.get("/settings", responses=ok({"settings": None}))
def settings(request: Request) -> Response:
    """Return the configuration in force, for people: no password and no token is part of it."""
    parts = parts_of(request)
    found = parts.platform.settings
    state = parts.launcher.state()
    return reply(
        {
            "success": True,
            "settings": {
                "version": __version__,
                "config_file": str(found.config_file) if found.config_file else None,
                "state_dir": str(found.state_dir),
                "database": _database(found),
                "dagster_url": found.web.dagster_url,
                "dagster_public_url": found.web.links_to,
                "dagster_problem": state.problem or None,
                "schedule": {**found.schedule.model_dump(), "running": state.schedule_running},
                "backup": found.backup.model_dump(mode="json"),
                "limits": structs.asdict(found.limits),
                "targets": [_target(found, target) for target in found.all_targets],
                "web": found.web.model_dump(mode="json", exclude={"tls_key"}),
                "naive_timezone": found.naive_timezone,
                "workers": found.workers,
                "executor": found.executor,
                "plan_retention_hours": found.plan_retention_hours,
                "manifest_retention_days": found.manifest_retention_days,
                "clock_skew_seconds": found.clock_skew_seconds,
            },
        }
    )


def _by_type(parts: Parts) -> list[Document]:
    records, settings = parts.platform.records, parts.platform.settings
    policies = {policy.data_type: policy for policy in records.policies()}
    current = parts.snapshots.current
    rows: list[Document] = []
    for row in of_types(policies.values(), records.totals()):
        data_type = str(row["data_type"])
        policy = policies.get(data_type)

        def goes(facet: Facet, data_type: str = data_type) -> bool:
            return facet.goes and facet.data_type == data_type

        expired = current.index.tally(goes) if current else None
        row |= {
            "expired_files": expired.files if expired else None,
            "expired_bytes": expired.bytes if expired else None,
            "targets": [target.name for target in settings.all_targets if data_type in target.data_types],
            "problem": policy.problem if policy else "there is no policy, so all of it is kept",
        }
        rows.append(row)
    return rows


def _overview(parts: Parts) -> Document:
    platform, state = parts.platform, parts.launcher.state()
    records = platform.records
    current = parts.snapshots.current
    expired = current.index.tally(lambda facet: facet.goes) if current else None
    return {
        "files_to_clean": expired.files if expired else None,
        "things_to_clean": things(facet.data_type for facet in current.index.facets if facet.goes) if current else None,
        "bytes_to_free": expired.bytes if expired else None,
        "space_freed": sum(one.space_saved for one in records.totals().values()),
        "held_by_backups": sum(one.bytes for one in list_backups(platform.installation)),
        "free_bytes": _free(parts),
        "last_cleanup": _last_cleanup(parts),
        "next_run": iso(int(state.next_run * NS_PER_SECOND)) if state.next_run else None,
        "scanned_at": iso(current.index.made_ns) if current else None,
        "scan_problem": parts.snapshots.problem,
        "schedule_running": state.schedule_running,
        "dagster_reachable": state.reachable,
    }


def _last_cleanup(parts: Parts) -> Document | None:
    for run in parts.platform.records.runs(_RUNS):
        if not run.dry_run and run.cleanup_type is not CleanupType.RESTORE and run.finished_ns:
            return {
                "run_id": run.run_id,
                "at": iso(run.finished_ns),
                "outcome": run.status.value,
                "message": run.message,
            }
    return None


def _free(parts: Parts) -> int | None:
    try:
        return free_bytes(parts.platform.settings.backup.directory)
    except OSError:
        return None


def _database(settings: Settings) -> Document:
    if settings.database_url is None:
        return {"kind": "embedded SQLite", "name": str(settings.state_dir / "cleanup.db")}
    url = read_url(settings.database_url.get_secret_value())
    return {"kind": "PostgreSQL" if url.get_backend_name() == "postgresql" else "SQLite", "name": describe(url)}


def _target(settings: Settings, target: Target | RunsTarget) -> Document:
    if isinstance(target, RunsTarget):
        return {**target.model_dump(mode="json"), "root": ROOT, "data_types": list(target.data_types), "problem": ""}
    return {
        **target.model_dump(mode="json", exclude={"data_type"}),
        "data_types": list(target.data_types),
        "problem": settings.root_problem(target),
    }
