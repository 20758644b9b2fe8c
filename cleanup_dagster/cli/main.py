"""The entry point: the process of a command, from its first instant to its last."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING

from cleanup_dagster.cli import exits, interrupts

if TYPE_CHECKING:
    from typing import NoReturn

#: Before the garbage collector looks again, instead of 700: nearly all that a short command makes are the modules it
#: imports, which stay. Looking through them again and again took 7 % of it.
_ALLOCATIONS = 50_000


def main() -> NoReturn:
    """Run the command that this process was started with, and end."""
    gc.set_threshold(_ALLOCATIONS)
    interrupts.end_at_once()
    _open_streams()
    try:
        from cleanup_dagster.cli.invoking import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        os.write(2, b"Interrupted.\n")  # after the command had said what it did
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
