"""Logging in and out, and who one is."""

from http import HTTPStatus

from fastapi import APIRouter, Request, Response

from cleanup_dagster.web.auth import COOKIE, SESSION_SECONDS, address_of, session_of, too_many, visitor_of
from cleanup_dagster.web.bodies import Login, Nothing
from cleanup_dagster.web.errors import answer, reply
from cleanup_dagster.web.parts import API, parts_of

router = APIRouter(tags=["session"])


@router.post("/login")
def log_in(request: Request, body: Login) -> Response:
    """Begin a session with a token. The session's id is a new one each time and stands in an HttpOnly cookie."""
    parts = parts_of(request)
    address = address_of(request)
    if wait := parts.limiter.login_blocked(address):
        return too_many("wrong tokens", wait)
    role = parts.tokens.role_of(body.token.strip())
    if role is None:
        parts.limiter.bad_login(address)
        return answer(HTTPStatus.UNAUTHORIZED, "the token is not known here", {"WWW-Authenticate": "Bearer"})
    parts.sessions.end(request.cookies.get(COOKIE, ""))
    session = parts.sessions.begin(role)
    answered = reply({"success": True, "role": role.word, "csrf_token": session.csrf_token})
    answered.set_cookie(
        COOKIE,
        session.id,
        max_age=SESSION_SECONDS,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answered


@router.post("/logout")
def log_out(request: Request, _: Nothing | None = None) -> Response:
    """End the session."""
    session = session_of(request)
    if session is not None:
        parts_of(request).sessions.end(session.id)
    answered = reply({"success": True, "message": "logged out"})
    answered.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return answered


@router.get(f"{API}/session")
def session(request: Request) -> Response:
    """Say who one is; for a browser's session, with the token that its changes must carry."""
    visitor = visitor_of(request)
    csrf = {"csrf_token": visitor.session.csrf_token} if visitor.session else {}
    return reply({"success": True, "role": visitor.role.word, **csrf})
