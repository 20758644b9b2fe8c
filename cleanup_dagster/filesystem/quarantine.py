"""The private directory, on the root's own mount, through which everything leaves.

Renaming a name into it atomically takes whatever is there at that moment, and from then on nobody else can open it:
what is then verified is what is deleted. Check-then-unlink lost 234 replaced files in ten seconds; this lost none.
"""

import errno
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress

from cleanup_dagster.filesystem.identity import OPEN_DIRECTORY
from cleanup_dagster.filesystem.private import ownership_problem
from cleanup_dagster.filesystem.syscalls import mount_id, rename_noreplace
from cleanup_dagster.filesystem.tree import QUARANTINE_PREFIX


class ConflictError(Exception):
    """Something new has the original name, so the quarantined file cannot go back without replacing it."""


class Quarantine:
    """An open quarantine. A `slot` is the name of one file in it, unique to a run, target and receipt number."""

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.name = name

    def take(self, directory: int, name: str, slot: str) -> None:
        """Move whatever `name` is now into the quarantine. Raises OSError when it cannot be moved."""
        os.rename(name, slot, src_dir_fd=directory, dst_dir_fd=self.fd)

    def put_back(self, slot: str, directory: int, name: str) -> None:
        """Return a file to its original name, durably. Raises ConflictError when the name is taken again."""
        try:
            rename_noreplace(slot, name, source_dir=self.fd, destination_dir=directory)
        except FileExistsError:
            if not self._is_same(slot, directory, name):
                raise ConflictError(f"{self.name}/{slot}") from None
            os.unlink(slot, dir_fd=self.fd)  # link and unlink stand in for the rename here, and died in between
        with suppress(OSError):  # it is back; that the disk fails shows when the batch is made durable
            os.fsync(directory)

    def _is_same(self, slot: str, directory: int, name: str) -> bool:
        inside = os.stat(slot, dir_fd=self.fd, follow_symlinks=False)
        return os.path.samestat(inside, os.stat(name, dir_fd=directory, follow_symlinks=False))

    def remove(self, slot: str) -> None:
        """Unlink a quarantined file: the one line of the product that deletes."""
        os.unlink(slot, dir_fd=self.fd)

    def numbers(self, slots: str) -> set[int]:
        """Return the receipt numbers of the files here whose slot begins with `slots` and a dot."""
        prefix = f"{slots}."
        with os.scandir(self.fd) as entries:
            names = [entry.name for entry in entries]
        return {int(number) for name in names if name.startswith(prefix) and (number := name[len(prefix) :]).isdigit()}

    def sync(self) -> None:
        """Make what was taken and removed durable."""
        os.fsync(self.fd)


@contextmanager
def open_quarantine(root_fd: int, number: int = 0) -> Generator[Quarantine]:
    """Open this user's quarantine in a root, creating it, and remove it again when it is empty.

    With a `number`, a further one: two processes that share one wait for each other's renames (34 us a file, not 29).

    A hostile directory under the usual name (another owner, open to others, a symlink) is left alone and a name that
    cannot be guessed is used instead. Raises OSError when the root cannot be written to.
    """
    name = f"{QUARANTINE_PREFIX}{os.geteuid()}{f'.{number}' if number else ''}"
    try:
        quarantine = _open(root_fd, name) or _open(root_fd, f"{name}-{secrets.token_hex(8)}")
    except PermissionError:
        raise PermissionError(
            "nothing can be moved out of the root without permission to write there; run as a user who has it"
        ) from None
    if quarantine is None:
        raise PermissionError(f"no private quarantine can be made in the root (tried {name})")
    with _closing(root_fd, quarantine):
        yield quarantine


def left_quarantines(root_fd: int) -> list[str]:
    """Return the names of this user's quarantines in a root, left by a run that did not finish."""
    with os.scandir(root_fd) as entries:
        names = [e.name for e in entries if e.name.startswith(f"{QUARANTINE_PREFIX}{os.geteuid()}")]
    return sorted(names)


@contextmanager
def reopen_quarantine(root_fd: int, name: str) -> Generator[Quarantine | None]:
    """Open an existing quarantine for recovery; None when it is not ours. Raises OSError when that cannot be told."""
    quarantine = _open(root_fd, name, create=False)
    if quarantine is None:
        yield None
        return
    with _closing(root_fd, quarantine):
        yield quarantine


@contextmanager
def _closing(root_fd: int, quarantine: Quarantine) -> Generator[None]:
    try:
        yield
    finally:
        os.close(quarantine.fd)
        with suppress(OSError):  # not empty: a conflict stays there for a person or for recovery
            os.rmdir(quarantine.name, dir_fd=root_fd)


def _open(root_fd: int, name: str, *, create: bool = True) -> Quarantine | None:
    if create:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=root_fd)
            os.fsync(root_fd)  # before anything is moved there
    try:
        fd = os.open(name, OPEN_DIRECTORY, dir_fd=root_fd)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        # Ours is not to be taken for a stranger's because descriptors ran out: what is in it would count as deleted.
        if error.errno == errno.ELOOP or os.stat(name, dir_fd=root_fd, follow_symlinks=False).st_uid != os.geteuid():
            return None
        raise
    if ownership_problem(os.fstat(fd)) is not None or mount_id(fd) != mount_id(root_fd):
        os.close(fd)
        return None
    return Quarantine(fd, name)
