"""A worker process: one part of one stage. Started by `workers.py`; imports neither Dagster nor the database."""

import gc
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from cleanup_dagster.backups.files import BackupError
from cleanup_dagster.backups.manifest import ManifestError
from cleanup_dagster.filesystem.private import UnsafeDirectoryError
from cleanup_dagster.filesystem.tree import RootError
from cleanup_dagster.workers import Channel, Job, StoppedError

_MET = (BackupError, ManifestError, OSError, RootError, StoppedError, UnsafeDirectoryError)


# Each imports what it needs, and none of them the configuration, which takes 0.2 s.


def _judge(task: Any, channel: Channel) -> object:
    from cleanup_dagster.judging import judge_target

    return judge_target(task, channel.progress)


def _back_up(task: Any, channel: Channel) -> object:
    from cleanup_dagster.carrying import back_up_part

    return back_up_part(task, channel.progress)


def _delete(task: Any, channel: Channel) -> object:
    from cleanup_dagster.carrying import delete_part

    holds = task.holds

    def current_holds() -> Any:
        nonlocal holds
        holds = channel.latest(holds)
        return holds

    return delete_part(task, current_holds, channel.progress)


STAGES: dict[str, Callable[[Any, Channel], object]] = {"judge": _judge, "back_up": _back_up, "delete": _delete}


def main() -> None:
    """Take one job from the parent, do it, and send its result."""
    # What streams by here holds no cycles, but looking for some after every 700 new objects took 3 % of the time.
    gc.set_threshold(100_000)
    connection = Connection(int(sys.argv[1]))
    job: Job = connection.recv()
    try:
        answer = ("done", STAGES[job.stage](job.task, Channel(connection)))
    except _MET as error:
        answer = ("failed", str(error))
    except Exception as error:  # noqa: BLE001 a bug is reported to the parent, which fails this part
        answer = ("failed", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    with suppress(OSError):  # the parent is gone: the next run settles what was begun
        connection.send(answer)
