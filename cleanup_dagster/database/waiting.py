"""Waiting for a database that is not there yet, while a deployment or a whole machine starts."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.errors import DatabaseNotReady

if TYPE_CHECKING:
    from tenacity import RetryCallState

#: From a quarter of a second, doubled each time, to the last number of seconds between two attempts.
_FIRST, _LONGEST = 0.25, 5.0


def wait_until_ready(engine: Engine, seconds: float, say: Callable[[str], None]) -> None:
    """Return once the database answers, for which up to `seconds` are given; `say` is told why it takes a while.

    Only what may pass is waited for: a wrong password or a missing database ends it at once.

    Raises:
        DatabaseNotReady: nothing answered in time.
        DatabaseUnavailable: it answers, and cannot be used.
    """
    try:
        _ask(engine)
    except DatabaseNotReady:
        _wait(engine, seconds, say)


def _wait(engine: Engine, seconds: float, say: Callable[[str], None]) -> None:
    # A sixth of a second, for which nobody should wait whose database is there.
    from tenacity import Retrying, retry_if_exception_type, stop_before_delay, wait_exponential

    began = time.monotonic()
    said = False

    def explain(attempt: "RetryCallState") -> None:
        nonlocal said
        if not said and attempt.outcome is not None:
            said = True
            say(f"Waiting up to {seconds:g} s for the database: {attempt.outcome.exception()}")

    waiting = Retrying(
        retry=retry_if_exception_type(DatabaseNotReady),
        wait=wait_exponential(multiplier=_FIRST, max=_LONGEST),
        stop=stop_before_delay(seconds),
        before_sleep=explain,
        reraise=True,
    )
    try:
        waiting(_ask, engine)
    except DatabaseNotReady as error:
        problem = f"{error} (waited {time.monotonic() - began:.0f} s)" if said else str(error)
    else:
        if said:
            say(f"The database answers after {time.monotonic() - began:.1f} s.")
        return
    raise DatabaseNotReady(problem)


def _ask(engine: Engine) -> None:
    with reading(engine):
        pass
