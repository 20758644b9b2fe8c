"""How many worker processes this machine, or the container that this runs in, is good for."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

_MOST = 4
_CGROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def default_workers() -> int:
    """Return the number of cores this process may use, at most 4: by its affinity, and by its cgroups' quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, math.ceil(quota()), _MOST))


def quota(cgroups: Path = _CGROUPS, own: Path = _OWN) -> float:
    """Return the cores' worth of time that the kernel grants this process, the least of all its cgroups, or 4."""
    return min((limit for group in _groups(cgroups, own) if (limit := _limit(group)) is not None), default=_MOST)


def _groups(cgroups: Path, own: Path) -> Iterator[Path]:
    """Yield where the quotas of our cgroup may stand, and of those above it, of either version of cgroups.

    A container may see a path of its host, whose directories are not there; its own quota then stands at the top.
    """
    try:
        lines = own.read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        names = [name for name in path.split("/") if name not in {"", ".", ".."}]
        for top in (cgroups, cgroups / "unified") if not controllers else (cgroups / controllers, cgroups / "cpu"):
            for depth in range(len(names) + 1):
                yield top.joinpath(*names[:depth])


def _limit(group: Path) -> float | None:
    """Return the quota of one cgroup in cores, or None when it has none."""
    try:
        if (group / "cpu.max").exists():
            allowed, period = (group / "cpu.max").read_text().split()
        else:
            allowed, period = (group / "cpu.cfs_quota_us").read_text(), (group / "cpu.cfs_period_us").read_text()
        return int(allowed) / int(period) if int(allowed) > 0 and int(period) > 0 else None
    except (OSError, ValueError):  # none here, or `max`
        return None
