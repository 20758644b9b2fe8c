"""One installation: its settings, its database and its state directory, and the lock that its live runs hold.

One live run at a time. The lock is flock on a file in the state directory, and an advisory lock of Postgres besides,
for hosts that share the database: kernel and server release them when their holder dies. The heartbeat in
`cleanup_runs` only explains who is at work; it never transfers anything.
"""

import os
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from sqlalchemy import Engine

from cleanup_dagster.database import runs
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.errors import DatabaseUnavailable
from cleanup_dagster.database.holds import load_holds
from cleanup_dagster.database.installation import installation_id
from cleanup_dagster.database.locks import AdvisoryLock, advisory_lock
from cleanup_dagster.filesystem.names import to_text
from cleanup_dagster.handles import Request, Run
from cleanup_dagster.retention.guardrails import Limits
from cleanup_dagster.retention.holds import HoldMatcher
from cleanup_dagster.retention.times import from_ns
from cleanup_dagster.run_history.store import OpenRunStore, RunStore, RunStoreError
from cleanup_dagster.run_history.target import RunsTarget
from cleanup_dagster.settings import Settings, Target
from cleanup_dagster.state import StateDirectory

Clock = Callable[[], int]
Progress = Callable[[int], None]


class RunRefusedError(Exception):
    """A live run that may not begin or go on; nothing more is touched. The message says what to do."""


class RunLockedError(RunRefusedError):
    """Another live run is at work. Locks are never taken over: a hung run has to be ended by somebody."""


