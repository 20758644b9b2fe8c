"""What there is at a glance."""

from fastapi import APIRouter, Request, Response

from cleanup_dagster.documents import Document, iso, of_audit
from cleanup_dagster.filesystem.space import free_bytes
from cleanup_dagster.inventory import list_backups
from cleanup_dagster.web.errors import reply
from cleanup_dagster.web.parts import API, parts_of
from cleanup_dagster.web.platform import Platform

router = APIRouter(prefix=API, tags=["overview"])

_LATEST = 50


@router.get("/stats")
def stats(request: Request) -> Response:
    """Return what was cleaned so far by data type, the latest rows of the audit, and the figures of the overview."""
    platform = parts_of(request).platform
    records = platform.records
    return reply(
        {
            "success": True,
            "stats": _by_type(platform),
            "history": [of_audit(row) for row in records.history(_LATEST)],
            "overview": _overview(platform),
        }
    )


def _by_type(platform: Platform) -> list[Document]:
    records = platform.records
    totals = records.totals()
    rows: list[Document] = []
    for policy in records.policies():
        mine = totals.get(policy.data_type)
        rows.append(
            {
                "data_type": policy.data_type,
                "retention_days": policy.retention_days,
                "enabled": policy.enabled,
                "last_cleanup": iso(mine.last_cleanup_ns) if mine else None,
                "total_cleaned": mine.total_cleaned if mine else 0,
                "space_saved": mine.space_saved if mine else 0,
                "targets": [t.name for t in platform.settings.targets if policy.data_type in t.data_types],
                "problem": policy.problem,
            }
        )
    return rows


def _overview(platform: Platform) -> Document:
    records = platform.records
    return {
        "space_freed": sum(one.space_saved for one in records.totals().values()),
        "held_by_backups": sum(one.bytes for one in list_backups(platform.installation)),
        "free_bytes": free_bytes(platform.settings.backup.directory),
    }
