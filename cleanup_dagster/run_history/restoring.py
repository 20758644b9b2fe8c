"""Putting purged runs back from their archive: with their own ids, verified, and never over a run that is there."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from cleanup_dagster.backups.files import FileBackups
from cleanup_dagster.database.run_targets import KeptBackups
from cleanup_dagster.retention.models import Receipt, Restored, RestoreState
from cleanup_dagster.run_history.eligibility import is_run_id, run_id_of
from cleanup_dagster.run_history.settling import lines_of
from cleanup_dagster.run_history.store import RunStore, RunStoreError


class RunRestorer:
    """Restores into one instance. With `dry_run` it verifies and looks, and writes nothing."""

    def __init__(self, store: RunStore, backups: FileBackups, kept: KeptBackups, *, dry_run: bool) -> None:
        """Raises RunStoreError unless this is the instance whose runs they were."""
        found = store.root(create=False)
        if found != kept.root:
            raise RunStoreError(f"these runs were purged from the instance {kept.root}, and this one is {found}")
        problems = store.problems()
        if problems:
            raise RunStoreError(f"Dagster's runs cannot be put back here: {'; '.join(problems)}")
        self._store = store
        self._backups = backups
        self._dry_run = dry_run

    def restore(self, receipts: Iterable[Receipt]) -> Iterator[Restored]:
        """Put runs back, and yield what became of each. What prevents it comes back as a state with its detail."""
        return map(self._restore, receipts)

    def _restore(self, receipt: Receipt) -> Restored:
        run_id = run_id_of(receipt.path)
        unsound = self._backups.problem(receipt)
        if unsound is not None:
            archive = Path(receipt.backup)
            there = (self._backups.path / archive).exists()
            state = RestoreState.DAMAGED if there else RestoreState.MISSING
            return _ended(receipt, state, f"its archive {archive}: {unsound}")
        if not is_run_id(run_id):
            return _ended(receipt, RestoreState.FAILED, "its path names no run")
        try:
            state, detail = self._store.restore(run_id, lines_of(self._backups, receipt), dry_run=self._dry_run)
        except (OSError, RunStoreError, ValueError) as error:
            return _ended(receipt, RestoreState.FAILED, str(error))
        return _ended(receipt, state, detail)


def _ended(receipt: Receipt, state: RestoreState, detail: str) -> Restored:
    return Restored(receipt.path, receipt.data_type, state, receipt.size, detail)
