"""What the deletion protocol needs of a store of backups, whatever the format."""

from collections.abc import Iterable
from typing import Protocol

from cleanup_dagster.backups.staged import Staged
from cleanup_dagster.retention.models import Identity


class Store(Protocol):
    """Takes copies in batches. Every method raises BackupError when the store cannot be relied on."""

    batch_files: int

    def stage(self, source: int, identity: Identity, path: str) -> Staged:
        """Copy an open file, just seen to be `identity`; it counts for nothing until `publish` returned.

        Raises SourceError, too, when the file cannot be read; then it is not staged, and the others may go on.
        """
        ...

    def discard(self, staged: Staged) -> None:
        """Forget the copy staged last."""
        ...

    def make_durable(self, batch: Iterable[Staged]) -> None:
        """Bring the copies to the device, and verify them there."""
        ...

    def choose_place(self, path: str, taken: set[str]) -> str:
        """Return where a copy is to be, to be entered in its receipt."""
        ...

    def publish(self, places: Iterable[tuple[Staged, str]]) -> None:
        """Give the copies their places, once the receipts are durable."""
        ...

    def finish(self) -> None:
        """Complete the store after the last batch."""
        ...
