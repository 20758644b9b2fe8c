"""Archiving the runs a plan names, and deleting those that are still exactly what was archived.

back_up   each run's rows and logs -> one document -> archive: fsync, read back -> receipts fsynced -> INTENT
delete    lock the run's row -> the same document? -> nobody needs it now? -> delete rows -> COMMIT -> its logs
"""

import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from msgspec import structs

from cleanup_dagster.applying import commit_intent, committed_intent, header_of, require_backups, with_heartbeat
from cleanup_dagster.backups.files import Staged, open_file_backups
from cleanup_dagster.backups.manifest import (
    Kind,
    ManifestWriter,
    read_manifest,
    verify_manifest,
    write_manifest,
)
from cleanup_dagster.backups.packed import ArchiveBackups, archive_name
from cleanup_dagster.collectors.deletion import Totals
from cleanup_dagster.filesystem.identity import identify
from cleanup_dagster.handles import BackedUp, Deleted, Plan, counts_of, merge, total
from cleanup_dagster.installation import Installation, Progress, RunRefusedError
from cleanup_dagster.retention.holds import HoldMatcher
from cleanup_dagster.retention.models import Outcome, Receipt, State, Tally, Verdict
from cleanup_dagster.run_history.eligibility import group_of, run_id_of
from cleanup_dagster.run_history.store import Doomed, Ended, RunLogError, RunStore, RunStoreError
from cleanup_dagster.run_history.target import RunsTarget

_ARCHIVED = 100  # runs whose documents are durable together
#: Events in one transaction: throughput is flat from 50 runs up, and a longer one holds locks for longer.
_EVENTS = 10_000
#: Bytes in one transaction: all are read again in it, and on SQLite nobody else can begin or end a run meanwhile.
_BYTES = 64 << 20


class _Budget:
    """The time a step may take; it begins nothing new after that."""

    def __init__(self, seconds: float) -> None:
        self._over = time.monotonic() + seconds if seconds else None

    def over(self) -> bool:
        return self._over is not None and time.monotonic() >= self._over


def back_up_runs(
    installation: Installation, target: RunsTarget, store: RunStore, plan: Plan, progress: Progress
) -> BackedUp:
    """Archive the runs a plan deletes, and commit the intent to delete them. Raises as `back_up_target` does."""
    if plan.manifest is None:
        raise RunRefusedError(f"{plan.target} has no plan to back up")
    installation.require_live(plan.run)
    verify_manifest(plan.manifest)
    _same_instance(store, plan.root)
    run_id, state = plan.run.request.run_id, installation.state
    directory = installation.settings.backup.directory
    alive = with_heartbeat(installation, plan, progress)
    budget = _Budget(target.time_budget)
    totals, copied = Totals(), Tally()
    with ExitStack() as stack:
        kept = stack.enter_context(open_file_backups(directory, run_id))
        archive = stack.enter_context(closing(ArchiveBackups(kept, run_id, plan.target)))
        scratch = stack.enter_context(tempfile.TemporaryFile(prefix="run-", dir=directory))  # /tmp may be memory
        header = header_of(installation, plan, Kind.RECEIPTS, str(directory))
        receipts = stack.enter_context(write_manifest(state.receipts(run_id, plan.target), header))
        header = header_of(installation, plan, Kind.OUTCOMES)
        skipped = stack.enter_context(write_manifest(state.skipped(run_id, plan.target), header))
        verdicts = (v for v in read_manifest(Path(plan.manifest.path), Verdict) if v.delete)
        for batch in _whole(verdicts, _ARCHIVED):
            if budget.over():
                _skip(batch, State.POSTPONED, "its time_budget was used up; the next run takes it", skipped, totals)
                continue
            archived, unreadable = _archive(batch, store, archive, scratch)
            for verdict, state, why in _left(batch, archived, unreadable):
                _skip([verdict], state, why, skipped, totals)
            for receipt in _receipts_of(batch, archived, archive, receipts):
                copied = copied.plus(1, receipt.identity.size)
            receipts.sync()
            alive(len(batch))
        archive.finish()
        skipped.close()
        reference = receipts.close()
        if copied.files:
            kept.keep_replica(Path(reference.path), plan.target)
        else:
            kept.remove(archive_name(run_id, plan.target))
    if not copied.files:
        return BackedUp(plan, None, {}, counts_of(totals.by_state))
    by_type = {target.data_types[0]: copied}
    commit_intent(installation, plan, reference, total(by_type.values()), str(directory))
    return BackedUp(plan, reference, by_type, counts_of(totals.by_state))


