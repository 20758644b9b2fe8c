"""Settling a purge that broke off: each run is gone as a whole, or there as a whole, and its archive tells the rest."""

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from cleanup_dagster.backups.files import FileBackups, open_file_backups
from cleanup_dagster.backups.manifest import (
    Header,
    Kind,
    ManifestWriter,
    batches,
    read_manifest,
    write_manifest,
)
from cleanup_dagster.collectors.deletion import Totals
from cleanup_dagster.database.run_targets import Intent
from cleanup_dagster.handles import counts_of, merge
from cleanup_dagster.retention.models import Outcome, Receipt, RestoreState, State
from cleanup_dagster.run_history.document import split_lines, summary_of
from cleanup_dagster.run_history.eligibility import run_id_of
from cleanup_dagster.run_history.store import RunStore, RunStoreError
from cleanup_dagster.settling import Settled, find_receipts
from cleanup_dagster.state import StateDirectory

_LOOKED_AT = 500


def settle_runs(state: StateDirectory, intent: Intent, store: RunStore, now_ns: int) -> Settled:
    """Settle a purge whose intent was committed. Idempotent.

    A run that is gone went with the interrupted run. One that lost rows (only where a purge is no single transaction)
    gets them back from the archive. Raises RunStoreError when the storage or the archive cannot be used.
    """
    manifest = find_receipts(state, intent)
    if manifest is None:
        return Settled(
            receipts_lost=True,
            problem=f"the receipts of {intent.target} are lost, so which of Dagster's runs went cannot be told; "
            f"their archive stays in {intent.backup_directory}",
        )
    if store.root(create=False) != intent.root:
        raise RunStoreError(f"its runs were those of the instance {intent.root}; settle it on that instance")
    written = Totals()
    settled = 0
    outcomes = state.outcomes(intent.run_id, intent.target)
    for outcome in read_manifest(outcomes, Outcome, torn=True) if outcomes.exists() else ():
        written.add(outcome)
        settled += 1
    directory = Path(intent.backup_directory or "")
    if not directory.is_dir():
        raise RunStoreError(f"the backup directory {directory} is not there; mount it, or put it back")
    header = Header(Kind.OUTCOMES, intent.run_id, intent.target, intent.root, now_ns)
    with (
        open_file_backups(directory, intent.run_id) as backups,
        write_manifest(state.next_recovery(intent.run_id, intent.target), header) as recovered,
    ):
        receipts = islice(read_manifest(manifest, Receipt), settled, None)
        found = _settle(receipts, store, backups, recovered)
        recovered.close()
    return Settled(merge(counts_of(written.by_state), counts_of(found.by_state)))


def _settle(receipts: Iterable[Receipt], store: RunStore, backups: FileBackups, recovered: ManifestWriter) -> Totals:
    totals = Totals()
    for batch in batches(receipts, _LOOKED_AT):
        present = store.present([run_id_of(receipt.path) for receipt in batch])
        for receipt in batch:
            outcome = _settle_one(receipt, store, backups, there=run_id_of(receipt.path) in present)
            if outcome is not None:
                recovered.write(outcome)
                totals.add(outcome)
    return totals


def _settle_one(receipt: Receipt, store: RunStore, backups: FileBackups, *, there: bool) -> Outcome | None:
    run_id = run_id_of(receipt.path)
    if not there:
        left = store.clear(run_id, summary_of(split_lines(backups.blocks(receipt))).logs)
        return _outcome(receipt, State.DELETED, "; ".join(filter(None, ("by the interrupted run", left))))
    if store.atomic or _is_whole(receipt, store):
        return None  # never touched
    unsound = backups.problem(receipt)
    if unsound is not None:
        return _outcome(receipt, State.FAILED, f"it has lost rows, and its archive cannot be relied on: {unsound}")
    state, detail = store.restore(run_id, lines_of(backups, receipt), dry_run=False)
    if state in {RestoreState.RESTORED, RestoreState.PRESENT}:
        return _outcome(receipt, State.DRIFTED, "the interrupted run had begun with it; it is whole again")
    return _outcome(receipt, State.FAILED, f"it has changed since it was archived: {detail}")


def _is_whole(receipt: Receipt, store: RunStore) -> bool:
    found = [summary_of(lines).sha256 for _, lines in store.documents([run_id_of(receipt.path)])]
    return found == [receipt.sha256]


def lines_of(backups: FileBackups, receipt: Receipt) -> Callable[[], Iterable[bytes]]:
    """Return what reads a run's document from its archive, from the beginning, as often as needed."""
    return lambda: split_lines(backups.blocks(receipt))


def _outcome(receipt: Receipt, state: State, detail: str) -> Outcome:
    return Outcome(receipt.number, receipt.path, receipt.data_type, state, receipt.size, detail)
