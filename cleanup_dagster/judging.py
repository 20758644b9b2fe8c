"""Judging one target, or one shard of it: scan, decide, write every verdict down. Runs in worker processes too.

The judge gets a target, rules and a place for its verdicts, and no object with which anything could be moved, copied or
deleted (a "dry" mark phase that deleted was another product's accident).
"""

import heapq
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import tzinfo
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from cleanup_dagster.backups.manifest import (
    Header,
    ManifestRef,
    join_segments,
    read_manifest,
    write_manifest,
)
from cleanup_dagster.backups.put_back import PutBacks
from cleanup_dagster.collectors.base import Collector
from cleanup_dagster.collectors.files import FilesCollector
from cleanup_dagster.collectors.operations import OperationsCollector
from cleanup_dagster.collectors.scope import Scope
from cleanup_dagster.collectors.shards import EVERYTHING, Shard
from cleanup_dagster.filesystem.tree import Directories, open_root
from cleanup_dagster.retention.holds import HoldMatcher
from cleanup_dagster.retention.models import Candidate, Reason, Stock, Tally, Verdict
from cleanup_dagster.retention.rules import KeepLast, Policies, judge, keep

_EXAMPLES = 25  # largest and oldest items that are shown; the manifest has them all
_REPORT_EVERY = 1_000

Progress = Callable[[int], None]
Key = TypeVar("Key", str, Reason)


class Rules(Struct, frozen=True):
    """Everything a verdict depends on besides the candidate. `own` are our directories, by device and inode."""

    policies: Policies
    holds: HoldMatcher
    put_backs: PutBacks
    now_ns: int
    min_age_ns: int
    naive_zone: tzinfo | None
    own: frozenset[tuple[int, int]]


class JudgeTask(Struct, frozen=True):
    """One target to be judged, or one shard of it, and where its verdicts go."""

    scope: Scope
    rules: Rules
    path: Path
    header: Header
    shard: Shard = EVERYTHING


class Judged(Struct, frozen=True):
    """The sums of verdicts, with the manifest or the segment of one that has them all."""

    manifest: ManifestRef
    scanned: Tally
    expired: dict[str, Tally]
    kept: dict[Reason, Tally]
    largest: tuple[Verdict, ...]
    oldest: tuple[Verdict, ...]
    present: dict[str, Stock] = {}


def judge_target(task: JudgeTask, progress: Progress, reviewed: Iterator[Candidate] | None = None) -> Judged:
    """Judge what the target's patterns name, and write the verdicts to a new manifest (a shard: to a segment).

    With `reviewed` only those items are judged again; the newest N were settled when their plan was made.
    Raises RootError, ManifestError or OSError.
    """
    keep_last = KeepLast({} if reviewed is not None else task.rules.policies)
    collector = _collector(task.scope, task.rules)
    with (
        open_root(task.scope.root) as root,
        closing(Directories(root)) as directories,
        closing(task.rules.put_backs),
    ):
        candidates = collector.scan(root, task.rules.now_ns, task.shard) if reviewed is None else reviewed
        verdicts = _judge_all(candidates, collector, directories, task.rules, keep_last, progress)
        if not keep_last:
            return write_verdicts(verdicts, task.path, task.header, segment=task.shard.of > 1)
        # The newest N are only known at the end, so the verdicts wait in a draft. Memory stays flat.
        draft = task.path.with_suffix(".draft")
        try:
            write_verdicts(verdicts, draft, task.header)
            return write_verdicts((keep_last.review(v) for v in read_manifest(draft, Verdict)), task.path, task.header)
        finally:
            draft.unlink(missing_ok=True)


def join_judged(parts: Sequence[Judged], path: Path, header: Header) -> Judged:
    """Join what shards judged: their segments become the manifest at `path`, their sums one."""
    with write_manifest(path, header) as writer:
        manifest = join_segments(writer, [part.manifest for part in parts])
    scanned, expired, kept = Tally(), dict[str, Tally](), dict[Reason, Tally]()
    present: dict[str, Stock] = {}
    for part in parts:
        scanned = scanned.plus(part.scanned.files, part.scanned.bytes)
        _add(expired, part.expired)
        _add(kept, part.kept)
        for data_type, stock in part.present.items():
            present[data_type] = present.get(data_type, Stock()).plus(stock)
    largest = sorted((v for part in parts for v in part.largest), key=_size, reverse=True)
    oldest = sorted((v for part in parts for v in part.oldest), key=_age, reverse=True)
    return Judged(manifest, scanned, expired, kept, tuple(largest[:_EXAMPLES]), tuple(oldest[:_EXAMPLES]), present)


