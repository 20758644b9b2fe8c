"""Files that somebody has put back from their backup, with `cp` or otherwise: deleting them again would defeat it.

Only a file whose inode changed since the oldest unexpired backup can be one, so in an ordinary run nothing is looked
up and nothing loaded. When something is, the receipts go into a private SQLite database in a temporary file: flat
memory, whatever the number of backups.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from cleanup_dagster.backups.manifest import read_header, read_manifest
from cleanup_dagster.retention.models import Receipt

NEVER_NS = 2**63 - 1  # the largest that SQLite holds


class PutBacks:
    """The unexpired backups of one target, by path. `since_ns` is when the oldest of them was made."""

    def __init__(self, manifests: Sequence[Path], since_ns: int) -> None:
        self._manifests = manifests
        self._index: sqlite3.Connection | None = None
        self.since_ns = since_ns if manifests else NEVER_NS

    def hashes(self, path: str, changed_ns: int = NEVER_NS) -> frozenset[str]:
        """Return the sha256 of every unexpired backup of the file at `path` (text form, relative to the root).

        Only of those made before `changed_ns`, the file's ctime: one that has not changed since its own backup was
        never deleted (its run broke off), so nobody put it back.
        Raises ManifestError when a manifest cannot be read: then nobody can tell what was put back.
        """
        if self._index is None:
            self._index = self._load()
        rows = self._index.execute("SELECT sha256 FROM backup WHERE path = ? AND made_ns <= ?", (path, changed_ns))
        return frozenset(sha256 for (sha256,) in rows)

    def close(self) -> None:
        """Forget what was loaded."""
        if self._index is not None:
            self._index.close()
            self._index = None

    def _load(self) -> sqlite3.Connection:
        index = sqlite3.connect("")  # a temporary file that SQLite removes by itself
        index.execute("CREATE TABLE backup (path TEXT, sha256 TEXT, made_ns INTEGER)")
        index.executemany("INSERT INTO backup VALUES (?, ?, ?)", self._rows())
        index.execute("CREATE INDEX by_path ON backup (path)")
        return index

    def _rows(self) -> Iterator[tuple[str, str, int]]:
        for manifest in self._manifests:
            made_ns = read_header(manifest).made_at_ns
            for receipt in read_manifest(manifest, Receipt):
                if receipt.sha256:
                    yield receipt.path, receipt.sha256, made_ns
