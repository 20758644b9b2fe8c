"""Worker processes: shards of one stage, side by side, in processes that never import Dagster.

Plain subprocesses rather than `multiprocessing`: its spawn imports the parent's main module again, which under Dagster
is Dagster (2.5 s a worker, against 0.3 s). Parent and worker speak over a socket pair. A worker that dies is a failed
shard, never a hang: its end of the socket closes, and one that does nothing any more is killed. A parent that dies
takes its workers with it: they notice at their next batch, and until then they hold the lock of live runs open, so that
nobody recovers under their hands.
"""

import math
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection, Pipe, wait
from typing import TypeVar, cast

from msgspec import Struct

from cleanup_dagster.interpreter import command_of
from cleanup_dagster.stuck import PATIENCE_SECONDS, Watch

_TICK_SECONDS = 0.5
#: A worker that has not heard from its parent for so long waits for it: what it knows may be true no more.
_STALE_SECONDS = 5.0
#: How long a worker that was told to stop may take over the batch in hand, before it is killed.
_STOP_SECONDS = 60.0
#: Files from which worker processes pay: at 15 us a file for judging, a worker's 0.3 s of start-up is earned back here.
WORTH_WORKERS = 20_000

_STOP = "stop"

Result = TypeVar("Result")
Message = TypeVar("Message")


class WorkerError(Exception):
    """A shard that failed, with what the worker said, or how it died."""


class StoppedError(Exception):
    """Raised in a worker: the parent is gone, or wants no further batch to begin."""


class Job(Struct, frozen=True):
    """What one worker does: the name of a stage that `worker.py` knows, and that stage's task for the shard."""

    stage: str
    task: object


class Channel:
    """A worker's end: reports progress, and hears what changed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._heard = time.monotonic()
        self._message: object | None = None

    def progress(self, count: int) -> None:
        """Report that `count` more items are done. Raises StoppedError when nothing more is to be begun."""
        try:
            self._connection.send(("progress", count))
        except OSError:
            raise StoppedError("the parent process is gone") from None
        self._listen(0)

    def latest(self, known: Message) -> Message:
        """Return the newest message of the parent, of the kind of `known`, which was the newest before.

        When the last one came too long ago (its database hangs, say) the next is waited for. Raises StoppedError.
        """
        self._listen(None if time.monotonic() - self._heard > _STALE_SECONDS else 0)
        return known if self._message is None else cast("Message", self._message)

    def _listen(self, timeout: float | None) -> None:
        try:
            while self._connection.poll(timeout):
                message, timeout = self._connection.recv(), 0
                if message == _STOP:
                    raise StoppedError("the run was stopped")
                self._message, self._heard = message, time.monotonic()
        except (EOFError, OSError):
            raise StoppedError("the parent process is gone") from None


class Handle:
    """The parent's end of one running worker."""

    def __init__(self, job: Job, keep_open: Sequence[int]) -> None:
        ours, theirs = Pipe()
        self.connection = ours
        self.result: object | None = None
        self.finished = False
        self._process = subprocess.Popen(  # noqa: S603 our own interpreter and module
            command_of("cleanup_dagster.worker", str(theirs.fileno())),
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), *keep_open),
            start_new_session=True,  # Ctrl-C is for the parent, which stops its workers between batches
        )
        theirs.close()
        self._watch = Watch(self._process.pid)
        self.tell(job)

    def tell(self, message: object) -> None:
        """Send a message; a worker that is gone is noticed where its result is waited for."""
        with suppress(OSError):
            self.connection.send(message)

    def receive(self) -> int:
        """Take one message and return the progress in it (0 for a result)."""
        try:
            kind, content = self.connection.recv()
        except (EOFError, OSError):
            self._end(WorkerError(f"a worker process died ({self._how_it_died()})"))
            return 0
        if kind == "progress":
            return content
        self._end(WorkerError(content) if kind == "failed" else content)
        return 0

    def look_after(self) -> None:
        """Kill the process when it does nothing any more, so that it is a shard that failed."""
        if not self.finished and self._watch.is_stuck():
            self._process.kill()
            self._end(WorkerError(f"a worker process did nothing for {PATIENCE_SECONDS:.0f} seconds and was killed"))

    def close(self) -> None:
        """End the process, whatever it is doing, and wait for it."""
        self.connection.close()
        try:
            self._process.wait(timeout=_STOP_SECONDS)  # it stops at its next batch; what it has in hand it finishes
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _end(self, result: object) -> None:
        self.result, self.finished = result, True

    def _how_it_died(self) -> str:
        code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def run_shards(
    jobs: Sequence[Job],
    progress: Callable[[int], None],
    tick: Callable[[], object | None] = lambda: None,
    keep_open: Sequence[int] = (),
) -> list[object]:
    """Run each job in a worker of its own, and return their results in order; a failed shard's is a WorkerError.

    `tick` is called twice a second; what it returns other than None is sent to every worker. When it raises, the
    workers are told to stop after the batch in hand, and it is raised again once they have; one that hangs is killed.
    """
    stopping: BaseException | None = None
    due, given_up = 0.0, math.inf
    with ExitStack() as stack:
        workers: list[Handle] = []
        for job in jobs:
            workers.append(Handle(job, keep_open))
            stack.callback(workers[-1].close)
        while (pending := [one for one in workers if not one.finished]) and time.monotonic() < given_up:
            message: object | None = None
            try:
                ready = wait([worker.connection for worker in pending], timeout=_TICK_SECONDS)
                done = sum(worker.receive() for worker in pending if worker.connection in ready)
                for worker in pending:
                    worker.look_after()
                if stopping is None:
                    progress(done)
                    if time.monotonic() >= due:
                        message, due = tick(), time.monotonic() + _TICK_SECONDS
            except BaseException as error:  # noqa: BLE001 raised again below, when no worker is at work any more
                stopping, message, given_up = stopping or error, _STOP, min(given_up, time.monotonic() + _STOP_SECONDS)
            if message is not None:
                for worker in pending:
                    worker.tell(message)
        results = [worker.result for worker in workers]
    if stopping is not None:
        raise stopping
    return results


def results_of(results: Sequence[object], kind: type[Result]) -> list[Result]:
    """Return the results of a stage in which every shard has to succeed. Raises the first shard's WorkerError."""
    for result in results:
        if isinstance(result, WorkerError):
            raise result
    return [result for result in results if isinstance(result, kind)]
