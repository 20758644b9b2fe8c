"""The installation behind the page: opened when it is first needed, anew when the configuration has changed.

A database that is down at the start, or goes away later, costs the requests meanwhile and nothing else.
"""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from threading import Lock
from typing import NamedTuple

from cleanup_dagster.bootstrap import open_installation
from cleanup_dagster.installation import Installation
from cleanup_dagster.records import Records
from cleanup_dagster.service import CleanupService
from cleanup_dagster.settings import Settings

_FAILED_SECONDS = 1.0
_Stamp = tuple[int, int, int] | None


class _Opened(NamedTuple):
    installation: Installation
    holding: ExitStack
    stamp: _Stamp


class Platform:
    """What the endpoints ask and change. Thread-safe; what it hands out is for reading and for single changes."""

    def __init__(self, settings: Settings, reload: Callable[[], Settings] | None = None) -> None:
        """Take the settings as they are, and `reload` for when the file they came from changes."""
        self.web = settings.web
        self._settings = settings
        self._reload = reload
        self._stamp = _stamp(settings)
        self._opened: _Opened | None = None
        self._retired: list[ExitStack] = []
        self._failed: tuple[float, Exception | None] = (0.0, None)
        self._lock = Lock()

    @property
    def settings(self) -> Settings:
        """The configuration as its file is now. Raises ConfigError when that is refused."""
        if self._reload is not None and _stamp(self._settings) != self._stamp:
            with self._lock:
                stamp = _stamp(self._settings)
                if stamp != self._stamp:
                    self._settings = self._reload()
                    self._stamp = stamp
        return self._settings

    @property
    def installation(self) -> Installation:
        """The open installation. Raises ConfigError, or as `open_installation` does."""
        settings = self.settings
        opened = self._opened
        if opened is not None and opened.installation.settings is settings:
            return opened.installation
        with self._lock:
            opened = self._opened
            if opened is None or opened.installation.settings is not settings:
                opened = self._open_once(settings)
            return opened.installation

    @property
    def records(self) -> Records:
        """Policies, holds, runs and audit."""
        return Records(self.installation)

    @property
    def service(self) -> CleanupService:
        """The verbs that read: backups, plans, explanations."""
        return CleanupService(self.installation)

    def close(self) -> None:
        """Close what was opened."""
        with self._lock:
            opened, self._opened = self._opened, None
            for holding in [*self._retired, *([opened.holding] if opened else [])]:
                holding.close()

    def _open_once(self, settings: Settings) -> _Opened:
        """Open, unless that has just failed: whoever waited meanwhile need not wait for the same failure again."""
        failed_at, failure = self._failed
        if failure is not None and time.monotonic() - failed_at < _FAILED_SECONDS:
            raise failure.with_traceback(None)
        try:
            opened = self._open(settings)
        except Exception as error:
            self._failed = time.monotonic(), error
            raise
        self._failed = 0.0, None
        return opened

    def _open(self, settings: Settings) -> _Opened:
        with ExitStack() as stack:
            installation = stack.enter_context(open_installation(settings))
            if self._opened is not None:
                self._retired.append(self._opened.holding)  # a request may still be at work with it
            self._opened = _Opened(installation, stack.pop_all(), self._stamp)
        return self._opened


def _stamp(settings: Settings) -> _Stamp:
    if settings.config_file is None:
        return None
    try:
        status = os.stat(settings.config_file)  # noqa: PTH116  a tenth of what Path costs, once per request
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
