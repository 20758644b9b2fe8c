"""Operation files, `operation_*.json`, governed and aged by what they say about themselves."""

import os
from datetime import tzinfo

from cleanup_dagster.collectors.files import FilesCollector, IsOwn, blocked
from cleanup_dagster.collectors.scope import Scope
from cleanup_dagster.filesystem.identity import OPEN_FILE, identify, obstacle
from cleanup_dagster.filesystem.tree import Found
from cleanup_dagster.retention.models import Candidate, Reason
from cleanup_dagster.retention.operations import OperationFile, classify, read_operation

#: Governs what cannot be read, too: an operation is unfinished until it says otherwise.
_UNFINISHED = "pipeline_operations"


class OperationsCollector(FilesCollector):
    """Collects one target of kind `operations`. Each file is opened once and read whole, up to `max_json_bytes`."""

    def __init__(self, scope: Scope, is_own: IsOwn, naive_zone: tzinfo | None) -> None:
        super().__init__(scope, is_own)
        self._data_type = _UNFINISHED
        self._naive_zone = naive_zone

    def _candidate(self, path: str, item: Found, now_ns: int) -> Candidate | None:
        if not item.entry.is_file(follow_symlinks=False):
            return super()._candidate(path, item, now_ns)  # which never opens it
        try:
            fd = os.open(item.entry.name, OPEN_FILE, dir_fd=item.fd)
        except OSError as error:
            return self._unopened(path, item, now_ns, error)
        try:
            status = os.fstat(fd)
            hindrance = obstacle(status)
            if hindrance is not None:
                return blocked(path, _UNFINISHED, *hindrance, identify(status))
            # Read after that look: whatever is written from then on makes another state of the file than the one that
            # is judged, and what is found in another state is not deleted.
            size = status.st_size
            content = os.read(fd, size + 1) if size <= self.scope.max_json_bytes else b""
        except OSError as error:
            return self._unopened(path, item, now_ns, error)
        finally:
            os.close(fd)
        return self._judged_by(content, path, status, now_ns)

    def _unopened(self, path: str, item: Found, now_ns: int, error: OSError) -> Candidate | None:
        seen = super()._candidate(path, item, now_ns)
        if seen is None or seen.obstacle is not None:
            return seen
        return blocked(path, _UNFINISHED, Reason.UNREADABLE, error.strerror or str(error), seen.identity)

    def _judged_by(self, content: bytes, path: str, status: os.stat_result, now_ns: int) -> Candidate:
        try:
            said = classify(self._read(content, status.st_size), status.st_mtime_ns, now_ns, self._naive_zone)
        except ValueError as problem:
            return self._unreadable(path, status, str(problem))
        return Candidate(
            path,
            identify(status),
            said.data_type,
            said.since_ns,
            said.age_from,
            said.status,
            said.pipeline,
            said.active,
            status.st_ctime_ns,
            note=said.note,
        )

    def _read(self, content: bytes, size: int) -> OperationFile:
        limit = self.scope.max_json_bytes
        if size > limit:
            raise ValueError(f"it holds {size:,} bytes, more than max_json_bytes = {limit:,}")
        if len(content) != size:
            raise ValueError("it was being written while it was read")
        return read_operation(content)

    def _unreadable(self, path: str, status: os.stat_result, problem: str) -> Candidate:
        """A half-written file is not garbage: kept, unless the target opted in to delete such files by mtime."""
        identity = identify(status)
        if not self.scope.delete_unreadable:
            return blocked(path, _UNFINISHED, Reason.UNREADABLE_CONTENT, problem, identity)
        return Candidate(path, identity, _UNFINISHED, status.st_mtime_ns, changed_ns=status.st_ctime_ns, note=problem)
