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
    return os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)")


@contextmanager
def strict() -> Generator[Cache]:
    """Watch what is durable within the block, as the strictest filesystem would have it."""
    cache = Cache()
    true_open, true_stat = os.open, os.stat

    def opened(true: Callable[..., int], path: Any, flags: int, *rest: Any, **keywords: Any) -> int:
        directory = keywords.get("dir_fd")
        new = bool(flags & os.O_CREAT) and not _exists(path, directory)
        fd = true(path, flags, *rest, **keywords)
        if new:
            cache.changed(fd, "the content")
            cache.changed_name(path, directory, "the names")
        return fd

    def written(true: Callable[..., Any], fd: int, *rest: Any) -> Any:
        result = true(fd, *rest)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            cache.changed(fd, "the content")
        return result

    def synced(true: Callable[..., Any], fd: int) -> None:
        true(fd)
        cache.synced(fd)

    def made(true: Callable[..., Any], path: Any, *rest: Any, **keywords: Any) -> None:
        true(path, *rest, **keywords)
        if not str(path).startswith(".staging-"):  # nothing in there has to outlive a power cut
            cache.changed_name(path, keywords.get("dir_fd"), "the names")

    def removed(true: Callable[..., Any], path: Any, *rest: Any, **keywords: Any) -> None:
        status = true_stat(path, dir_fd=keywords.get("dir_fd"), follow_symlinks=False)
        true(path, *rest, **keywords)
        cache.gone(status)
        if not str(path).startswith((".staging-", ".cleanup-q-")):  # that an empty one comes back harms nobody
            cache.changed_name(path, keywords.get("dir_fd"), "the names")

    def moved(true: Callable[..., Any], source: Any, target: Any, **keywords: Any) -> None:
        true(source, target, **keywords)
        cache.changed_name(source, keywords.get("src_dir_fd"), "the names")
        cache.changed_name(target, keywords.get("dst_dir_fd"), "the names")

    def linked(true: Callable[..., Any], source: Any, target: Any, **keywords: Any) -> None:
        true(source, target, **keywords)
        cache.changed_name(target, keywords.get("dst_dir_fd"), "the names")

    def moved_in_c(true: Callable[..., int], source: int, old: bytes, target: int, new: bytes, flag: int) -> int:
        result = true(source, old, target, new, flag)
        if result == 0:
            cache.changed(source, "the names")
            cache.changed(target, "the names")
        return result

    def _exists(path: Any, directory: int | None) -> bool:
        try:
            true_stat(path, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    watched: dict[str, Callable[..., Any]] = {
        "open": opened,
        "write": written,
        "pwrite": written,
        "ftruncate": written,
        "fsync": synced,
        "fdatasync": synced,
        "mkdir": made,
        "unlink": removed,
        "rmdir": removed,
        "rename": moved,
        "link": linked,
    }
    with ExitStack() as undo:
        for name, watcher in watched.items():
            undo.callback(setattr, os, name, getattr(os, name))
            setattr(os, name, functools.partial(watcher, true_open if name == "open" else getattr(os, name)))
        undo.callback(setattr, syscalls, "_rename", getattr(syscalls, "_rename"))  # noqa: B009  private elsewhere
        setattr(syscalls, "_rename", functools.partial(moved_in_c, getattr(syscalls, "_rename")))  # noqa: B009, B010
        yield cache
