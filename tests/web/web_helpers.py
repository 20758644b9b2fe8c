"""A small platform behind the page, and people who ask it: nobody, a viewer, an operator, a browser."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import Client

from cleanup_dagster.settings import Settings, load_settings
from cleanup_dagster.web.app import create_app
from cleanup_dagster.web.auth import Rates
from cleanup_dagster.web.tokens import tokens_of

API = "/api/cleanup"
OPERATOR, VIEWER = "operator-token-of-the-tests", "viewer-token-of-the-tests"
ORIGIN = "http://localhost"
DAY = 86_400
#: Nothing listens there; a connection is refused at once.
NO_DAGSTER = "http://127.0.0.1:1"


class Platform:
    """A directory of operation files of all ages, its configuration, and the page over it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ops = home / "ops"
        self.ops.mkdir()
        self.environ = {
            "CLEANUP_STATE_DIR": str(home / "state"),
            "CLEANUP_WEB_OPERATOR_TOKEN": OPERATOR,
            "CLEANUP_WEB_VIEWER_TOKEN": VIEWER,
            "DAGSTER_WEBSERVER_URL": NO_DAGSTER,
        }
        self.configure()

    @property
    def config(self) -> Path:
        return self.home / "cleanup.yaml"

    def configure(self, **more: Any) -> None:
        target = {"name": "operations", "kind": "operations", "root": str(self.ops), "retention_days_min": 2}
        content: dict[str, Any] = {
            "backup": {"directory": str(self.home / "backups")},
            "limits": {"free_space_reserve": 0, "allow_volatile_backup": True},
            "targets": [target],
        }
        self.config.write_text(json.dumps({**content, **more}), encoding="utf-8")  # JSON is YAML

    def settings(self) -> Settings:
        return load_settings(self.environ, self.config)

    def app(self, rates: Rates | None = None) -> FastAPI:
        """The page; its state directory has to be there for its tokens."""
        (self.home / "state").mkdir(mode=0o700, exist_ok=True)
        settings = self.settings()
        return create_app(settings, tokens_of(settings), self.settings, rates)

    def operation(self, name: str, days: float, status: str = "completed", size: int = 0) -> Path:
        path = self.ops / f"operation_{name}.json"
        content = {"status": status, "pipeline_name": f"pipe_{len(name)}", "padding": "x" * size}
        path.write_text(json.dumps(content), encoding="utf-8")
        then = time.time() - days * DAY
        os.utime(path, (then, then))
        return path


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def asking(app: FastAPI, base_url: str = ORIGIN, **more: Any) -> Client:
    """Somebody who asks the page, in this process. Starlette's client is one of httpx, which its types do not say."""
    return cast("Client", TestClient(app, base_url, raise_server_exceptions=False, **more))


def log_in(client: Client, token: str = OPERATOR) -> str:
    """Begin a session in the client's cookies, and return its CSRF token."""
    answered = client.post("/login", json={"token": token})
    assert answered.status_code == 200, answered.text
    return answered.json()["csrf_token"]


def eventually(what: str, look: Callable[[], Any], seconds: float = 60) -> Any:
    """Return what `look` finds once it finds something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds} seconds: {what}"
        time.sleep(0.1)
    return found
