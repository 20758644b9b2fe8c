"""How much room there is where something will be written, and whether it survives a power cut."""

import os
from pathlib import Path

_VOLATILE = frozenset({"tmpfs", "ramfs"})
_BLOCK = 4_096  # what a copy of any size rounds up to


def free_bytes(path: Path) -> int:
    """Return the bytes this process may still write at `path`, or where it would be created."""
    status = os.statvfs(_existing(path))
    return status.f_bavail * status.f_frsize


def bytes_on_disk(files: int, size: int) -> int:
    """Return the bytes that copies of `files` files of `size` bytes together take at most, blocks included."""
    return size + files * _BLOCK


def is_volatile(path: Path) -> bool:
    """Return whether `path` lies in memory (tmpfs). False where that cannot be told (macOS)."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    device = _existing(path).stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        if left.split(" ")[2] == wanted:
            return right.split(" ")[0] in _VOLATILE
    return False


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists())