def _same_instance(store: RunStore, root: str) -> None:
    found = store.root(create=False)
    if found != root:
        raise RunStoreError(f"the instance is {found} now, and the plan is of {root}; start a new run")


def _whole(verdicts: Iterable[Verdict], least: int) -> Iterator[list[Verdict]]:
    """Yield batches that part no retry group; the groups stand together in a plan."""
    batch: list[Verdict] = []
    for _, members in groupby(verdicts, key=lambda v: group_of(v.candidate.path) or v.candidate.path):
        batch += members
        if len(batch) >= least:
            yield batch
            batch = []
    if batch:
        yield batch


def _archive(
    batch: list[Verdict], store: RunStore, archive: ArchiveBackups, scratch: BinaryIO
) -> tuple[dict[str, Staged], dict[str, str]]:
    """Put a batch's documents into the archive, read back from the disk, and return each one by its run.

    Beside them the runs that have none, with the reason.
    """
    paths = {run_id_of(verdict.candidate.path): verdict.candidate.path for verdict in batch}
    staged, unreadable = dict[str, Staged](), dict[str, str]()
    for run_id, lines in store.documents(list(paths)):
        scratch.seek(0)
        scratch.truncate()
        try:
            scratch.writelines(lines)
        except RunLogError as error:
            unreadable[run_id] = str(error)
            continue
        scratch.flush()
        os.lseek(scratch.fileno(), 0, os.SEEK_SET)
        staged[run_id] = archive.stage(scratch.fileno(), identify(os.fstat(scratch.fileno())), paths[run_id])
    archive.make_durable(staged.values())
    return staged, unreadable


def _left(
    batch: list[Verdict], archived: dict[str, Staged], unreadable: dict[str, str]
) -> Iterator[tuple[Verdict, State, str]]:
    """Yield what of a batch stays and why, and take the retries of an unreadable run out of what was archived."""
    incomplete = {group_of(v.candidate.path) for v in batch if run_id_of(v.candidate.path) in unreadable} - {None}
    for verdict in batch:
        path = verdict.candidate.path
        run_id = run_id_of(path)
        if run_id in unreadable:
            yield verdict, State.FAILED, unreadable[run_id]
        elif group_of(path) in incomplete:
            archived.pop(run_id, None)
            yield verdict, State.BUSY, "of its retries another run stays, whose logs cannot be read"
        elif run_id not in archived:
            yield verdict, State.GONE, "it was gone before it could be archived"


def _receipts_of(
    batch: list[Verdict], archived: dict[str, Staged], archive: ArchiveBackups, receipts: ManifestWriter
) -> Iterator[Receipt]:
    for verdict in batch:
        candidate = verdict.candidate
        staged = archived.get(run_id_of(candidate.path))
        if staged is None:
            continue
        receipt = Receipt(
            receipts.rows,
            candidate.path,
            structs.replace(candidate.identity, size=staged.size),
            candidate.data_type,
            staged.sha256,
            archive.choose_place(candidate.path, set()),
            "",
            candidate.pipeline,
            frame=staged.frame,
            weight=candidate.identity.size,
        )
        receipts.write(receipt)
        yield receipt