class Installation:
    """What every verb works with.

    `clock` tells nanoseconds since the epoch; `open_runs` opens the storage of Dagster's runs.
    """

    def __init__(
        self,
        settings: Settings,
        database: Engine,
        state: StateDirectory,
        clock: Clock = time.time_ns,
        open_runs: OpenRunStore | None = None,
    ) -> None:
        self.settings = settings
        self.database = database
        self.state = state
        self.clock = clock
        self._open_runs = open_runs
        self._held = ExitStack()
        self._advisory: AdvisoryLock | None = None
        self._lock: int | None = None

    def close(self) -> None:
        """Let go of the lock of live runs, should this process hold it."""
        self._held.close()
        self._advisory = self._lock = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of everything configured, in order; Dagster's runs come last."""
        return tuple(target.name for target in self.settings.all_targets)

    @property
    def has_runs(self) -> bool:
        """Whether there is an instance at hand whose runs could be purged."""
        return self._open_runs is not None

    def runs_target(self, name: str) -> RunsTarget | None:
        """Return the target of Dagster's runs when that is its name."""
        runs = self.settings.dagster_runs
        return runs if runs is not None and runs.name == name else None

    def limits(self, name: str) -> Limits:
        """Return the limits of a target of either kind. Raises RunRefusedError as `target` does."""
        return (self.runs_target(name) or self.target(name)).limits

    def run_store(self) -> AbstractContextManager[RunStore]:
        """Open the storage of Dagster's runs. Raises RunStoreError where it is not at hand."""
        if self._open_runs is None:
            raise RunStoreError("Dagster's runs are at hand only in a run of the jobs cleanup and restore")
        return self._open_runs()

    def target(self, name: str) -> Target:
        """Return the configured target of that name. Raises RunRefusedError when it is configured no longer."""
        for target in self.settings.targets:
            if target.name == name:
                return target
        raise RunRefusedError(f"target {name!r} is not configured any more; start a new run")

    def backup_directory(self, request: Request) -> Path:
        """Return where a run's copies go: under disk pressure to another disk, when one is configured."""
        relief = self.settings.disk_pressure.backup_directory if request.disk_pressure else None
        return relief or self.settings.backup.directory

    def writes_archives(self, request: Request, target: str) -> bool:
        """Tell whether a run backs up a target in one archive: Dagster's runs always, and files under disk pressure.

        Copies would free nothing there.
        """
        return request.disk_pressure or self.runs_target(target) is not None or self.target(target).format == "archive"

    def stranger(self) -> str:
        """Say why the database is not the one this state directory belongs to; empty when it is.

        A cron job that lost its environment falls back to the embedded database, whose policies nobody looks after.
        """
        with reading(self.database) as conn:
            theirs = installation_id(conn)
        ours = self.state.installation_id(theirs)
        if ours == theirs:
            return ""
        return (
            f"the state directory {self.state.path} belongs to installation {ours[:8]}, the database to {theirs[:8]}; "
            "set CLEANUP_DATABASE_URL to the database that was used here before, or, when it was replaced on purpose, "
            f"remove {self.state.path / 'installation_id'}"
        )

    def holds(self, root: str, now_ns: int) -> HoldMatcher:
        """Return what is held at this moment of what lies at `root`, judged as of `now_ns`. Raises DatabaseUnavailable.

        A hold counts from the moment it is placed, so a run asks again before each batch.
        """
        with reading(self.database) as conn:
            return HoldMatcher(load_holds(conn), to_text(root), now_ns)

    def reserve(self, request: Request, now_ns: int) -> None:
        """Write the run's row. Raises RunRefusedError when a run of that id exists."""
        with self.database.begin() as conn:
            reserved = runs.reserve_run(
                conn,
                run_id=request.run_id,
                cleanup_type=request.cleanup_type,
                dry_run=request.dry_run,
                host=socket.gethostname(),
                state_id=self.state.id,
                pid=os.getpid(),
                executed_by=request.executed_by,
                now_ns=now_ns,
                plan_of=request.plan or None,
            )
        if not reserved:
            raise RunRefusedError(f"a run {request.run_id} exists already; start a new one")

    def lock(self) -> None:
        """Take the lock of live runs and keep it until `close`. Raises RunLockedError when somebody else has it."""
        if self._advisory is not None:
            return
        with ExitStack() as taking:
            lock = taking.enter_context(self.state.lock())
            advisory = taking.enter_context(advisory_lock(self.database)) if lock is not None else None
            if not advisory:
                raise RunLockedError(self._who_is_at_work())
            self._advisory, self._lock = advisory, lock
            self._held = taking.pop_all()

    @property
    def kept_open(self) -> tuple[int, ...]:
        """The descriptors that worker processes inherit: while one of them lives, the lock of live runs is held."""
        return () if self._lock is None else (self._lock,)

    def require_live(self, run: Run) -> None:
        """Hold the lock for a step that changes something.

        Raises:
            RunRefusedError: the run is dry, or was ended from outside.
            DatabaseUnavailable: the lock cannot be vouched for.
        """
        if run.request.dry_run:
            raise RunRefusedError(f"run {run.request.run_id} is a dry run and changes nothing")
        self.lock()
        self.sign_of_life(run)

    def sign_of_life(self, run: Run) -> None:
        """Say that the run lives, and make sure that it may. Raises as `require_live` does."""
        if self._advisory is None or not self._advisory.still_held():
            raise DatabaseUnavailable("the database dropped the lock of live runs, so no further deletion is started")
        with self.database.begin() as conn:
            if not runs.heartbeat(conn, run.request.run_id, self.clock()):
                raise RunRefusedError(f"run {run.request.run_id} was ended from outside, so it stops here")

    def _who_is_at_work(self) -> str:
        with reading(self.database) as conn:
            at_work = runs.unfinished_live_runs(conn)
        if not at_work:
            return "another live run is just beginning; try again when it has ended"
        run = at_work[-1]
        doing = "wait for it, or end that process"
        if run.host == socket.gethostname() and not _is_alive(run.pid):
            doing = (  # a worker of it that somebody stopped by a signal, say, or a step in a process of its own
                "that process is gone, but another one that works for the run, or settles it, is not: try again in a "
                "minute; should that last, find it by pgrep -af cleanup_dagster and end it"
            )
        return (
            f"run {run.run_id} is at work: process {run.pid} on {run.host}, "
            f"started {from_ns(run.started_ns):%Y-%m-%d %H:%M:%S} UTC, "
            f"last sign of life {from_ns(run.heartbeat_ns):%Y-%m-%d %H:%M:%S} UTC; {doing}"
        )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True
