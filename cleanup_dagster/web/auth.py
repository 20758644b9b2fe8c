"""Who asks: a bearer token of a script, or a browser's session that began with one.

Nothing is open unless it stands in `PUBLIC`: whoever adds an endpoint need not think of protecting it. A change needs
the operator's role, JSON as its content type, and from a browser the session's CSRF token from a page of our own.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from threading import Lock
from typing import NamedTuple

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cleanup_dagster.web.errors import answer
from cleanup_dagster.web.tokens import Role, Tokens

COOKIE = "cleanup_session"
CSRF_HEADER = "x-csrf-token"
SESSION_SECONDS = 8 * 3_600
#: Far more than there are people; the oldest session ends when one more begins.
_SESSIONS_MAX = 1_000
_SAFE_METHODS = frozenset({"GET", "HEAD"})
#: What anybody may ask for. Everything else needs a token or a session.
PUBLIC = frozenset({"/healthz", "/readyz", "/login", "/favicon.ico"})
_PUBLIC_BELOW = "/static/"


class Rates(NamedTuple):
    """How often something may be tried within a minute."""

    bad_logins: int = 5
    changes: int = 60


class Session(NamedTuple):
    """A browser that has logged in."""

    id: str
    role: Role
    csrf_token: str
    ends: float


class Visitor(NamedTuple):
    """Who asks, with which role, and how that is known."""

    role: Role
    address: str
    session: Session | None = None

    @property
    def actor(self) -> str:
        """Who asks, for the audit."""
        return f"{self.role.word} via {'login' if self.session else 'token'} from {self.address}"

    @property
    def key(self) -> str:
        """What the visitor's changes are counted by."""
        return self.session.id if self.session else f"{self.role.word}@{self.address}"