def _size(verdict: Verdict) -> int:
    return verdict.candidate.identity.size


def _age(verdict: Verdict) -> int:
    return verdict.age_ns


def _add(sums: dict[Key, Tally], more: Mapping[Key, Tally]) -> None:
    for key, tally in more.items():
        sums[key] = sums.get(key, Tally()).plus(tally.files, tally.bytes)


def _collector(scope: Scope, rules: Rules) -> Collector:
    def is_own(status: os.stat_result) -> bool:
        return (status.st_dev, status.st_ino) in rules.own

    if scope.kind == "operations":
        return OperationsCollector(scope, is_own, rules.naive_zone)
    return FilesCollector(scope, is_own)


def _judge_all(
    candidates: Iterator[Candidate],
    collector: Collector,
    directories: Directories,
    rules: Rules,
    keep_last: KeepLast,
    progress: Progress,
) -> Iterator[Verdict]:
    any_last = bool(keep_last)
    for number, candidate in enumerate(candidates, start=1):
        if any_last:
            keep_last.consider(candidate)
        verdict = judge(candidate, rules.policies, rules.holds, rules.now_ns, rules.min_age_ns)
        if verdict.delete and candidate.changed_ns >= rules.put_backs.since_ns:
            verdict = _unless_put_back(verdict, collector, directories, rules.put_backs)
        yield verdict
        if number % _REPORT_EVERY == 0:
            progress(_REPORT_EVERY)


def _unless_put_back(verdict: Verdict, collector: Collector, directories: Directories, put_backs: PutBacks) -> Verdict:
    candidate: Candidate = verdict.candidate
    known = put_backs.hashes(candidate.path, candidate.changed_ns)
    if not known or collector.content_sha256(candidate, directories) not in known:
        return verdict
    return keep(verdict, Reason.PUT_BACK, "its bytes equal a backup of it that has not expired yet")


def write_verdicts(verdicts: Iterator[Verdict], path: Path, header: Header, *, segment: bool = False) -> Judged:
    """Write verdicts to a new manifest, and sum them up on the way. Raises ManifestError or OSError."""
    sums = _Sums()
    with write_manifest(path, None if segment else header) as manifest:
        for verdict in verdicts:
            manifest.write(verdict)
            sums.add(verdict)
        return sums.judged(manifest.close())


class _Sums:
    """Sums and examples of a stream of verdicts, in flat memory."""

    def __init__(self) -> None:
        self._files = 0
        self._bytes = 0
        self._expired: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._kept: defaultdict[Reason, list[int]] = defaultdict(lambda: [0, 0])
        self._present: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        self._largest: list[tuple[int, int, Verdict]] = []
        self._oldest: list[tuple[int, int, Verdict]] = []

    def add(self, verdict: Verdict) -> None:
        """Count one verdict."""
        candidate: Candidate = verdict.candidate
        size = candidate.identity.size
        self._files += 1
        self._bytes += size
        age_ns = verdict.age_ns
        present = self._present[candidate.data_type]
        present[0] += 1
        present[1] += size
        present[2] = max(present[2], age_ns)
        if verdict.delete:
            sums = self._expired[candidate.data_type]
            self._show(self._largest, size, verdict)
            self._show(self._oldest, age_ns, verdict)
        else:
            sums = self._kept[verdict.reason]
        sums[0] += 1
        sums[1] += size

    def judged(self, manifest: ManifestRef) -> Judged:
        """Return the sums of everything added."""
        return Judged(
            manifest,
            Tally(self._files, self._bytes),
            _tallies(self._expired),
            _tallies(self._kept),
            _examples(self._largest),
            _examples(self._oldest),
            {data_type: Stock(*sums) for data_type, sums in self._present.items()},
        )

    def _show(self, heap: list[tuple[int, int, Verdict]], rank: int, verdict: Verdict) -> None:
        if len(heap) < _EXAMPLES:
            heapq.heappush(heap, (rank, self._files, verdict))
        elif rank > heap[0][0]:
            heapq.heapreplace(heap, (rank, self._files, verdict))


def _examples(heap: list[tuple[int, int, Verdict]]) -> tuple[Verdict, ...]:
    return tuple(verdict for _, _, verdict in sorted(heap, key=lambda entry: entry[:2], reverse=True))


def _tallies(sums: Mapping[Key, list[int]]) -> dict[Key, Tally]:
    return {key: Tally(files, size) for key, (files, size) in sums.items()}
