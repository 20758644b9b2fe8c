"""Which of Dagster's runs may go. Pure: rows in, candidates and verdicts out.

A run that others look for stays: one that is not finished, the newest of its job, one whose tag says so, one a sensor
knows by its run key, one of a backfill at work, one that an asset's state depends on, and every run of a retry group
of which any one stays, because executing it again starts from its parent and its root.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from msgspec import structs

from cleanup_dagster.filesystem.names import to_text
from cleanup_dagster.retention.models import (
    PIPELINE_LENGTH,
    AgeSource,
    Candidate,
    Identity,
    Reason,
    Verdict,
)
from cleanup_dagster.retention.rules import keep
from cleanup_dagster.run_history.store import RunRow, Weight
from cleanup_dagster.run_history.target import DATA_TYPE, FINISHED, RunsTarget

_EARLIEST_NS = 946_684_800 * 10**9  # no run ended before the year 2000


def candidate_of(
    row: RunRow, target: RunsTarget, retry_roots: frozenset[str], backfills: Mapping[str, bool], now_ns: int
) -> Candidate:
    """Return a run as the rules judge it, with what keeps it whatever the policy says.

    Its age is that of its end, or of the last change of its row where the end is not known or impossible.
    """
    obstacle, note = _obstacle(row, target, backfills)
    ended_ns = row.ended_ns
    dated = ended_ns is not None and _EARLIEST_NS <= ended_ns <= now_ns
    return Candidate(
        path_of(row, retry_roots),
        Identity(0, row.number, 0, row.updated_ns, 0, 0, 0),
        DATA_TYPE,
        ended_ns if dated and ended_ns is not None else row.updated_ns,
        AgeSource.END_TIME if dated else AgeSource.UPDATE_TIME,
        row.status.lower(),
        row.job[:PIPELINE_LENGTH],
        obstacle=obstacle,
        note=note,
    )


def _obstacle(row: RunRow, target: RunsTarget, backfills: Mapping[str, bool]) -> tuple[Reason | None, str]:
    status = row.status.lower()
    if status not in FINISHED:
        return Reason.NOT_FINISHED, ""
    if not is_run_id(row.run_id):
        return Reason.ODD_RUN_ID, ""
    if status not in target.statuses:
        return Reason.NOT_SELECTED, f"its status {status} is none of {', '.join(target.statuses)}"
    if not any(fnmatchcase(row.job, pattern) for pattern in target.job_names):
        return Reason.NOT_SELECTED, f"its job is none of {', '.join(target.job_names)}"
    if row.keep is not None:
        return Reason.KEPT_BY_TAG, f"{target.keep_tag}: {row.keep}"[:PIPELINE_LENGTH]
    if row.run_key is not None and not target.purge_run_keys:
        return Reason.RUN_KEY, row.run_key[:PIPELINE_LENGTH]
    if row.backfill is not None and not backfills.get(row.backfill, False):
        known = "which is at work" if row.backfill in backfills else "of which nothing is known"
        return Reason.BACKFILL_AT_WORK, f"{row.backfill}, {known}"
    return None, ""


def is_run_id(text: str) -> bool:
    """Tell whether a run id is a UUID in its one canonical form: nothing else may become part of a path."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def path_of(row: RunRow, retry_roots: frozenset[str]) -> str:
    """Return a run's path: `<job>/<run id>`, or `<job>/<root of its retry group>/<run id>`."""
    root = row.retry_root or (row.run_id if row.run_id in retry_roots else None)
    parts = [row.job or "_", *([root] if root else []), row.run_id]
    return "/".join(_part(part) for part in parts)


def _part(text: str) -> str:
    safe = to_text(text.replace("/", "_").replace("\0", "_"))[:PIPELINE_LENGTH]
    return f"_{safe}" if safe in {"", ".", ".."} else safe


def run_id_of(path: str) -> str:
    """Return the run a path names."""
    return path.rpartition("/")[2]


def group_of(path: str) -> str | None:
    """Return the retry group a path names, by its root; None for a run that was never executed again."""
    parts = path.split("/")
    return parts[1] if len(parts) == 3 else None


def whole_groups(verdicts: Iterable[Verdict]) -> Iterator[Verdict]:
    """Yield verdicts with retry groups one after the other at the end, each of them deleted whole or kept whole."""
    groups: dict[str, list[Verdict]] = {}  # of retried runs only
    for verdict in verdicts:
        group = group_of(verdict.candidate.path)
        if group is None:
            yield verdict
        else:
            groups.setdefault(group, []).append(verdict)
    for root, members in sorted(groups.items()):
        staying = next((v for v in members if not v.delete), None)
        for verdict in members:
            if staying is None or not verdict.delete:
                yield verdict
            else:
                other = run_id_of(staying.candidate.path)
                yield keep(verdict, Reason.RETRY_GROUP, f"of its retries (root {root}) run {other} stays")


def still_needed(verdict: Verdict, weight: Weight) -> Verdict:
    """Return a verdict turned into a keep when the state of an asset or of a job's partition depends on its run."""
    if verdict.delete and weight.needed:
        return keep(verdict, Reason.ASSET_STATE, weight.needed)
    if verdict.delete and weight.partition:
        return keep(verdict, Reason.JOB_PARTITION, weight.partition)
    return verdict


def sized(verdict: Verdict, events: int, size: int) -> Verdict:
    """Return a verdict whose candidate says how much of the run there is: events as `dev`, bytes as `size`."""
    identity = structs.replace(verdict.candidate.identity, dev=events, size=size)
    return structs.replace(verdict, candidate=structs.replace(verdict.candidate, identity=identity))
