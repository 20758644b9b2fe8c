"""The strictest filesystem that POSIX allows: nothing is durable before an fsync of that very file or directory.

ext4 is kinder, because one commit of its journal takes everything else along, so a missing fsync goes unnoticed there.
This one forgives nothing: it knows at every moment what a power cut could still take away.
"""

import functools
import os
import stat
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cleanup_dagster.filesystem import syscalls


class Cache:
    """What was changed and is not yet durable."""

    def __init__(self) -> None:
        self._dirty: dict[tuple[int, int], str] = {}

    def below(self, *places: Path) -> list[str]:
        """Return what is not durable in these directories; staged copies need not be, they have no name yet."""
        return sorted(
            f"{why} of {path}"
            for path, why in (entry.split("\0") for entry in self._dirty.values())
            if ".staging-" not in path and any(Path(path).is_relative_to(place) for place in places)
        )

    def changed(self, fd: int, why: str) -> None:
        status = os.fstat(fd)
        self._dirty[status.st_dev, status.st_ino] = f"{_path(fd)}\0{why}"

    def changed_name(self, path: "str | os.PathLike[str]", directory: int | None, why: str) -> None:
        """Note that a directory has other names in it now."""
        if directory is not None:
            self.changed(directory, why)
        else:
            fd = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                self.changed(fd, why)
            finally:
                os.close(fd)

    def synced(self, fd: int) -> None:
        status = os.fstat(fd)
        self._dirty.pop((status.st_dev, status.st_ino), None)

    def gone(self, status: os.stat_result) -> None:
        self._dirty.pop((status.st_dev, status.st_ino), None)


def _path(fd: int) -> str:
    return str(Path(f"/proc/self/fd/{fd}").readlink()).removesuffix(" (deleted)")


def _exists(path: Any, directory: int | None) -> bool:
    try:
        os.stat(path, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


class _Watched:
    """The calls that change something or make it durable, each told to the cache."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def open(self, true: Callable[..., int], path: Any, flags: int, *rest: Any, **keywords: Any) -> int:
        directory = keywords.get("dir_fd")
        new = bool(flags & os.O_CREAT) and not _exists(path, directory)
        fd = true(path, flags, *rest, **keywords)
        if new:
            self._cache.changed(fd, "the content")
            self._cache.changed_name(path, directory, "the names")
        return fd

    def write(self, true: Callable[..., Any], fd: int, *rest: Any) -> Any:
        result = true(fd, *rest)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            self._cache.changed(fd, "the content")
        return result

    pwrite = ftruncate = write

    def fsync(self, true: Callable[..., Any], fd: int) -> None:
        true(fd)
        self._cache.synced(fd)

    fdatasync = fsync

    def mkdir(self, true: Callable[..., Any], path: Any, *rest: Any, **keywords: Any) -> None:
        true(path, *rest, **keywords)
        if not str(path).startswith(".staging-"):  # nothing in there has to outlive a power cut
            self._cache.changed_name(path, keywords.get("dir_fd"), "the names")

    def unlink(self, true: Callable[..., Any], path: Any, *rest: Any, **keywords: Any) -> None:
        status = os.stat(path, dir_fd=keywords.get("dir_fd"), follow_symlinks=False)
        true(path, *rest, **keywords)
        self._cache.gone(status)
        if not str(path).startswith((".staging-", ".cleanup-q-")):  # that an empty one comes back harms nobody
            self._cache.changed_name(path, keywords.get("dir_fd"), "the names")

    rmdir = unlink

    def rename(self, true: Callable[..., Any], source: Any, target: Any, **keywords: Any) -> None:
        true(source, target, **keywords)
        self._cache.changed_name(source, keywords.get("src_dir_fd"), "the names")
        self._cache.changed_name(target, keywords.get("dst_dir_fd"), "the names")

    def link(self, true: Callable[..., Any], source: Any, target: Any, **keywords: Any) -> None:
        true(source, target, **keywords)
        self._cache.changed_name(target, keywords.get("dst_dir_fd"), "the names")

    def rename_in_c(self, true: Callable[..., int], source: int, old: bytes, target: int, new: bytes, flag: int) -> int:
        result = true(source, old, target, new, flag)
        if result == 0:
            self._cache.changed(source, "the names")
            self._cache.changed(target, "the names")
        return result


_CALLS = (
    "open", "write", "pwrite", "ftruncate", "fsync", "fdatasync", "mkdir", "unlink", "rmdir", "rename", "link"
)  # fmt: skip


@contextmanager
def strict() -> Generator[Cache]:
    """Watch what is durable within the block, as the strictest filesystem would have it."""
    cache = Cache()
    watched = _Watched(cache)
    with ExitStack() as undo:
        for holder, name, watcher in [
            *((os, name, getattr(watched, name)) for name in _CALLS),
            (syscalls, "_rename", watched.rename_in_c),
        ]:
            true = getattr(holder, name)
            undo.callback(setattr, holder, name, true)
            setattr(holder, name, functools.partial(watcher, true))
        yield cache
