"""Operation files, `operation_*.json`, governed and aged by what they say about themselves."""

import os
from datetime import tzinfo

from cleanup_dagster.collectors.files import FilesCollector, IsOwn, blocked
from cleanup_dagster.filesystem.identity import OPEN_FILE, difference, identify
from cleanup_dagster.filesystem.tree import Found
from cleanup_dagster.retention.models import Candidate, Identity, Reason
from cleanup_dagster.retention.operations import OperationFile, classify, read_operation
from cleanup_dagster.targets import Target

#: Governs what cannot be read, too: an operation is unfinished until it says otherwise.
_UNFINISHED = "pipeline_operations"


class OperationsCollector(FilesCollector):
    """Collects one target of kind `operations`. Each file is opened once and read whole, up to `max_json_bytes`."""

    def __init__(self, target: Target, is_own: IsOwn, naive_zone: tzinfo | None) -> None:
        super().__init__(target, is_own)
        self._data_type = _UNFINISHED
        self._naive_zone = naive_zone

    def _judgeable(self, path: str, item: Found, status: os.stat_result, now_ns: int) -> Candidate | None:
        identity = identify(status)
        try:
            content = self._read(item, identity)
        except FileNotFoundError:
            return None
        except OSError as error:
            return blocked(path, _UNFINISHED, Reason.UNREADABLE, error.strerror or str(error), identity)
        except ValueError as problem:
            return self._unreadable(path, status, str(problem))
        said = classify(content, status.st_mtime_ns, now_ns, self._naive_zone)
        return Candidate(
            path,
            identity,
            said.data_type,
            said.since_ns,
            said.age_from,
            said.status,
            said.pipeline,
            said.active,
            status.st_ctime_ns,
            note=said.note,
        )

    def _read(self, item: Found, identity: Identity) -> OperationFile:
        size, limit = identity.size, self.target.max_json_bytes
        if size > limit:
            raise ValueError(f"it holds {size:,} bytes, more than max_json_bytes = {limit:,}")
        fd = os.open(item.entry.name, OPEN_FILE, dir_fd=item.fd)
        try:
            content = os.read(fd, size + 1)
            if difference(identity, os.fstat(fd)) is not None:
                raise ValueError("it was being written while it was read")
        finally:
            os.close(fd)
        if len(content) != size:
            raise ValueError("it was being written while it was read")
        return read_operation(content)

    def _unreadable(self, path: str, status: os.stat_result, problem: str) -> Candidate:
        """A half-written file is not garbage: kept, unless the target opted in to delete such files by mtime."""
        identity = identify(status)
        if not self.target.delete_unreadable:
            return blocked(path, _UNFINISHED, Reason.UNREADABLE_CONTENT, problem, identity)
        return Candidate(path, identity, _UNFINISHED, status.st_mtime_ns, changed_ns=status.st_ctime_ns, note=problem)
