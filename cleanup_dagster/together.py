"""Dagster and the page on one machine: `python -m cleanup_dagster.together`, which is `make serve`.

Starts Dagster's webserver, its daemon and the page, says where they are, and ends all three together. What they keep
lies in DAGSTER_HOME, or in `.dagster_home` below the working directory.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from cleanup_dagster.settings import ConfigError, load_settings
from cleanup_dagster.web_settings import is_loopback

_BIN = Path(sys.executable).parent
_GRACE_SECONDS = 15
_START_SECONDS = 120


class StoppedError(Exception):
    """What was served has to end; the message says why."""


class _Served:
    """The processes, each the head of a group of its own, so that nothing they start outlives them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *command: str) -> None:
        self._running[command[0]] = subprocess.Popen(  # noqa: S603  our own commands
            [str(_BIN / command[0]), *command[1:]], env=self._environment, start_new_session=True
        )

    def require_alive(self) -> None:
        """Raise StoppedError when one of them has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise StoppedError(f"{name} ended with code {process.returncode}, so the others are ended, too")

    def end(self) -> None:
        """Ask all of them to end, and after a while make them."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for process in self._running.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, sign)
            deadline = time.monotonic() + _GRACE_SECONDS
            for process in self._running.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.1, deadline - time.monotonic()))


def main() -> int:
    """Serve until somebody ends it."""
    home = Path(os.environ.get("DAGSTER_HOME") or ".dagster_home").absolute()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n", encoding="utf-8")
    environment = {**os.environ, "DAGSTER_HOME": str(home)}
    try:
        settings = load_settings(environment)
        host, port = _place(settings.web.dagster_url)
        _serve(environment, host, port)
    except ConfigError as error:
        return _said(str(error), 4)
    except StoppedError as error:
        return _said(str(error), 1)
    except KeyboardInterrupt:
        return _said("All three have ended.", 0)
    return 0


def _serve(environment: Mapping[str, str], host: str, port: int) -> None:
    signal.signal(signal.SIGTERM, _interrupt)
    _said(f"Preparing {environment['DAGSTER_HOME']} ...", 0)
    # The webserver and the daemon would both make the tables of a new home, and collide.
    _run(environment, "dagster", "instance", "migrate")
    served = _Served(environment)
    try:
        served.start("dagster-webserver", "-w", "workspace.yaml", "-h", host, "-p", str(port), "--log-level", "warning")
        served.start("dagster-daemon", "run", "-w", "workspace.yaml", "--log-level", "warning")
        _wait_for(served, f"http://{host}:{port}/server_info")
        _said(f"Dagster: http://{host}:{port}", 0)
        served.start("cleanup-operations", "serve")
        while True:
            served.require_alive()
            time.sleep(0.5)
    finally:
        served.end()


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "http" or not is_loopback(host):
        raise StoppedError(f"{url} is not on this machine; unset DAGSTER_WEBSERVER_URL, or start its Dagster there")
    return host, parts.port or 80


def _run(environment: Mapping[str, str], *command: str) -> None:
    done = subprocess.run(  # noqa: S603  our own commands
        [str(_BIN / command[0]), *command[1:]], env=dict(environment), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StoppedError(f"`{' '.join(command)}` failed:\n{done.stdout}{done.stderr}")


def _wait_for(served: _Served, url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        served.require_alive()
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):  # noqa: S310  http, and ours
            return
        time.sleep(0.3)
    raise StoppedError(f"nothing answered at {url} within {_START_SECONDS} seconds")


def _interrupt(_sign: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _said(text: str, code: int) -> int:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
