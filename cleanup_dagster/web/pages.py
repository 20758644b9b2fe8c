"""The pages that a browser shows."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse

router = APIRouter()


@router.get("/")
def home() -> RedirectResponse:
    """Lead to the page."""
    return RedirectResponse("/pipeline-management")


@router.get("/login")
def login() -> HTMLResponse:
    """Show where to log in."""
    return HTMLResponse("<!doctype html><title>Log in</title>")


@router.get("/pipeline-management")
def pipeline_management() -> HTMLResponse:
    """Show the page."""
    return HTMLResponse("<!doctype html><title>Cleanup</title>")
