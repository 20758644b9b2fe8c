"""Directories that only we can read or write (backups, state, quarantine), and who else can change a file of ours."""

import errno
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from cleanup_dagster.filesystem.identity import OPEN_DIRECTORY

_LINKS_MAX = 40  # as the kernel has it


class UnsafeDirectoryError(Exception):
    """A directory that somebody else could read, write or swap; nothing is put there. The message says what to do."""


@contextmanager
def private_directory(path: Path, purpose: str) -> Generator[int]:
    """Open a directory that is ours, mode 0700, creating it (and its parents) when it does not exist.

    Raises:
        UnsafeDirectoryError: it, or a directory on the way to it, belongs to or can be changed by somebody else, or it
            cannot be made.
    """
    fd = _open_or_create(path, purpose)
    try:
        yield fd
    finally:
        os.close(fd)


def _open_or_create(path: Path, purpose: str) -> int:
    _check_ancestors(path, purpose)
    try:
        # One by one: `parents=True` would give those on the way the mode that the umask allows, not this one.
        for directory in (*reversed(path.parents), path):
            if not os.path.lexists(directory):
                with suppress(FileExistsError):  # another process was faster; what it made is looked at below
                    directory.mkdir(mode=0o700)
        fd = os.open(path, OPEN_DIRECTORY)
    except NotADirectoryError:
        what = "a symbolic link" if path.is_symlink() else "not a directory"
        raise UnsafeDirectoryError(f"the {purpose} {path} is {what}; remove it or name another") from None
    except OSError as error:
        raise UnsafeDirectoryError(
            f"the {purpose} {path} cannot be used: {error.strerror}; create it with mode 0700 or name another"
        ) from None
    problem = ownership_problem(os.fstat(fd))
    if problem is not None:
        os.close(fd)
        raise UnsafeDirectoryError(f"the {purpose} {path} {problem}")
    return fd


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def ownership_problem(status: os.stat_result) -> str | None:
    """Say why a directory is not private to this process's user, or None."""
    if status.st_uid != os.geteuid():
        return f"belongs to uid {status.st_uid}, not to this process (uid {os.geteuid()}); remove it or name another"
    if stat.S_IMODE(status.st_mode) & 0o077:
        return f"has mode {stat.S_IMODE(status.st_mode):04o}, open to others; chmod 700 it or name another"
    return None


class Opening(NamedTuple):
    """A place where somebody other than root and this process's user can change what a path leads to.

    `anybody` is true when every user of this host can; `said` tells of the place, `advice` what would be right.
    """

    said: str
    advice: str
    anybody: bool = False


def openings(path: Path) -> Iterator[Opening]:
    """Yield where others can change the file at an absolute path: itself, and the directories and links on the way.

    What lies below a directory that others cannot enter is closed to them. Raises OSError.
    """
    sticky = False
    for place, status in _way_to(path):
        is_link = stat.S_ISLNK(status.st_mode)
        if _enterable(place, stat.S_IXGRP | stat.S_IXOTH):
            if not _is_ours(status) and (sticky or not is_link):
                yield _owned(place, status, is_link=is_link)
            if not is_link and not _is_sticky(status):
                yield from _writable(place, status)
        sticky = sticky if is_link else _is_sticky(status)


def _owned(place: Path, status: os.stat_result, *, is_link: bool) -> Opening:
    link, flag = ("the symbolic link ", "-h ") if is_link else ("", "")
    return Opening(f"{link}{place} belongs to uid {status.st_uid}", f"chown {flag}{os.geteuid()} {place}")


def _writable(place: Path, status: os.stat_result) -> Iterator[Opening]:
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_IWOTH:
        # The modes of a mount that is read-only here may be those of another system, where nobody else gets to it.
        read_only = os.statvfs(place).f_flag & os.ST_RDONLY
        anybody = not read_only and _enterable(place, stat.S_IXOTH)
        yield Opening(f"{place} can be written by everybody (mode {mode:04o})", f"chmod o-w {place}", anybody)
    if _is_open_to_group(status):
        yield Opening(f"{place} can be written by group {status.st_gid} (mode {mode:04o})", f"chmod g-w {place}")


def _enterable(place: Path, who: int) -> bool:
    """Return whether every directory above a place lets somebody through; `who` is one of these bits of its mode."""
    return all(parent.stat().st_mode & who for parent in place.parents)


def _is_sticky(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode) and bool(status.st_mode & stat.S_ISVTX)


def _check_ancestors(path: Path, purpose: str) -> None:
    # Whoever may rename a directory on the way can swap ours for his own, so each must be root's or ours and either
    # closed to others or sticky (as /tmp is). In a sticky one whoever made a link can turn it elsewhere.
    sticky = False
    try:
        for place, status in _way_to(path.parent):
            if not stat.S_ISLNK(status.st_mode):
                _check_ancestor(place, status, path, purpose)
                sticky = _is_sticky(status)
            elif sticky and not _is_ours(status):
                raise UnsafeDirectoryError(
                    f"the {purpose} {path} leads through the symbolic link {place} of uid {status.st_uid}, who can "
                    "turn it elsewhere; name the real path"
                )
    except FileNotFoundError:
        return
    except OSError as error:
        at = error.filename
        raise UnsafeDirectoryError(f"the {purpose} {path} cannot be reached: {error.strerror} at {at}") from None


def _way_to(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every directory and every symbolic link by which the kernel comes to a path. Raises OSError."""
    here, left, links = Path("/"), [*reversed(path.parts)], 0
    while left:
        part = left.pop()
        here = here.parent if part == ".." else here / part
        status = here.lstat()
        yield here, status
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(here))
            left += reversed(here.readlink().parts)
            here = here.parent


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid in {0, os.geteuid()}


def _is_open_to_group(status: os.stat_result) -> bool:
    return bool(status.st_mode & stat.S_IWGRP) and status.st_gid not in {0, os.getegid()}


def _check_ancestor(ancestor: Path, status: os.stat_result, path: Path, purpose: str) -> None:
    mode = status.st_mode
    swappable = (mode & stat.S_IWOTH or _is_open_to_group(status)) and not mode & stat.S_ISVTX
    if not _is_ours(status) or swappable:
        raise UnsafeDirectoryError(
            f"the {purpose} {path} lies below {ancestor}, which others can change (uid {status.st_uid}, "
            f"mode {stat.S_IMODE(mode):04o}); name a directory below one that only root or you can change"
        )
