"""Connections to the page: bounded in what they may say before they ask for something, and in how long they may wait.

Anybody may connect, with or without a token. uvicorn's faster parser reads a head without end (100 MB of headers took
100 MB of memory), and neither of its parsers lets go of a connection that has begun to ask and says no more.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

_SECONDS = 30.0


class Connection(H11Protocol):
    """One connection, over h11: that refuses a head of more than 64 KiB.

    It is looked at every 30 seconds, and ends when since the last look it was the client that was waited for: because
    it has not asked whole, or has taken nothing of the answer.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._looking: asyncio.TimerHandle | None = None
        self._waited: tuple[object, int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to look at it."""
        super().connection_made(transport)  # pyright: ignore[reportArgumentType]  as uvicorn narrows it
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """End looking."""
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)

    def _look_later(self) -> None:
        self._looking = self.loop.call_later(_SECONDS, self._look)

    def _look(self) -> None:
        asked: Any = self.cycle  # of the latest request, None before the first
        now = (asked, self.transport.get_write_buffer_size())
        if asked is not None and not asked.response_complete and not self.flow.write_paused:
            self._waited = None  # it is the page that is waited for
        elif self._waited == now:
            self.transport.abort()
            return
        else:
            self._waited = now
        self._look_later()
