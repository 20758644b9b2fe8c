"""The entry point: the process of a command, from its first instant to its last."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from cleanup_dagster.cli import exits


def main() -> NoReturn:
    """Run the command that this process was started with, and end."""
    _open_streams()
    try:
        from cleanup_dagster.cli.invoking import run  # in here, so that Ctrl-C while it loads is no traceback either

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        os.write(2, b"Interrupted.\n")  # before a command began, or after it had said what it did
        os._exit(exits.INTERRUPTED)
    if "dagster" not in sys.modules:
        # Whatever was opened is closed by now. Taking the interpreter apart took a third of the command's time.
        os._exit(code)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # everything is done and said; Dagster's threads take a moment to end
    sys.exit(code)


def _open_streams() -> None:
    """Lead to nowhere what was closed (`>&-`): its number would go to the next file that is opened."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


if __name__ == "__main__":
    main()
