"""The application: its parts, its middleware from the outside in, its routes."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.middleware import Middleware

from cleanup_dagster import __version__
from cleanup_dagster.settings import Settings
from cleanup_dagster.web import errors, pages
from cleanup_dagster.web.auth import Access, Limiter, Rates, SecurityHeaders, Sessions
from cleanup_dagster.web.parts import Parts
from cleanup_dagster.web.platform import Platform
from cleanup_dagster.web.routes import login, overview, policies
from cleanup_dagster.web.shell import BoundedBody, KnownHost, NoTraceback
from cleanup_dagster.web.tokens import Tokens


def create_app(
    settings: Settings, tokens: Tokens, reload: Callable[[], Settings] | None = None, rates: Rates | None = None
) -> FastAPI:
    """Return the page over an installation. Nothing is opened before the first request needs it.

    `reload` reads the configuration anew when its file has changed.
    """
    parts = Parts(Platform(settings, reload), tokens, Sessions(), Limiter(rates or Rates()))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        parts.platform.close()

    web = settings.web
    app = FastAPI(
        title="cleanup_dagster",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(NoTraceback),
            Middleware(KnownHost, hosts=[web.host, *web.allowed_hosts]),
            Middleware(BoundedBody),
            Middleware(Access, tokens=tokens, sessions=parts.sessions, limiter=parts.limiter),
        ],
    )
    app.state.parts = parts
    errors.install(app)
    for module in (login, overview, policies):
        app.include_router(module.router)
    app.include_router(pages.router, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=str(files("cleanup_dagster.web") / "static")))
    return app
