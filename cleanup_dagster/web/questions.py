"""Questions: what stands behind the `?` of an address has to be known, so that no mistyped filter shows everything."""

import difflib
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request

from cleanup_dagster.web.errors import Refusal


def known_question(request: Request) -> None:
    """Refuse a query parameter that the endpoint does not describe. Raises Refusal."""
    if not request.query_params:
        return
    known = _known(request.app, request.scope["route"].path, request.method.lower())
    for name in request.query_params:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            right = f"did you mean {near[0]}?" if near else f"known here are: {', '.join(sorted(known)) or 'none'}"
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name[:80]} is no known parameter; {right}")


@lru_cache(maxsize=256)
def _known(app: FastAPI, path: str, method: str) -> frozenset[str]:
    described: dict[str, Any] = app.openapi()["paths"].get(path, {}).get(method, {})
    return frozenset(one["name"] for one in described.get("parameters", ()) if one["in"] == "query")
