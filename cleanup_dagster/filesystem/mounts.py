"""What the kernel's table of mounts tells: whether anything is mounted below a directory, and what it lies on."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from cleanup_dagster.filesystem.syscalls import mount_id

_MOUNTS = Path("/proc/self/mountinfo")
#: The characters that the kernel writes as octal escapes there.
_ESCAPED = re.compile(r"[ \t\n\\]")


def has_mounts_below(fd: int) -> bool:
    """Return whether something is mounted below an open directory, or whether that cannot be told.

    It saves asking for every file, which takes 6 us each: without a mount there is nothing that could lie over one.
    """
    try:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        mounts = list(mount_table())
    except OSError:
        return True
    below = _ESCAPED.sub(lambda found: f"\\{ord(found[0]):03o}", str(path).rstrip("/")) + "/"
    return any(fields[4].startswith(below) for fields in mounts)


def filesystem_of(fd: int) -> str:
    """Return the kind of filesystem that an open directory lies on (`ext4`), or nothing where that cannot be told."""
    mount = mount_id(fd)
    if mount == os.fstat(fd).st_dev:  # it stands in where the kernel does not say, and is no number of this table
        return ""
    try:
        return next((kind_of(fields) for fields in mount_table() if fields[0] == str(mount)), "")
    except OSError:
        return ""


def kind_of(fields: list[str]) -> str:
    """Return the kind of filesystem of one row of the table."""
    return fields[fields.index("-") + 1]


def mount_table() -> Iterator[list[str]]:
    """Yield the fields of each mount: its id, the one above, its device, what of it, its place; after a dash its kind.

    Raises OSError where there is no such table (macOS).
    """
    # Bytes first: a name may hold what Python takes for the end of a line, and the kernel escapes the newline only.
    for line in _MOUNTS.read_bytes().removesuffix(b"\n").split(b"\n"):
        yield line.decode("utf-8", "surrogateescape").split(" ")
