"""Executing a job of Dagster in this process, watched and stoppable.

The job runs in a thread. Dagster raises an interrupt wherever the main thread happens to be, in the middle of a file;
in a thread it hears of none, and the first Ctrl-C only asks: the step in hand finishes its batch and settles it, the
steps after it find that nothing new should begin, and the audit is written as always. A second Ctrl-C ends the process
on the spot, which the protocol is made for: the next live run settles what was in hand.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import os
import signal
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cleanup_dagster.cli import exits
from cleanup_dagster.cli.drawing import drawing
from cleanup_dagster.cli.exits import CliError
from cleanup_dagster.cli.session import user

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from types import FrameType

    from cleanup_dagster.cli.drawing import Drawing
    from cleanup_dagster.cli.output import Output
    from cleanup_dagster.cli.session import Session
    from cleanup_dagster.orchestration.launching import Launched
    from cleanup_dagster.settings import Settings

Value = TypeVar("Value")

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAFELY = "Stopping at the next safe point; what is in hand is finished first. Press Ctrl-C again to end at once."
_AT_ONCE = "Ended at once. The next live run settles what was in hand; nothing is lost."


class Watch:
    """Listens to a run from the thread that executes it. `done` counts files and runs by what was done with them."""

    def __init__(self, shown: Drawing) -> None:
        self.done: collections.Counter[str] = collections.Counter()
        self._counts: dict[str, set[str]] = collections.defaultdict(set)
        self._shown = shown
        self._values: list[object] = []
        self._stop = threading.Event()

    def begin(self, done: str, subject: str, of: int, what: str) -> Callable[[int], None]:
        """Show a step that begins."""
        from cleanup_dagster.installation import RunRefusedError

        update = self._shown.begin(done, subject, of, what)

        def report(more: int) -> None:
            self.done[done] += more
            self._counts[done] |= {what} if more else set()
            update(more)
            if self._stop.is_set():
                raise RunRefusedError("the run was told to stop")

        return report

    def counted(self, done: str) -> str:
        """Return with how many of what something was done: `1,234 files`, `7 files and runs`."""
        from cleanup_dagster.retention.defaults import counted, together

        return counted(self.done[done], together(self._counts[done]))

    def take(self, value: object) -> None:
        """Keep what a step ended with."""
        self._values.append(value)

    def stopping(self) -> bool:
        """Say whether somebody asked to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask the run to stop."""
        self._stop.set()

    def say(self, text: str) -> None:
        """Write a line beside the progress."""
        self._shown.say(text)

    def last(self, kind: type[Value]) -> Value | None:
        """Return the last thing of a kind that a step ended with."""
        found = [value for value in self._values if isinstance(value, kind)]
        return found[-1] if found else None


class Executed:
    """A run that ended, and what its steps handed over."""

    def __init__(self, run_id: str, launched: Launched, watch: Watch) -> None:
        self.run_id = run_id
        self.success = launched.success
        self.failure = launched.failure
        self.watch = watch

    @property
    def stopped(self) -> bool:
        """Whether it was asked to stop before it had ended."""
        return self.watch.stopping()

    @property
    def code(self) -> int:
        """The exit code by what failed; a report knows better."""
        if self.success:
            return exits.DONE
        error = self.watch.last(Exception)
        return (error is not None and exits.code_of(error)) or exits.SOME_FAILED


def execute(session: Session, job: str, config: Mapping[str, object]) -> Executed:
    """Execute a job and return how it ended. Raises CliError when Dagster's instance cannot be used."""
    _ = session.settings  # says which database it is before anything is drawn
    run_id = str(uuid.uuid4())
    if not config["dry_run"]:
        session.changes("history --runs")
    with drawing(session.out) as shown:
        watch = Watch(shown)
        launched = _in_thread(session.out, watch, lambda: _launch(session.settings, job, config, run_id, watch))
    return Executed(run_id, launched, watch)


def _launch(settings: Settings, job: str, config: Mapping[str, object], run_id: str, watch: Watch) -> Launched:
    from cleanup_dagster.progress import listening

    with quiet():
        from cleanup_dagster.orchestration.launching import InstanceError, launch
        from cleanup_dagster.orchestration.location import code_location

        try:
            with listening(watch):
                return launch(code_location(settings), job, config, run_id, user())
        except InstanceError as error:
            where = f"Dagster's instance in {settings.dagster_home or 'memory'}"
            advice = "correct DAGSTER_HOME, or its dagster.yaml and permissions"
            raise CliError(f"{where} cannot be used: {error}; {advice}. Nothing was changed.", exits.UNUSABLE) from None


def _in_thread(out: Output, watch: Watch, work: Callable[[], Launched]) -> Launched:
    ended: list[Launched] = []
    failed: list[BaseException] = []

    def run() -> None:
        # Inherited by the processes that Dagster starts, which would answer Ctrl-C with a traceback of their own.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            ended.append(work())
        except BaseException as error:  # noqa: BLE001  raised again in the thread that waits
            failed.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name="job")
    with _signals(out, watch):
        thread.start()
        while thread.is_alive():
            thread.join(0.2)  # a join without an end could not be interrupted by a signal's handler
    if failed:
        raise failed[0]
    return ended[0]


@contextlib.contextmanager
def _signals(out: Output, watch: Watch) -> Generator[None]:
    """Let the first signal (Ctrl-C, a terminal that goes away) ask the run to stop, and the second one end it."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        if watch.stopping():
            # Not through the console: the thread that draws may be stuck with its lock.
            show_cursor = "\x1b[?25h" if out.stderr.isatty() else ""
            with contextlib.suppress(OSError, ValueError):
                os.write(out.stderr.fileno(), f"{show_cursor}\n{_AT_ONCE}\n".encode())
            os._exit(exits.INTERRUPTED)
        watch.stop()
        watch.say(_SAFELY)  # this thread only waits for the other, and holds no lock of the console

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # One that whoever started us wants ignored (nohup, a job in the background) stays so.
    before = {number: signal.getsignal(number) for number in _STOPPING}
    heard = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in heard:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Keep what Dagster writes to the console from it; a run's own log is in the instance, where the UI shows it.

    Dagster captures whatever sys.stdout and sys.stderr lead to while a step runs. That is then not the terminal, so the
    bars do not end up in the run's compute log.
    """
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield
