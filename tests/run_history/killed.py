# pyright: reportPrivateUsage=false
# The process dies inside the purge, between its private steps.
"""A purge, or the restore of a run's, in a process of its own, which ends itself by SIGKILL at a chosen point.

`killed.py <home> <url> <point> [<run to be restored>]`
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from run_history_helpers import Shop
from sqlalchemy import make_url


def killing(function: Callable[..., Any], at: int, *, after: bool) -> Callable[..., Any]:
    """Return the function, which kills the process before or after its call number `at`."""
    calls = 0

    def called(*args: Any, **how: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **how)
        if calls == at and after:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return called


def strike(point: str) -> None:
    """Patch the point at which the process dies."""
    from cleanup_dagster.orchestration import run_store_postgres, run_store_sqlite
    from cleanup_dagster.run_history import purging

    sqlite, postgres = run_store_sqlite.SqliteRunStore, run_store_postgres.PostgresRunStore
    if point == "rows deleted":
        run_store_postgres._delete = killing(run_store_postgres._delete, 1, after=True)
    elif point == "committed":
        for store in (sqlite, postgres):
            store.clear = killing(store.clear, 1, after=False)
    elif point == "some logs removed":
        for store in (sqlite, postgres):
            store.clear = killing(store.clear, 3, after=False)
    elif point == "index deleted":
        sqlite._unlink = killing(sqlite._unlink, 1, after=False)
    elif point == "some event logs removed":
        sqlite._unlink = killing(sqlite._unlink, 3, after=False)
    elif point == "archived":
        purging.commit_intent = killing(purging.commit_intent, 1, after=False)
    elif point == "promised":
        purging.commit_intent = killing(purging.commit_intent, 1, after=True)
    else:
        raise LookupError(point)


def strike_restore(point: str) -> None:
    """Patch the point at which the process dies while it puts runs back."""
    from cleanup_dagster.orchestration import run_store_postgres, run_store_sqlite

    sqlite = run_store_sqlite.SqliteRunStore
    make, insert = sqlite._make_log, run_store_sqlite._insert_rows

    def insert_and_die(*args: Any) -> None:
        run_store_sqlite._insert_rows = killing(insert, 1, after=True)
        make(*args)

    if point == "log half made":
        setattr(sqlite, "_make_log", insert_and_die)  # noqa: B010  not of the very type of a method
    elif point == "log made":
        sqlite._make_log = killing(make, 2, after=True)
    elif point == "rows inserted":
        run_store_postgres._insert = killing(run_store_postgres._insert, 3, after=True)
    else:
        raise LookupError(point)


if __name__ == "__main__":
    home, url, point, *of_run = sys.argv[1:]
    shop = Shop(Path(home), make_url(url) if url else None)
    if of_run:
        strike_restore(point)
        shop.restore(*of_run)
    else:
        strike(point)
        shop.clean(run_id="killed")
