"""Whether the page lives, whether what it needs answers, and figures for Prometheus."""

from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from cleanup_dagster.database.errors import DatabaseUnavailable, SchemaMismatch
from cleanup_dagster.filesystem.private import UnsafeDirectoryError
from cleanup_dagster.settings import ConfigError
from cleanup_dagster.web.described import ok
from cleanup_dagster.web.errors import reply
from cleanup_dagster.web.metrics import Figures
from cleanup_dagster.web.parts import Parts, parts_of

router = APIRouter(tags=["health"])

_READY = {"database": "ok", "dagster": "ok"}


@router.get("/healthz", responses=ok({"status": "alive"}))
async def alive() -> Response:
    """Say that the process answers. It asks nobody else, and waits for no thread that may be waiting for a database."""
    return reply({"success": True, "status": "alive"})


@router.get("/readyz", responses=ok(_READY))
def ready(request: Request) -> Response:
    """Say whether the database and Dagster can be reached; 503 when one of them cannot. Says no more to anybody."""
    parts = parts_of(request)
    database = "ok" if _database_answers(parts) else "does not answer"
    dagster = "ok" if parts.launcher.state().reachable else "does not answer"
    if (database, dagster) == ("ok", "ok"):
        return reply({"success": True, **_READY})
    wrong = " and ".join(n for n, s in (("the database", database), ("Dagster", dagster)) if s != "ok")
    document = {"success": False, "error": f"{wrong} cannot be used", "database": database, "dagster": dagster}
    return reply(document, HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "5"})


@router.get(
    "/metrics",
    responses={200: {"description": "Figures", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(request: Request) -> Response:
    """Return the figures in Prometheus' text format. With a database that is away only those that need none."""
    registry = CollectorRegistry()
    registry.register(Figures(parts_of(request)))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _database_answers(parts: Parts) -> bool:
    try:
        parts.platform.records.at_work()
    except (ConfigError, DatabaseUnavailable, SchemaMismatch, UnsafeDirectoryError, OSError):
        return False
    return True
