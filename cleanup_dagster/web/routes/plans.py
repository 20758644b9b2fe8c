"""The plans of dry runs: what they would take, whether they may be applied, and every item of them."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from cleanup_dagster.documents import Document, iso
from cleanup_dagster.installation import RunRefusedError
from cleanup_dagster.retention.guardrails import BYPASSABLE, Refusal
from cleanup_dagster.retention.models import NS_PER_DAY, NS_PER_SECOND
from cleanup_dagster.web.described import FILE, ok
from cleanup_dagster.web.errors import reply
from cleanup_dagster.web.index import Facet, FileIndex
from cleanup_dagster.web.parts import API, parts_of
from cleanup_dagster.web.routes.files import Asked
from cleanup_dagster.web.routes.runs import RunIdPath

router = APIRouter(prefix=f"{API}/plans", tags=["plans"])

_PLAN = {
    "run_id": "1a2b3c4d-0000-4000-8000-000000000000",
    "made_at": "2026-01-31T09:00:00Z",
    "expires_at": "2026-02-01T09:00:00Z",
    "applicable": True,
    "why_not": None,
    "types": [{"data_type": "dbt_logs", "files": 120, "bytes": 7340032, "oldest_days": 41.5}],
    "files": 120,
    "bytes": 7340032,
    "guardrails": [
        {
            "guardrail": "max_files",
            "subject": "operations",
            "message": "operations: 120 files would go, more than max_files = 100",
            "bypassed_by": "a reviewed plan or type emergency",
        }
    ],
}


@router.get("/{run_id}", responses=ok({"plan": _PLAN}))
def plan(request: Request, run_id: RunIdPath) -> Response:
    """Return what applying a dry run's plan would take, by data type, and why it may not be applied, if so."""
    parts = parts_of(request)
    index = parts.snapshots.of_plan(run_id)
    service = parts.platform.service
    try:
        service.require_applicable(run_id)
        why_not = None
    except RunRefusedError as error:
        why_not = str(error)
    keeping_ns = parts.platform.settings.plan_retention_hours * 3_600 * NS_PER_SECOND
    all_of_it = index.tally(_goes)
    document: Document = {
        "run_id": run_id,
        "made_at": iso(index.made_ns),
        "expires_at": iso(index.made_ns + keeping_ns),
        "applicable": why_not is None,
        "why_not": why_not,
        "types": _types(index),
        "files": all_of_it.files,
        "bytes": all_of_it.bytes,
        "guardrails": [_guardrail(refusal) for refusal in service.tripped_by(run_id)],
    }
    return reply({"success": True, "plan": document})


@router.get(
    "/{run_id}/items",
    responses=ok(
        {
            "matching": 120,
            "matching_bytes": 7340032,
            "page": 1,
            "per_page": 50,
            "scanned_at": "2026-01-31T09:00:00Z",
            "items": [FILE],
        }
    ),
)
def items(request: Request, run_id: RunIdPath, asked: Annotated[Asked, Depends()]) -> Response:
    """Return the items of a plan: what goes, unless `verdict=keep` asks for what stays."""
    wanted = asked.filter._replace(goes=asked.filter.goes is not False)
    found = asked.of(parts_of(request).snapshots.of_plan(run_id), wanted)
    rows = found.pop("rows")
    return reply({"success": True, **found, "items": rows})


def _goes(facet: Facet) -> bool:
    return facet.goes


def _types(index: FileIndex) -> list[Document]:
    types: list[Document] = []
    for data_type in sorted({facet.data_type for facet in index.facets if facet.goes}):

        def of_type(facet: Facet, data_type: str = data_type) -> bool:
            return facet.goes and facet.data_type == data_type

        tally = index.tally(of_type)
        if not tally.files:
            continue
        oldest = index.oldest(index.made_ns, of_type, 1)
        age_ns = index.made_ns - oldest[0].since_ns if oldest else 0
        types.append(
            {
                "data_type": data_type,
                "files": tally.files,
                "bytes": tally.bytes,
                "oldest_days": round(age_ns / NS_PER_DAY, 2),
            }
        )
    return types


def _guardrail(refusal: Refusal) -> Document:
    return {
        "guardrail": refusal.guardrail.value,
        "subject": refusal.subject,
        "message": refusal.message,
        "bypassed_by": "a reviewed plan or type emergency" if refusal.guardrail in BYPASSABLE else None,
    }
