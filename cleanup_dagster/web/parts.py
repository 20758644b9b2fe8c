"""What the endpoints work with."""

from typing import NamedTuple

from fastapi import Request

from cleanup_dagster.web.auth import Limiter, Sessions
from cleanup_dagster.web.glance import Glance
from cleanup_dagster.web.launcher import Launcher
from cleanup_dagster.web.launching import Launching
from cleanup_dagster.web.platform import Platform
from cleanup_dagster.web.snapshot import Snapshots
from cleanup_dagster.web.tokens import Tokens

API = "/api/cleanup"


class Parts(NamedTuple):
    """The one set of an application."""

    platform: Platform
    tokens: Tokens
    sessions: Sessions
    limiter: Limiter
    launcher: Launcher
    launching: Launching
    snapshots: Snapshots
    glance: Glance


def parts_of(request: Request) -> Parts:
    """Return what the endpoints of the application that is asked work with."""
    return request.app.state.parts
