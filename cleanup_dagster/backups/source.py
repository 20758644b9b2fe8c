"""Reading what is to be backed up. That its bytes cannot be read concerns this one file and not the store."""

import os


class SourceError(Exception):
    """A file that cannot be read to its end, on account of a bad sector for example; it stays where it is."""


def read_source(fd: int, size: int) -> bytes:
    """Return up to `size` bytes from where an open file stands. Raises SourceError."""
    try:
        return os.read(fd, size)
    except OSError as error:
        raise SourceError(error.strerror or str(error)) from None
