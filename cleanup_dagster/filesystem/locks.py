"""The lock of live runs on this host. The kernel releases it when its holder dies, however it dies."""

import errno
import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def host_lock(state_fd: int) -> Generator[int | None]:
    """Try for the lock of live runs in the open state directory, and yield its descriptor; None when somebody has it.

    Whoever inherits the descriptor holds the lock, too: a worker process that outlives the run by a batch.

    The lock is on a file in our own 0700 directory, never on a root itself, where anyone could hold it against us.
    """
    fd = os.open("live.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=state_fd)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.EWOULDBLOCK}:
                raise
            yield None
        else:
            yield fd
    finally:
        os.close(fd)