def _skip(batch: Iterable[Verdict], state: State, detail: str, skipped: ManifestWriter, totals: Totals) -> None:
    for verdict in batch:
        candidate = verdict.candidate
        outcome = Outcome(-1, candidate.path, candidate.data_type, state, candidate.identity.size, detail)
        skipped.write(outcome)
        totals.add(outcome)


def delete_runs(
    installation: Installation, target: RunsTarget, store: RunStore, backed_up: BackedUp, progress: Progress
) -> Deleted:
    """Delete the runs that the committed receipts name. Raises as `delete_target` does, and RunStoreError.

    What was committed stays deleted; recovery accounts for a batch whose outcomes did not reach the disk.
    """
    plan, receipts = backed_up.plan, backed_up.receipts
    if receipts is None:
        return Deleted(plan, backed_up.copied, backed_up.counts)
    intent = committed_intent(installation, plan, receipts)
    _same_instance(store, plan.root)
    run_id, state = plan.run.request.run_id, installation.state
    totals = Totals()
    alive = with_heartbeat(installation, plan, progress)
    budget = _Budget(target.time_budget)
    header = header_of(installation, plan, Kind.OUTCOMES)
    with write_manifest(state.outcomes(run_id, plan.target), header) as outcomes:
        for groups in _batches(read_manifest(Path(receipts.path), Receipt), target.batch_runs):
            require_backups(intent)
            holds = installation.holds(plan.root, plan.run.now_ns)
            for outcome in _purge(groups, store, target, holds, late=budget.over()):
                outcomes.write(outcome)
                totals.add(outcome)
            outcomes.sync()
            alive(sum(map(len, groups)))
            time.sleep(target.pause_ms / 1_000)
        outcomes.close()
    if target.vacuum and total(counts.deleted for counts in counts_of(totals.by_state).values()).files:
        store.maintain()
    return Deleted(plan, backed_up.copied, merge(backed_up.counts, counts_of(totals.by_state)))


def _batches(receipts: Iterable[Receipt], runs: int) -> Iterator[list[list[Receipt]]]:
    """Yield whole retry groups, until they are `runs` runs or enough for one transaction."""
    batch: list[list[Receipt]] = []
    count = events = weight = 0
    for _, members in groupby(receipts, key=lambda r: group_of(r.path) or r.path):
        group = list(members)
        more = sum(receipt.identity.dev for receipt in group)
        size = sum(receipt.identity.size for receipt in group)
        if batch and (count + len(group) > runs or events + more > _EVENTS or weight + size > _BYTES):
            yield batch
            batch, count, events, weight = [], 0, 0, 0
        batch.append(group)
        count += len(group)
        events += more
        weight += size
    if batch:
        yield batch


def _purge(
    groups: list[list[Receipt]], store: RunStore, target: RunsTarget, holds: HoldMatcher, *, late: bool
) -> Iterator[Outcome]:
    """Purge a batch, and yield what became of each receipt, in their order."""
    spared: dict[str, tuple[State, str]] = {}
    doomed: list[list[Doomed]] = []
    for group in groups:
        why = (State.POSTPONED, "the time_budget was used up; the next run takes it") if late else _held(group, holds)
        if why is None:
            doomed.append([Doomed(run_id_of(r.path), r.sha256, r.identity.dev) for r in group])
        else:
            spared |= {receipt.path: why for receipt in group}
    ended = store.purge(doomed, target.keep) if doomed else dict[str, Ended]()
    for receipt in (receipt for group in groups for receipt in group):
        if receipt.path in spared:
            state, detail = spared[receipt.path]
        else:
            one = ended[run_id_of(receipt.path)]
            state, detail = one.state, one.detail
        yield Outcome(receipt.number, receipt.path, receipt.data_type, state, receipt.size, detail)


def _held(group: list[Receipt], holds: HoldMatcher) -> tuple[State, str] | None:
    for receipt in group:
        hold = holds.first_match(receipt.path, receipt.data_type, receipt.pipeline)
        if hold is not None:
            return State.HELD, f"hold {hold.id}: {hold.reason}"
    return None
