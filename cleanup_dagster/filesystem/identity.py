"""Opening one file without following anything, and telling whether it is still the file that was judged."""

import hashlib
import os
import stat

from cleanup_dagster.retention.models import Identity, Reason

# O_NONBLOCK: a FIFO put in the file's place must not hang the run; O_NOCTTY: nor may a terminal become ours.
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def identify(status: os.stat_result) -> Identity:
    """Return the identity of a file from its status."""
    return Identity(
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_uid,
        status.st_gid,
        status.st_mode,
    )


def obstacle(status: os.stat_result) -> tuple[Reason, str] | None:
    """Return why a directory entry is never touched, or None for a regular file with one name."""
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return None if status.st_nlink == 1 else (Reason.HARD_LINKED, f"{status.st_nlink} links")
    if stat.S_ISLNK(mode):
        return Reason.SYMLINK, ""
    return Reason.NOT_REGULAR, _KINDS.get(stat.S_IFMT(mode), "unknown kind")


_KINDS = {
    stat.S_IFDIR: "directory",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def difference(before: Identity, now: os.stat_result, changed_ns: int = 0) -> str | None:
    """Say what changed since `before` was recorded, or None when it is the same file in the same state.

    With `changed_ns`, the ctime of then, a write is seen whose author set the mtime back. Once the file was moved its
    ctime says nothing any more.
    """
    after = identify(now)
    if after == before:
        if now.st_nlink > 1:
            return "it has another hard link now"
        if changed_ns and now.st_ctime_ns != changed_ns:
            return "its inode changed since it was judged, though size and mtime are the same"
        return None
    if (after.dev, after.ino) != (before.dev, before.ino):
        return "another file has its name now"
    if (after.size, after.mtime_ns) != (before.size, before.mtime_ns):
        return "it was written to since it was judged"
    return "its owner or mode changed since it was judged"


def hash_open(fd: int) -> str:
    """Return the sha256 of an open file, from its beginning.

    Raises OSError for what is no regular file: somebody may have put a device in its place, and /dev/zero never ends.
    """
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError("it is not a regular file any more")
    digest = hashlib.sha256()
    position = 0
    while block := os.pread(fd, 1 << 20, position):
        digest.update(block)
        position += len(block)
    return digest.hexdigest()
