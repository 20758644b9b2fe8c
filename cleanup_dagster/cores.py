"""How many worker processes this machine is good for."""

import os


def default_workers() -> int:
    """Return the number of cores this process may use, at most 4."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 4)
