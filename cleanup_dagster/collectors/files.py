"""Files of any kind, by root, pattern and age: logs, dbt artifacts, temporary files."""

import os
import re
from collections.abc import Callable, Iterator, Sequence

from wcmatch import glob

from cleanup_dagster.collectors.scope import Scope
from cleanup_dagster.collectors.shards import EVERYTHING, Shard
from cleanup_dagster.filesystem.identity import OPEN_FILE, difference, hash_open, identify, obstacle
from cleanup_dagster.filesystem.mounts import has_mounts_below
from cleanup_dagster.filesystem.names import split, to_os, to_text
from cleanup_dagster.filesystem.syscalls import mount_id, mount_of
from cleanup_dagster.filesystem.tree import Closed, Directories, Found, join, walk
from cleanup_dagster.retention.models import AgeSource, Candidate, Identity, Reason

_GLOB = glob.GLOBSTAR | glob.DOTMATCH | glob.CASE | glob.FORCEUNIX | glob.MATCHBASE
_NOTHING = Identity(0, 0, 0, 0, 0, 0, 0)

IsOwn = Callable[[os.stat_result], bool]


class FilesCollector:
    """Collects the files of one target of kind `files`, aged by mtime (or the newer of mtime and ctime)."""

    def __init__(self, scope: Scope, is_own: IsOwn) -> None:
        self.scope = scope
        self._is_own = is_own
        self._data_type = scope.data_type or ""
        self._wanted = compile_patterns(scope.patterns)
        self._by_name = not scope.excludes and not any("/" in pattern for pattern in scope.patterns)
        self._excluded = compile_patterns(with_contents(scope.excludes)) if scope.excludes else None

    def scan(self, root_fd: int, now_ns: int, shard: Shard = EVERYTHING) -> Iterator[Candidate]:
        """Yield what the patterns name in a shard. Names are matched before anything is asked about the file."""
        scope, takes_all = self.scope, shard == EVERYTHING
        mount = mount_id(root_fd) if has_mounts_below(root_fd) else None
        for item in walk(
            root_fd, recursive=scope.recursive, max_depth=scope.max_depth, is_own=self._is_own, wants=shard.wants
        ):
            if isinstance(item, Closed):
                if shard.number == 0 and not self._excludes(to_os(item.path)):
                    yield self._closed(item)
                continue
            directory, name = item.directory, item.entry.name
            if not takes_all and not shard.takes(directory, name):
                continue
            path = self._wanted_path(directory, name)
            if path is None:
                continue
            if mount is not None and _is_covered(item, mount):
                yield blocked(path, self._data_type, Reason.OTHER_MOUNT, "")
                continue
            candidate = self._candidate(path, item, now_ns)
            if candidate is not None:
                yield candidate

    def _wanted_path(self, directory: str, name: str) -> str | None:
        """Return the path, in text form, of an entry that the patterns name and no exclude does, else None."""
        if self._by_name:
            matched = self._wanted.fullmatch(name)
        else:
            path = join(to_os(directory), name)  # as people write it, not as it is recorded
            matched = None if self._excludes(path) else self._wanted.fullmatch(path)
        return None if matched is None else join(directory, to_text(name))

    def content_sha256(self, candidate: Candidate, directories: Directories) -> str | None:
        """Return the sha256 of a candidate's bytes, or None when they cannot be read or it is another file by now."""
        directory, name = split(candidate.path)
        try:
            fd = os.open(to_os(name), OPEN_FILE, dir_fd=directories.open(directory))
        except OSError:
            return None
        try:
            return hash_open(fd) if difference(candidate.identity, os.fstat(fd)) is None else None
        except OSError:
            return None
        finally:
            os.close(fd)

    def _excludes(self, path: str) -> bool:
        return self._excluded is not None and self._excluded.fullmatch(path) is not None

    def _candidate(self, path: str, item: Found, now_ns: int) -> Candidate | None:  # noqa: ARG002 operations' age needs it
        try:
            status = item.entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # it went while we looked
            return None
        except OSError as error:
            return blocked(path, self._data_type, Reason.UNREADABLE, error.strerror or str(error))
        hindrance = obstacle(status)
        if hindrance is not None:
            if self._is_own(status):
                return None
            return blocked(path, self._data_type, *hindrance, identify(status))
        since, source = status.st_mtime_ns, AgeSource.MTIME
        if self.scope.age_from == "newest" and status.st_ctime_ns > since:
            since, source = status.st_ctime_ns, AgeSource.CTIME
        return Candidate(path, identify(status), self._data_type, since, source, changed_ns=status.st_ctime_ns)

    def _closed(self, closed: Closed) -> Candidate:
        identity = identify(closed.status) if closed.status is not None else _NOTHING
        return blocked(closed.path, self._data_type, closed.reason, closed.detail, identity)


def _is_covered(item: Found, mount: int) -> bool:
    try:
        return mount_of(item.fd, item.entry.name) != mount
    except OSError:  # it went, or cannot be looked at, which is found out next
        return False


def blocked(path: str, data_type: str, reason: Reason, detail: str, identity: Identity = _NOTHING) -> Candidate:
    """Return a candidate that is reported and never touched."""
    return Candidate(path, identity, data_type, identity.mtime_ns, obstacle=reason, note=detail)


def compile_patterns(patterns: Sequence[str]) -> re.Pattern[str]:
    """Compile globs to one expression over paths relative to the root.

    A pattern without a slash matches the name at any depth; `*` and `?` stay within a component, `**` crosses them, and
    a leading dot is nothing special.
    """
    expressions, _ = glob.translate(list(patterns), flags=_GLOB)
    return re.compile("|".join(expressions), re.DOTALL)


def with_contents(excludes: Sequence[str]) -> list[str]:
    """Return exclude patterns such that excluding a directory excludes what is in it."""
    plain = [pattern.rstrip("/") for pattern in excludes]
    below = [f"{pattern}/**" if "/" in pattern else f"**/{pattern}/**" for pattern in plain]
    return plain + below
