"""Making many open files durable at once."""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from cleanup_dagster.filesystem.mounts import filesystem_of
from cleanup_dagster.filesystem.syscalls import HAS_SYNCFS

#: More bring no more: the disk is what they wait for.
_THREADS = 8
#: Where one call for the whole filesystem does what an fsync of each file does. FUSE and others need not pass it on.
_WHOLE = frozenset({"ext4", "xfs", "btrfs"})
#: Before Linux 5.8 that call did not tell of writes that had failed.
_TELLS_SINCE = (5, 8)


def sync_each(fds: Sequence[int]) -> list[OSError | None]:
    """Bring open files to the device, and return for each what went wrong.

    Every fsync ends with a flush of the device's cache, and the kernel makes one of those that are asked for at the
    same time: 400 small files a second one after the other, 3,500 by eight threads. It says which file failed.
    """
    if len(fds) < 2:
        return [_sync(fd) for fd in fds]
    with ThreadPoolExecutor(min(_THREADS, len(fds))) as threads:
        return list(threads.map(_sync, fds))


def _sync(fd: int) -> OSError | None:
    try:
        os.fsync(fd)
    except OSError as error:
        return error
    return None


def syncs_whole(fd: int) -> bool:
    """Return whether `sync_filesystem` can be relied on where an open directory lies."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (
        HAS_SYNCFS
        and release is not None
        and (int(release[1]), int(release[2])) >= _TELLS_SINCE
        and filesystem_of(fd) in _WHOLE
    )
