"""What surrounds every request: a known Host, a body of bounded size, and an answer even to a bug."""

from collections.abc import Collection
from http import HTTPStatus

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cleanup_dagster.web.errors import answer, log_bug

BODY_MAX = 64 * 1024
_BODY_SECONDS = 30
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class KnownHost:
    """Middleware that answers only to names of this page, so that no other name can be rebound to it."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts) | frozenset(_LOOPBACK)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] == "http":
            named = Headers(scope=scope).getlist("host")
            if len(named) != 1 or host_name(named[0]) not in self._hosts:
                said = "this page is not known by that name; add it to web.allowed_hosts if it should be"
                await answer(HTTPStatus.BAD_REQUEST, said)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def host_name(header: str) -> str:
    """Return the name in a Host header, without its port; empty when it is none."""
    if header.startswith("["):
        name, bracket, port = header[1:].partition("]")
        return name.lower() if bracket and (not port or (port[:1] == ":" and port[1:].isdigit())) else ""
    name, colon, port = header.partition(":")
    return name.lower() if not colon or port.isdigit() else ""


class BoundedBody:
    """Middleware that reads the body of a change, within a size and a time, before anything looks at it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD"}:
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        body, more = bytearray(), True
        with anyio.move_on_after(_BODY_SECONDS) as timing:
            more = not (length.isdigit() and int(length[:20]) > BODY_MAX)
            while more and len(body) <= BODY_MAX:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message.get("body", b"")
                more = message.get("more_body", False)
        if timing.cancelled_caught:
            await answer(HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time")(scope, receive, send)
            return
        if more or len(body) > BODY_MAX or (length.isdigit() and int(length[:20]) > BODY_MAX):
            said = f"the body is longer than {BODY_MAX // 1024} KiB"
            await answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, said)(scope, receive, send)
            return
        await self._app(scope, _replayed(bytes(body), receive), send)


def _replayed(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


class NoTraceback:
    """Middleware that answers a bug with the number under which the log has it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            number = log_bug(error)
            if begun:
                raise
            said = f"this is a bug of the page; its log says more under {number}"
            await answer(HTTPStatus.INTERNAL_SERVER_ERROR, said)(scope, receive, send)
