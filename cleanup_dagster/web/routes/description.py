"""The API's description, as JSON and as a page, from this server alone."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from cleanup_dagster.web.auth import SecurityHeaders
from cleanup_dagster.web.errors import reply

router = APIRouter(include_in_schema=False)

_PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>The API of cleanup_dagster</title>
  <link rel="icon" href="/static/icon.svg" type="image/svg+xml">
  <link rel="stylesheet" href="/static/vendor/swagger-ui.css">
  <script src="/static/vendor/swagger-ui-bundle.js" defer></script>
  <script src="/static/docs.js" defer></script>
</head>
<body><main id="docs"></main></body>
</html>
"""


#: Swagger UI's style sheet holds its icons as data; nothing else of the policy is loosened, and on no other page.
_POLICY = f"{SecurityHeaders.HEADERS['Content-Security-Policy']}; img-src 'self' data:"


@router.get("/openapi.json")
def openapi(request: Request) -> Response:
    """Return the description in OpenAPI 3.1."""
    return reply(request.app.openapi())


@router.get("/docs")
def docs() -> Response:
    """Show it."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})
