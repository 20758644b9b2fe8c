"""The pages that a browser shows: frames from templates, filled by the modules in `static/js` from the REST API.

Nothing that a scan met is ever written into a page here; a page is the same whatever the database and the disk hold, so
that it opens when both are away and says so.
"""

from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from cleanup_dagster.retention.defaults import DEFAULT_POLICIES
from cleanup_dagster.web.auth import session_of

router = APIRouter()

_PAGE = "/pipeline-management"
_LOGIN = "/login"
_templates = Environment(
    loader=PackageLoader(__package__ or "cleanup_dagster.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@router.get("/")
def home() -> Response:
    """Lead to the page."""
    return RedirectResponse(_PAGE, HTTPStatus.SEE_OTHER)


@router.get(_LOGIN)
def login(request: Request) -> Response:
    """Ask for a token, unless this browser has a session already."""
    if session_of(request) is not None:
        return RedirectResponse(_PAGE, HTTPStatus.SEE_OTHER)
    return _page("login.html")


@router.get(_PAGE)
def pipeline_management(request: Request) -> Response:
    """Show the page to whoever is logged in."""
    session = session_of(request)
    if session is None:
        return RedirectResponse(_LOGIN, HTTPStatus.SEE_OTHER)
    return _page("page.html", role=session.role.word, csrf_token=session.csrf_token, defaults=DEFAULT_POLICIES)


def _page(template: str, **values: object) -> HTMLResponse:
    return HTMLResponse(_templates.get_template(template).render(values))
