"""The application: its parts, its middleware from the outside in, its routes."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib import resources

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from starlette.middleware import Middleware

from cleanup_dagster import __version__
from cleanup_dagster.settings import Settings
from cleanup_dagster.web import errors, pages
from cleanup_dagster.web.auth import Access, Limiter, Rates, SecurityHeaders, Sessions
from cleanup_dagster.web.described import errors as described_errors
from cleanup_dagster.web.glance import Glance
from cleanup_dagster.web.launcher import Launcher
from cleanup_dagster.web.launching import Launching
from cleanup_dagster.web.parts import Parts
from cleanup_dagster.web.platform import Platform
from cleanup_dagster.web.questions import known_question
from cleanup_dagster.web.routes import (
    backups,
    description,
    files,
    health,
    holds,
    login,
    overview,
    plans,
    policies,
    runs,
)
from cleanup_dagster.web.shell import BoundedBody, KnownHost, NoTraceback
from cleanup_dagster.web.snapshot import Snapshots
from cleanup_dagster.web.tokens import Tokens

_DESCRIPTION = """What the page shows and does, for scripts and dashboards. Send `Authorization: Bearer TOKEN`; in a
browser that is logged in nothing more is needed to try things out here. Errors are
`{"success": false, "error": "a sentence"}` with a fitting status."""


def create_app(
    settings: Settings, tokens: Tokens, reload: Callable[[], Settings] | None = None, rates: Rates | None = None
) -> FastAPI:
    """Return the page over an installation. Nothing is opened before the first request needs it.

    `reload` reads the configuration anew when its file has changed.
    """
    platform, launcher = Platform(settings, reload), Launcher(settings.web)
    parts = Parts(
        platform,
        tokens,
        Sessions(),
        Limiter(rates or Rates()),
        launcher,
        Launching(platform, launcher),
        Snapshots(platform),
        Glance(),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        parts.snapshots.start()
        yield
        parts.snapshots.stop()
        launcher.close()
        platform.close()

    web = settings.web
    app = FastAPI(
        title="cleanup_dagster",
        description=_DESCRIPTION,
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        openapi_url=None,
        redoc_url=None,
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(NoTraceback),
            Middleware(KnownHost, hosts=[web.host, *web.allowed_hosts]),
            Middleware(BoundedBody),
            Middleware(
                Access, tokens=tokens, sessions=parts.sessions, limiter=parts.limiter, changed=parts.glance.forget
            ),
        ],
    )
    app.state.parts = parts
    errors.install(app)
    known = Depends(known_question)
    token = Depends(HTTPBearer(auto_error=False, description="The operator's or the viewer's token"))
    for module in (overview, policies, runs, plans, files, backups, holds):
        app.include_router(module.router, dependencies=[known, token], responses=described_errors())
    for module in (login, health):
        app.include_router(module.router, dependencies=[known], responses=described_errors())
    for module in (pages, description):
        app.include_router(module.router, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=str(resources.files("cleanup_dagster.web") / "static")))
    return app
