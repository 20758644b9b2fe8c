"""What goes wrong, as an answer: a fitting status and one sentence, never a traceback or a secret."""

import logging
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cleanup_dagster.backups.manifest import ManifestError
from cleanup_dagster.config_file import shown
from cleanup_dagster.database.errors import DatabaseUnavailable, SchemaMismatch
from cleanup_dagster.database.holds import InvalidHold
from cleanup_dagster.database.policies import InvalidPolicy, UnknownDataType
from cleanup_dagster.explaining import OutsideError
from cleanup_dagster.filesystem.private import UnsafeDirectoryError
from cleanup_dagster.filesystem.tree import RootError
from cleanup_dagster.installation import RunRefusedError
from cleanup_dagster.records import RunNotFoundError
from cleanup_dagster.settings import ConfigError

_log = logging.getLogger(__name__)
_JSON = "application/json"
_STATUSES: Mapping[type[Exception], HTTPStatus] = {
    ConfigError: HTTPStatus.SERVICE_UNAVAILABLE,
    DatabaseUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    SchemaMismatch: HTTPStatus.SERVICE_UNAVAILABLE,
    UnsafeDirectoryError: HTTPStatus.SERVICE_UNAVAILABLE,
    ManifestError: HTTPStatus.SERVICE_UNAVAILABLE,
    RootError: HTTPStatus.SERVICE_UNAVAILABLE,
    RunRefusedError: HTTPStatus.CONFLICT,
    RunNotFoundError: HTTPStatus.NOT_FOUND,
    InvalidHold: HTTPStatus.UNPROCESSABLE_ENTITY,
    InvalidPolicy: HTTPStatus.UNPROCESSABLE_ENTITY,
    UnknownDataType: HTTPStatus.NOT_FOUND,
    OutsideError: HTTPStatus.NOT_FOUND,
}


class Refusal(Exception):  # noqa: N818 - reads as what it says
    """Ends a request with a status and a sentence. `more` are further keys of the answer."""

    def __init__(self, status: HTTPStatus, message: str, **more: object) -> None:
        super().__init__(message)
        self.status = status
        self.more = more


def reply(document: object, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer."""
    return Response(msgspec.json.encode(document), int(status), dict(headers or {}), _JSON)


def answer(status: HTTPStatus, error: str, headers: Mapping[str, str] | None = None, **more: object) -> Response:
    """Return the answer that says what went wrong."""
    return reply({"success": False, "error": error, **more}, status, headers)


def install(app: FastAPI) -> None:
    """Let every error of the application end in such an answer."""
    for kind in _STATUSES:
        app.add_exception_handler(kind, _met)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)


def _met(_: Request, error: Exception) -> Response:
    return answer(_STATUSES[type(error) if type(error) in _STATUSES else _base(error)], str(error))


def _base(error: Exception) -> type[Exception]:
    return next(kind for kind in _STATUSES if isinstance(error, kind))


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101
    headers = {"Retry-After": "5"} if error.status is HTTPStatus.SERVICE_UNAVAILABLE else None
    return answer(error.status, str(error), headers, **error.more)


def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    said = {404: "there is nothing at this address", 405: "this address does not take that method"}
    status = HTTPStatus(error.status_code)
    return answer(status, said.get(error.status_code, status.phrase), error.headers)


def _invalid(_: Request, error: Exception) -> Response:
    """Say which values are wrong. Only plain values of known keys are quoted, and of a token none."""
    assert isinstance(error, RequestValidationError)  # noqa: S101
    return answer(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(_sentence(details) for details in error.errors()[:8]))


def _sentence(details: Mapping[str, Any]) -> str:
    where = ".".join(str(part)[:80] for part in details["loc"][1:])
    kind, value = details["type"], details.get("input")
    if kind in {"json_invalid", "json_type"}:
        return "the body is not JSON"
    if kind == "missing":
        return f"{where or 'the body'} is missing"
    if kind == "extra_forbidden":
        return f"{where} is no known key"
    said = str(details["msg"]).removeprefix("Value error, ")
    said = said[:1].lower() + said[1:]
    quotable = where and "token" not in where and isinstance(value, (str, int, float, bool, type(None)))
    return f"{where}: {shown(value)} is refused: {said}" if quotable else f"{where or 'the body'}: {said}"


def log_bug(error: BaseException) -> str:
    """Write a bug with its traceback into the log, and return the id that the answer names."""
    number = uuid.uuid4().hex[:12]
    _log.error("an answer failed (%s)", number, exc_info=error)
    return number
