"""How much room there is where something will be written, and whether it survives a power cut."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from cleanup_dagster.filesystem.mounts import kind_of, mount_table

_VOLATILE = frozenset({"tmpfs", "ramfs"})
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_BLOCK = 4_096  # what a copy of any size rounds up to
_MEMBER = 1_024  # a tar header of 512 bytes and up to 511 of padding; a long name's larger header packs to less

Answer = TypeVar("Answer")


class Usage(Struct, frozen=True):
    """How full a filesystem is, as `df` counts: `free` bytes are those that this process may still write."""

    device: int
    used: int
    free: int

    @property
    def used_percent(self) -> float:
        """The share that is used, of what can be used; 100 when there is no room at all."""
        return 100 * self.used / (self.used + self.free) if self.used + self.free else 100.0


def usage(path: Path) -> Usage:
    """Return how full the filesystem is that `path` lies on, or would be created on. Raises OSError."""
    status = _ask(os.statvfs, path)
    used = (status.f_blocks - status.f_bfree) * status.f_frsize
    return Usage(_ask(os.stat, path).st_dev, used, status.f_bavail * status.f_frsize)


def same_filesystem(one: Path, other: Path) -> bool:
    """Tell whether two paths lie on one filesystem, or would if they were created. Raises OSError."""
    return _ask(os.stat, one).st_dev == _ask(os.stat, other).st_dev


def free_bytes(path: Path) -> int:
    """Return the bytes this process may still write at `path`, or where it would be created."""
    status = _ask(os.statvfs, path)
    return status.f_bavail * status.f_frsize


def bytes_on_disk(files: int, size: int) -> int:
    """Return the bytes that copies of `files` files of `size` bytes together take at most, blocks included."""
    return size + files * _BLOCK


def bytes_in_archive(files: int, size: int) -> int:
    """Return the bytes that an archive of `files` files of `size` bytes together takes at most: nothing of it packs."""
    return size + files * _MEMBER + _BLOCK


def is_volatile(path: Path) -> bool:
    """Return whether `path` lies in memory (tmpfs). False where that cannot be told (macOS)."""
    try:
        mounts = list(mount_table())
    except OSError:
        return False
    device = _ask(os.stat, path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    return next((kind_of(fields) in _VOLATILE for fields in mounts if fields[2] == wanted), False)


def _ask(question: Callable[[Path], Answer], path: Path) -> Answer:
    """Ask about a path, or the nearest directory above it that is there. What goes meanwhile was never there."""
    for above in path.parents:
        try:
            return question(path)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
        path = above
    return question(path)
