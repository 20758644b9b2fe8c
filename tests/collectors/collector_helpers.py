"""Scanning a directory with a collector, as the planner does."""

import os
from collections.abc import Callable
from datetime import timezone
from pathlib import Path
from typing import Any

from cleanup_dagster.collectors.files import FilesCollector
from cleanup_dagster.collectors.operations import OperationsCollector
from cleanup_dagster.filesystem.tree import open_root
from cleanup_dagster.retention.models import NS_PER_SECOND, Candidate
from cleanup_dagster.targets import Target

NOW = 1_767_268_800 * NS_PER_SECOND  # 2026-01-01T12:00:00Z

IsOwn = Callable[[os.stat_result], bool]


def nothing_is_own(_: os.stat_result) -> bool:
    return False


def scan_files(root: Path, is_own: IsOwn = nothing_is_own, **keys: Any) -> dict[str, Candidate]:
    """Return what a target of kind `files` collects, by path."""
    target = Target.model_validate({"name": "t", "kind": "files", "data_type": "logs", "root": root, **keys})
    return _scanned(FilesCollector(target.scope, is_own), root)


def scan_operations(root: Path, **keys: Any) -> dict[str, Candidate]:
    """Return what a target of kind `operations` collects, by path."""
    target = Target.model_validate({"name": "t", "kind": "operations", "root": root, **keys})
    return _scanned(OperationsCollector(target.scope, nothing_is_own, timezone.utc), root)


def _scanned(collector: FilesCollector, root: Path) -> dict[str, Candidate]:
    with open_root(root) as fd:
        candidates = list(collector.scan(fd, NOW))
    found = {candidate.path: candidate for candidate in candidates}
    assert len(found) == len(candidates)
    return found


def write(path: Path, content: bytes | str = "", mtime_ns: int = NOW - 1) -> Path:
    """Make a file, and what leads to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path