class Sessions:
    """The sessions of this process: random ids, forgotten when it ends."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._lock = Lock()

    def begin(self, role: Role) -> Session:
        """Return a new session."""
        now = time.monotonic()
        session = Session(secrets.token_urlsafe(32), role, secrets.token_urlsafe(32), now + SESSION_SECONDS)
        with self._lock:
            over = [known.id for known in self._sessions.values() if known.ends <= now]
            over += list(self._sessions)[: max(0, len(self._sessions) - len(over) - _SESSIONS_MAX + 1)]
            for known in over:
                self._sessions.pop(known, None)
            self._sessions[session.id] = session
        return session

    def find(self, session_id: str) -> Session | None:
        """Return the session of that id unless it is over."""
        session = self._sessions.get(session_id)
        return session if session is not None and session.ends > time.monotonic() else None

    def end(self, session_id: str) -> None:
        """Forget a session."""
        with self._lock:
            self._sessions.pop(session_id, None)


class Limiter:
    """Counts what was tried within the last minute, in memory."""

    def __init__(self, rates: Rates) -> None:
        self._window = MovingWindowRateLimiter(MemoryStorage())
        self._bad_logins = RateLimitItemPerMinute(rates.bad_logins)
        self._changes = RateLimitItemPerMinute(rates.changes)

    def login_blocked(self, address: str) -> int:
        """Return for how many seconds an address may not try to log in; 0 when it may."""
        return 0 if self._window.test(self._bad_logins, "login", address) else self._wait(self._bad_logins, address)

    def bad_login(self, address: str) -> int:
        """Count a wrong token; return as `login_blocked` does."""
        return 0 if self._window.hit(self._bad_logins, "login", address) else self._wait(self._bad_logins, address)

    def change(self, key: str) -> int:
        """Count a change; return for how many seconds no further one is taken, 0 when this one is."""
        if self._window.hit(self._changes, "change", key):
            return 0
        return max(1, round(self._window.get_window_stats(self._changes, "change", key).reset_time - time.time()))

    def _wait(self, item: RateLimitItemPerMinute, address: str) -> int:
        return max(1, round(self._window.get_window_stats(item, "login", address).reset_time - time.time()))


class Access:
    """Middleware that lets nobody through who may not, before a body is read or an endpoint chosen."""

    def __init__(
        self, app: ASGIApp, tokens: Tokens, sessions: Sessions, limiter: Limiter, changed: Callable[[], None]
    ) -> None:
        """`changed` is called after each request that may have changed something."""
        self._app = app
        self._changed = changed
        self._tokens = tokens
        self._sessions = sessions
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        visitor = self._visitor(request)
        refusal = visitor if isinstance(visitor, Response) else self._refusal(scope, request.headers, visitor)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        scope.setdefault("state", {})["visitor"] = visitor
        if scope["method"] in _SAFE_METHODS:
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._changed()  # before whoever made the change can ask what came of it
            await send(message)

        await self._app(scope, receive, sending)

    def _visitor(self, request: HTTPConnection) -> Visitor | Response | None:
        address = address_of(request)
        given = request.headers.get("authorization")
        if given is not None:
            scheme, _, token = given.partition(" ")
            role = self._tokens.role_of(token.strip()) if scheme.lower() == "bearer" else None
            if role is not None:
                return Visitor(role, address)
            wait = self._limiter.bad_login(address)
            return too_many("wrong tokens", wait) if wait else unauthorized("the token is not known here")
        session = self._sessions.find(request.cookies.get(COOKIE, ""))
        return None if session is None else Visitor(session.role, address, session)

    def _refusal(self, scope: Scope, headers: Headers, visitor: Visitor | None) -> Response | None:
        method, path = scope["method"], scope["path"]
        if method not in _SAFE_METHODS and (refused := _refused_body(headers)):
            return refused
        if path in PUBLIC or path.startswith(_PUBLIC_BELOW):
            return _foreign_page(headers) if method not in _SAFE_METHODS else None
        if visitor is None:
            is_page = method in _SAFE_METHODS and not path.startswith(("/api/", "/metrics"))
            return RedirectResponse("/login", HTTPStatus.SEE_OTHER) if is_page else unauthorized("log in first")
        if method in _SAFE_METHODS:
            return None
        return self._refused_change(headers, visitor, logging_out=path == "/logout")

    def _refused_change(self, headers: Headers, visitor: Visitor, *, logging_out: bool) -> Response | None:
        if visitor.session is not None:
            if foreign := _foreign_page(headers):
                return foreign
            if not secrets.compare_digest(headers.get(CSRF_HEADER, "").encode(), visitor.session.csrf_token.encode()):
                return answer(HTTPStatus.FORBIDDEN, "the header X-CSRF-Token is missing or not this session's; reload")
        if logging_out:
            return None
        if visitor.role < Role.OPERATOR:
            return answer(HTTPStatus.FORBIDDEN, f"the role {visitor.role.word} changes nothing; log in as operator")
        wait = self._limiter.change(visitor.key)
        return too_many("changes", wait) if wait else None


def session_of(request: HTTPConnection) -> Session | None:
    """Return the session of the browser that asks, or None."""
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    return None if visitor is None else visitor.session


def visitor_of(request: HTTPConnection) -> Visitor:
    """Return who asks. Only for endpoints behind `Access` that are not public."""
    return request.state.visitor


def address_of(request: HTTPConnection) -> str:
    """Return the address that a request came from, as the server or the trusted proxy in front knows it."""
    return request.client.host if request.client else "an unknown address"


def unauthorized(why: str) -> Response:
    """Return the answer to somebody who is not known."""
    return answer(
        HTTPStatus.UNAUTHORIZED,
        f"{why}; send the header Authorization: Bearer TOKEN, or log in at /login",
        {"WWW-Authenticate": "Bearer"},
    )


def too_many(what: str, wait: int) -> Response:
    """Return the answer to somebody who tries too often."""
    return answer(
        HTTPStatus.TOO_MANY_REQUESTS, f"too many {what} within a minute; wait {wait} s", {"Retry-After": str(wait)}
    )


def _refused_body(headers: Headers) -> Response | None:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if media_type == "application/json" or (not media_type and not has_body):
        return None
    return answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send JSON, with the header Content-Type: application/json")


def _foreign_page(headers: Headers) -> Response | None:
    """Refuse what a page of another origin made a browser send."""
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    host = headers.get("host", "")
    foreign = site not in (None, "same-origin") or (
        origin is not None and origin.lower() not in {f"http://{host.lower()}", f"https://{host.lower()}"}
    )
    return answer(HTTPStatus.FORBIDDEN, "the request comes from a page of another origin") if foreign else None


class SecurityHeaders:
    """Middleware that puts the headers on every answer that tell a browser how little it may do with it."""

    HEADERS: Mapping[str, str] = {
        "Content-Security-Policy": (
            "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        caching = "no-cache" if scope.get("path", "").startswith(_PUBLIC_BELOW) else "no-store"

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.HEADERS.items():
                    headers.setdefault(name, value)
                headers["Cache-Control"] = caching
            await send(message)

        await self._app(scope, receive, sending)
