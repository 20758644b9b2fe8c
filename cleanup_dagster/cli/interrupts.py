"""Ctrl-C before a command has begun: there is nothing to lose, so the process ends at once, with one line.

An exception would not do. Raised while modules are imported it ends in a traceback, or is swallowed by what an import
calls back, and then the command goes on.
"""

import os
import signal

from cleanup_dagster.cli import exits


def end_at_once() -> None:
    """Let Ctrl-C end the process, unless whoever started it wants it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_again() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again: from here on there is something to settle."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: object) -> None:
    os.write(2, b"Interrupted; nothing was changed.\n")
    os._exit(exits.INTERRUPTED)
