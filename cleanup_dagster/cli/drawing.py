"""How far a run is: bars with rate and remaining time on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from cleanup_dagster.retention.defaults import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from rich.progress import Progress as RichProgress

    from cleanup_dagster.cli.output import Output

_EVERY_SECONDS = 5.0
_NAME, _BAR = 14, 12  # of a target's name and of a bar, so that counts of millions fit 80 columns beside them
_TITLES = {"judged": "Scan", "backed up": "Back up", "deleted": "Delete", "restored": "Restore", "verified": "Verify"}


class Drawing(Protocol):
    """Shows the progress of steps, of which one or two are at work at a time."""

    def begin(self, done: str, subject: str, of: int, what: str) -> Callable[[int], None]:
        """Show a step, and return what is to be called with each number of files or runs it has done."""
        ...

    def say(self, text: str) -> None:
        """Write a line beside the progress."""
        ...


class Bars:
    """Bars that stay when they are full, drawn by a thread of their own."""

    def __init__(self, out: Output) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress: RichProgress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=_BAR),
            TextColumn("{task.fields[count]}", justify="right"),
            TextColumn("{task.fields[rate]}", justify="right"),
            TimeRemainingColumn(compact=True),
            console=Console(file=out.stderr, highlight=False, markup=False, width=out.aside.width),  # pyright: ignore[reportArgumentType]
        )

    def start(self) -> None:
        """Begin to draw."""
        self._progress.start()

    def stop(self) -> None:
        """Draw the last state, and show the cursor again."""
        for task in self._progress.tasks:
            if task.total is None:  # a scan knows how much there is when it is over; what did nothing shows nothing
                self._progress.update(task.id, total=task.completed, visible=bool(task.completed))
        self._progress.stop()

    def say(self, text: str) -> None:
        """Write a line above the bars."""
        self._progress.console.print(text)

    def begin(self, done: str, subject: str, of: int, what: str) -> Callable[[int], None]:
        """Show a bar; without a number of them it moves to and fro."""
        title = _title(done, subject)
        task = self._progress.add_task(title, total=of or None, count=counted(0, what), rate="")
        started, count, lock = time.monotonic(), 0, threading.Lock()

        def update(more: int) -> None:
            nonlocal count
            with lock:
                count += more
            whole = f"{count:,} of {of:,}" if of else counted(count, what)
            rate = f"{count / max(time.monotonic() - started, 1e-3):,.0f}/s" if count else ""
            self._progress.update(task, advance=more, count=whole, rate=rate)

        return update


class Lines:
    """Plain lines: one every few seconds, so that a log stays readable."""

    def __init__(self, out: Output) -> None:
        self._out = out

    def say(self, text: str) -> None:
        """Write a line."""
        self._out.note(text)

    def begin(self, done: str, subject: str, of: int, what: str) -> Callable[[int], None]:
        """Write a line when the last one is long enough ago."""
        title = _title(done, subject)
        started = said = time.monotonic()
        count = 0

        def update(more: int) -> None:
            nonlocal count, said
            count += more
            now = time.monotonic()
            if now - said >= _EVERY_SECONDS:
                said = now
                rate = count / (now - started)
                whole = f"{count:,} of {counted(of, what)}" if of else counted(count, what)
                left = f", {max(of - count, 0) / rate:,.0f} s left" if of and rate else ""
                self._out.note(f"{title}: {whole}, {rate:,.0f}/s{left}")

        return update


def _title(done: str, subject: str) -> str:
    name = subject if len(subject) <= _NAME else f"{subject[: _NAME - 3]}..."
    return f"{_TITLES.get(done, done)} {name}".strip()


@contextmanager
def drawing(out: Output) -> Generator[Drawing]:
    """Show progress within the block: by bars when somebody looks at stderr, else by lines."""
    if not out.stderr.isatty():
        yield Lines(out)
        return
    bars = Bars(out)
    bars.start()
    try:
        yield bars
    finally:
        bars.stop()
