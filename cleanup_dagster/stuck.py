"""Telling a process that does nothing any more from one that is only slow."""

import re
import time
from pathlib import Path

#: Without a single system call or slice of the processor: stopped by a signal, say, or waiting for what never comes.
PATIENCE_SECONDS = 120.0
_LOOK_SECONDS = 1.0
_SWITCHES = re.compile(r"ctxt_switches:\s+(\d+)")


class Watch:
    """Watches one process. Only the time in which somebody looks counts: a host that was suspended was not stuck."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._quiet = 0.0
        self._looked = time.monotonic()
        self._seen: list[tuple[str, ...]] | None = signs_of_life(pid)

    def is_stuck(self) -> bool:
        """Look, at most once a second, and return whether the process has done nothing for too long."""
        elapsed = time.monotonic() - self._looked
        if elapsed >= _LOOK_SECONDS:
            signs = signs_of_life(self._pid)
            self._quiet = self._quiet + _LOOK_SECONDS if signs is not None and signs == self._seen else 0.0
            self._looked, self._seen = time.monotonic(), signs
        return self._quiet >= PATIENCE_SECONDS


def signs_of_life(pid: int) -> list[tuple[str, ...]] | None:
    """Return what changes whenever a process runs, for each of its threads; None when that cannot be told.

    It cannot of one that waits for a disk or the processor, which may take their time, nor where the system has no such
    figures.
    """
    signs: list[tuple[str, ...]] = []
    try:
        for thread in sorted(Path(f"/proc/{pid}/task").iterdir()):
            figures = (thread / "stat").read_text(errors="replace").rpartition(")")[2].split()
            switches = _SWITCHES.findall((thread / "status").read_text(errors="replace"))
            if not switches or figures[0] in {"D", "R"}:
                return None
            signs.append((thread.name, *figures[11:13], *switches))  # and the ticks of user and system time
    except (OSError, IndexError):
        return None
    return signs
