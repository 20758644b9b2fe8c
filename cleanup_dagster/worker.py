"""A worker process: one shard of one stage. Started by `workers.py`; imports neither Dagster nor the database."""

import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from cleanup_dagster.backups.files import BackupError
from cleanup_dagster.backups.manifest import ManifestError
from cleanup_dagster.filesystem.private import UnsafeDirectoryError
from cleanup_dagster.filesystem.tree import RootError
from cleanup_dagster.judging import judge_target
from cleanup_dagster.workers import Channel, Job, StoppedError

_MET = (BackupError, ManifestError, OSError, RootError, StoppedError, UnsafeDirectoryError)

STAGES: dict[str, Callable[[Any, Channel], object]] = {
    "judge": lambda task, channel: judge_target(task, channel.progress),
}


def main() -> None:
    """Take one job from the parent, do it, and send its result."""
    connection = Connection(int(sys.argv[1]))
    job: Job = connection.recv()
    try:
        answer = ("done", STAGES[job.stage](job.task, Channel(connection)))
    except _MET as error:
        answer = ("failed", str(error))
    except Exception as error:  # noqa: BLE001 a bug is reported to the parent, which fails this shard
        answer = ("failed", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    connection.send(answer)


if __name__ == "__main__":
    main()
