"""What many ask for at once is put together once a second, and at once after a change."""

import time
from collections.abc import Callable
from threading import Lock

_SECONDS = 1.0


class Glance:
    """One document, kept for a second. Whoever comes while it is put together waits for it."""

    def __init__(self) -> None:
        self._document: bytes = b""
        self._until = 0.0
        self._changes = 0
        self._lock = Lock()

    def forget(self) -> None:
        """Put the document together anew for the next one who asks."""
        self._changes += 1
        self._until = 0.0

    def of(self, make: Callable[[], bytes]) -> bytes:
        """Return the document, made by `make` unless it is fresh. Raises what `make` does."""
        if time.monotonic() < self._until:
            return self._document
        with self._lock:
            if time.monotonic() >= self._until:
                before = self._changes
                self._document = make()
                if before == self._changes:  # else it may be from before a change
                    self._until = time.monotonic() + _SECONDS
            return self._document
