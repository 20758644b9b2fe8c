"""A Postgres that takes a statement and never answers must not hang a run for ever: after a while the line is cut.

The server's own time-outs end with the server that hangs, and the kernel goes on acknowledging for a process that is
stopped; so only this end can tell. Cut off, the driver sees a connection that was closed.
"""

import os
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2.extensions import connection, cursor

#: A statement of ours takes milliseconds. What waits longer waits for a lock that somebody forgot, or for nothing.
ANSWER_SECONDS = 60.0


class PatientConnection(connection):
    """A connection of psycopg2 that raises OperationalError when an answer takes longer than `ANSWER_SECONDS`."""

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Return a cursor that waits as long, too."""
        return super().cursor(*args, **({"cursor_factory": _PatientCursor} | kwargs))

    def commit(self) -> None:
        """Commit. After the error nobody knows whether it went through."""
        with _patience(self):
            super().commit()

    def rollback(self) -> None:
        """Roll back."""
        with _patience(self):
            super().rollback()


class _PatientCursor(cursor):
    def execute(self, *args: Any, **kwargs: Any) -> None:
        with _patience(self.connection):
            super().execute(*args, **kwargs)


@contextmanager
def _patience(on: connection) -> Generator[None]:
    seconds = ANSWER_SECONDS
    was_cut = threading.Event()

    def cut() -> None:
        was_cut.set()
        with socket.socket(fileno=os.dup(on.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except psycopg2.Error as error:
        if was_cut.is_set():
            raise psycopg2.OperationalError(f"timed out: no answer within {seconds:g} seconds") from error
        raise
    finally:
        timer.cancel()
