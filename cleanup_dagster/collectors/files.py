"""Files of any kind, by root, pattern and age: logs, dbt artifacts, temporary files."""

import os
import re
from collections.abc import Callable, Iterator, Sequence

from wcmatch import glob

from cleanup_dagster.collectors.shards import EVERYTHING, Shard
from cleanup_dagster.filesystem.identity import OPEN_FILE, difference, hash_open, identify, obstacle
from cleanup_dagster.filesystem.names import split, to_os, to_text
from cleanup_dagster.filesystem.tree import Closed, Directories, Found, join, walk
from cleanup_dagster.retention.models import AgeSource, Candidate, Identity, Reason
from cleanup_dagster.targets import Target

_GLOB = glob.GLOBSTAR | glob.DOTMATCH | glob.CASE | glob.FORCEUNIX | glob.MATCHBASE
_NOTHING = Identity(0, 0, 0, 0, 0, 0, 0)

IsOwn = Callable[[os.stat_result], bool]


class FilesCollector:
    """Collects the files of one target of kind `files`, aged by mtime (or the newer of mtime and ctime)."""

    def __init__(self, target: Target, is_own: IsOwn) -> None:
        self.target = target
        self._is_own = is_own
        self._data_type = target.data_type or ""
        self._wanted = compile_patterns(target.patterns)
        self._excluded = compile_patterns(with_contents(target.excludes)) if target.excludes else None

    def scan(self, root_fd: int, now_ns: int, shard: Shard = EVERYTHING) -> Iterator[Candidate]:
        """Yield what the patterns name in a shard. Names are matched before anything is asked about the file."""
        target, takes_all = self.target, shard == EVERYTHING
        for item in walk(root_fd, recursive=target.recursive, max_depth=target.max_depth, is_own=self._is_own):
            if isinstance(item, Closed):
                if shard.number == 0 and not self._excludes(to_os(item.path)):
                    yield self._closed(item)
                continue
            if not takes_all and not shard.takes(item.directory, item.entry.name):
                continue
            path = join(to_os(item.directory), item.entry.name)  # as people write it, not as it is recorded
            if self._wanted.fullmatch(path) is None or (self._excluded is not None and self._excludes(path)):
                continue
            candidate = self._candidate(item, now_ns)
            if candidate is not None:
                yield candidate

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

    def _candidate(self, item: Found, now_ns: int) -> Candidate | None:
        path = join(item.directory, to_text(item.entry.name))
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
        return self._judgeable(path, item, status, now_ns)

    def _judgeable(self, path: str, item: Found, status: os.stat_result, now_ns: int) -> Candidate | None:  # noqa: ARG002 operations read the file and the clock
        since, source = status.st_mtime_ns, AgeSource.MTIME
        if self.target.age_from == "newest" and status.st_ctime_ns > since:
            since, source = status.st_ctime_ns, AgeSource.CTIME
        return Candidate(path, identify(status), self._data_type, since, source, changed_ns=status.st_ctime_ns)

    def _closed(self, closed: Closed) -> Candidate:
        identity = identify(closed.status) if closed.status is not None else _NOTHING
        return blocked(closed.path, self._data_type, closed.reason, closed.detail, identity)


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
