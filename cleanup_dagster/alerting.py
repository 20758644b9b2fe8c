"""Telling somebody: JSON posted to a webhook, in bounded time, and never quoting its URL.

Nothing here may fail or block what it reports on. A post that does not get through is a sentence, not an exception;
what was told already is remembered in the state directory, so that a check that goes on failing is not told every hour.
"""

import contextlib
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

from msgspec import Struct
from pydantic import SecretStr

from cleanup_dagster.retention.models import NS_PER_SECOND
from cleanup_dagster.watch_settings import Alerts

_PAUSE_SECONDS = 1.0  # before the second attempt; twice as long before each one after it
_TEXT_LENGTH = 2_000  # of one message: chat services cut or refuse longer ones
_NOTICES = "alerts.json"

_posting: ContextVar[bool] = ContextVar("cleanup_posting_alert", default=False)


def _not_ours(_: logging.LogRecord) -> bool:
    """Drop what httpx logs of our posts: its line has the URL in it, and the URL is a secret."""
    return not _posting.get()


class Alert(Struct, frozen=True):
    """What is told. `text` is the whole of it in one sentence, for chats; `details` are for programs."""

    event: str
    text: str
    details: Mapping[str, str | int | float | bool] = {}

    def payload(self) -> dict[str, Any]:
        """Return what is posted."""
        text = self.text if len(self.text) <= _TEXT_LENGTH else f"{self.text[: _TEXT_LENGTH - 3]}..."
        return {"source": "cleanup_dagster", "event": self.event, "text": text, "host": socket.gethostname()} | {
            **self.details
        }


def send(webhook: SecretStr | None, limits: Alerts, alert: Alert) -> str:
    """Post an alert, and return why it did not get through, or nothing. Never raises, never says the URL.

    It takes at most `webhook_attempts` times `webhook_timeout`, and the pauses between them.
    """
    if webhook is None:
        return "no webhook is configured; set CLEANUP_ALERT_WEBHOOK_URL"
    content = json.dumps(alert.payload()).encode()
    # In a thread, because the time-outs of sockets begin anew with every byte that a slow server sends.
    ended: list[str] = []
    thread = threading.Thread(
        target=lambda: ended.append(_attempts(webhook.get_secret_value(), limits, content)), name="alert", daemon=True
    )
    thread.start()
    thread.join(limits.webhook_attempts * limits.webhook_timeout + _pauses(limits) + 1)
    return ended[0] if ended else "the webhook did not answer in time"


def _pauses(limits: Alerts) -> float:
    return _PAUSE_SECONDS * (2 ** (limits.webhook_attempts - 1) - 1)


def _attempts(url: str, limits: Alerts, content: bytes) -> str:
    import tenacity

    attempts = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(limits.webhook_attempts),
        wait=tenacity.wait_exponential(multiplier=_PAUSE_SECONDS),
        retry=tenacity.retry_if_result(lambda answer: answer.again),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else _Answer("it was not tried"),
    )
    return attempts(_post, url, limits.webhook_timeout, content).problem


class _Answer(Struct, frozen=True):
    """How one attempt ended, and whether another may end better."""

    problem: str
    again: bool = False


def _post(url: str, timeout: float, content: bytes) -> _Answer:
    import httpx  # a tenth of a second at every start, for what is hardly ever needed

    logger = logging.getLogger("httpx")
    if _not_ours not in logger.filters:
        logger.addFilter(_not_ours)
    token = _posting.set(True)
    try:
        headers = {"Content-Type": "application/json", "User-Agent": "cleanup_dagster"}
        with httpx.stream("POST", url, content=content, headers=headers, timeout=timeout) as response:
            status = response.status_code  # the body is nobody's business, and may never end
    except httpx.HTTPError as error:  # its text may quote the URL
        return _Answer(f"the webhook could not be reached ({type(error).__name__})", again=True)
    except Exception as error:  # noqa: BLE001  an alert that cannot be sent must not end what it reports on
        return _Answer(f"the webhook could not be used ({type(error).__name__})")
    finally:
        _posting.reset(token)
    if 200 <= status < 300:
        return _Answer("")
    return _Answer(f"the webhook answered {status}", again=status >= 500 or status in {408, 429})


class Notices:
    """Which troubles somebody was told of, and when: a file in the state directory."""

    def __init__(self, state: Path) -> None:
        self._path = state / _NOTICES

    def due(self, trouble: str, now_ns: int, repeat_seconds: float) -> bool:
        """Tell whether a trouble was never told, or so long ago that it should be told again."""
        told_ns = self._read().get(trouble)
        return told_ns is None or not 0 <= now_ns - told_ns < repeat_seconds * NS_PER_SECOND

    def open(self, trouble: str) -> bool:
        """Tell whether somebody was told of a trouble and not yet of its end."""
        return trouble in self._read()

    def told(self, trouble: str, now_ns: int) -> None:
        """Remember that a trouble was told."""
        self._write({**self._read(), trouble: now_ns})

    def over(self, trouble: str) -> None:
        """Forget a trouble."""
        self._write({name: told_ns for name, told_ns in self._read().items() if name != trouble})

    def _read(self) -> dict[str, int]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # lost or damaged: then it is told once more
            return {}
        return dict(_entries(content))

    def _write(self, notices: Mapping[str, int]) -> None:
        temporary = self._path.with_suffix(f".{os.getpid()}.part")
        with contextlib.suppress(OSError):  # a full disk: then it is told once more
            temporary.touch(mode=0o600)
            temporary.write_text(json.dumps(notices), encoding="utf-8")
            temporary.replace(self._path)


def _entries(content: object) -> Iterator[tuple[str, int]]:
    entries = cast("dict[str, object]", content) if isinstance(content, dict) else {}
    for name, told_ns in entries.items():
        if isinstance(told_ns, int):
            yield name, told_ns
