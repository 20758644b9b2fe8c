"""What every collector of garbage can do. A collector is handed nothing that changes anything until it backs up."""

from collections.abc import Iterator
from typing import Protocol

from cleanup_dagster.collectors.shards import EVERYTHING, Shard
from cleanup_dagster.filesystem.tree import Directories
from cleanup_dagster.retention.models import Candidate


class Collector(Protocol):
    """Finds one kind of garbage below an open root, and reads back what a backup needs to be compared with."""

    def scan(self, root_fd: int, now_ns: int, shard: Shard = EVERYTHING) -> Iterator[Candidate]:
        """Yield what the target's patterns name in a shard, as a stream, with the obstacles to deleting it."""
        ...

    def content_sha256(self, candidate: Candidate, directories: Directories) -> str | None:
        """Return the sha256 of a candidate's bytes, or None when they cannot be read or it is another file by now."""
        ...
