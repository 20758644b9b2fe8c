"""Who watches a run from the process that executes it: how far each step is, and what the steps end with.

The steps of the job report here besides Dagster's log. Nobody listens unless a face executes the job in its own process
and says so with `listening`; the command line draws its bars from this, and stops a run through it.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

#: Called with the number of files that were dealt with since the last call. It may raise `RunRefusedError` to stop the
#: step: between two batches, where everything that was in hand is settled.
Progress = Callable[[int], None]


class Listener(Protocol):
    """What a watching face offers to the steps of a run."""

    def begin(self, done: str, subject: str, of: int, what: str) -> Progress:
        """Hear that a step begins: what it does (`deleted`), in which target, with how many (0: unknown) of what."""
        ...

    def take(self, value: object) -> None:
        """Take what a step ended with: its result, or the exception that it failed with."""
        ...

    def stopping(self) -> bool:
        """Say whether the run was asked to stop, so that nothing new should be begun."""
        ...


_listener: ContextVar[Listener | None] = ContextVar("cleanup_progress_listener", default=None)


@contextmanager
def listening(listener: Listener) -> Generator[None]:
    """Let `listener` hear of every step that is executed within the block, in this context."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def begin(done: str, subject: str, of: int, what: str) -> Progress:
    """Tell the listener, if there is one, that a step begins, and return what it is to be told its progress by."""
    listener = _listener.get()
    return _nobody if listener is None else listener.begin(done, subject, of, what)


def hand_over(value: object) -> None:
    """Give the listener, if there is one, what a step ended with."""
    listener = _listener.get()
    if listener is not None:
        listener.take(value)


def stopping() -> bool:
    """Say whether a listener wants the run to stop."""
    listener = _listener.get()
    return listener is not None and listener.stopping()


def _nobody(_: int) -> None:
    pass
