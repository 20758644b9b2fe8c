"""Removing copies that are over, by the time of their run, and nothing that no manifest names."""

from collections.abc import Iterable

from cleanup_dagster.backups.files import FileBackups
from cleanup_dagster.retention.models import Receipt, Tally


def prune_copies(receipts: Iterable[Receipt], store: FileBackups, finished_ns: int) -> Tally:
    """Remove the copies that the receipts name, and return what went.

    A copy written after its run finished belongs to a later run that found the place free; it stays until that run's
    own time is over.
    """
    removed = Tally()
    archive = ""  # removed with its first receipt, and counted with all of them
    for receipt in receipts:
        if receipt.frame is not None and receipt.backup == archive:
            removed = removed.plus(1, receipt.identity.size)
        elif receipt.backup and store.written_ns(receipt.backup, default=finished_ns + 1) <= finished_ns:
            store.remove(receipt.backup)
            removed = removed.plus(1, receipt.identity.size)
            archive = receipt.backup
    return removed
