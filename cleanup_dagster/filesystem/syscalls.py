"""The system calls Python has no name for: rename without replacing, and what statx tells beyond stat."""

import ctypes
import errno
import os
import struct
import sys
import threading
from typing import Any

_AT_EMPTY_PATH, _AT_SYMLINK_NOFOLLOW = 0x1000, 0x100
_STATX_MNT_ID = 0x1000
_STATX_SIZE = 256
_STATX_MASK_OFFSET = 0
_STATX_MNT_ID_OFFSET = 0x90
_STATX_BTIME = 0x800
_STATX_BTIME_OFFSET = 0x50
_RENAME_NOREPLACE = 1  # Linux renameat2
_RENAME_EXCL = 4  # macOS renameatx_np
#: A kernel or filesystem without the flag says one of these; link-then-unlink does the same without replacing.
_UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP})

_libc = ctypes.CDLL(None, use_errno=True)
_statx: Any = getattr(_libc, "statx", None)
_syncfs: Any = getattr(_libc, "syncfs", None)
HAS_SYNCFS = _syncfs is not None
_rename: Any = getattr(_libc, "renameatx_np" if sys.platform == "darwin" else "renameat2", None)
#: Each thread asks into a buffer of its own. Making one for each question took 1 us of 3, and every backup asks.
_answers = threading.local()
_RENAME_FLAG = _RENAME_EXCL if sys.platform == "darwin" else _RENAME_NOREPLACE


def mount_id(fd: int) -> int:
    """Return an id of the mount `fd` lies on, comparable with others of this process only.

    A bind mount of the same filesystem has the same `st_dev` (verified), so the device alone does not tell mounts
    apart. Where the kernel does not say (before Linux 5.8, macOS) the device has to do.
    """
    found = _ask_statx(fd, _STATX_MNT_ID, _STATX_MNT_ID_OFFSET, "=Q")
    return os.fstat(fd).st_dev if found is None else int(found[0])


def mount_of(directory: int, name: str) -> int:
    """Return the id of the mount that an entry of an open directory lies on, as `mount_id` does. Opens nothing."""
    found = _ask_statx(directory, _STATX_MNT_ID, _STATX_MNT_ID_OFFSET, "=Q", os.fsencode(name))
    return os.stat(name, dir_fd=directory, follow_symlinks=False).st_dev if found is None else int(found[0])


def born_ns(fd: int) -> int:
    """Return when an open file or directory was made; 0 where kernel or filesystem do not say."""
    found = _ask_statx(fd, _STATX_BTIME, _STATX_BTIME_OFFSET, "=qI")
    return 0 if found is None else found[0] * 1_000_000_000 + found[1]


def _ask_statx(fd: int, wanted: int, offset: int, layout: str, name: bytes = b"") -> tuple[int, ...] | None:
    if _statx is None:
        return None
    try:
        buffer = _answers.buffer
    except AttributeError:
        buffer = _answers.buffer = ctypes.create_string_buffer(_STATX_SIZE)
    if _statx(fd, name, _AT_EMPTY_PATH | _AT_SYMLINK_NOFOLLOW, wanted, buffer) != 0:
        return None
    (mask,) = struct.unpack_from("=I", buffer, _STATX_MASK_OFFSET)
    return struct.unpack_from(layout, buffer, offset) if mask & wanted else None


def sync_filesystem(fd: int) -> None:
    """Bring everything on the filesystem of an open directory to the device (Linux).

    Raises OSError, too, for any write to it that failed since the directory was opened, whosever it was (Linux 5.8).
    """
    if _syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def rename_noreplace(source: str, destination: str, *, source_dir: int, destination_dir: int) -> None:
    """Rename within open directories. Raises FileExistsError rather than replace anything."""
    if _rename is not None:
        names = os.fsencode(source), os.fsencode(destination)
        if _rename(source_dir, names[0], destination_dir, names[1], _RENAME_FLAG) == 0:
            return
        code = ctypes.get_errno()
        if code not in _UNSUPPORTED:
            raise OSError(code, os.strerror(code), source, None, destination)
    os.link(source, destination, src_dir_fd=source_dir, dst_dir_fd=destination_dir, follow_symlinks=False)
    os.unlink(source, dir_fd=source_dir)
