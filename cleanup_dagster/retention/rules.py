"""The verdict on one candidate. Order matters: what protects comes first, and only the last line deletes."""

import heapq
from collections.abc import Mapping

from cleanup_dagster.retention.holds import HoldMatcher
from cleanup_dagster.retention.models import (
    NS_PER_DAY,
    NS_PER_SECOND,
    Candidate,
    Policy,
    PolicyProblem,
    Reason,
    Verdict,
)

#: An operation that says it runs is believed while its file was modified this recently, whatever its start_time says.
ACTIVE_WITHIN_NS = 24 * 3_600 * NS_PER_SECOND

Policies = Mapping[str, "Policy | PolicyProblem"]


def judge(candidate: Candidate, policies: Policies, holds: HoldMatcher, now_ns: int, min_age_ns: int = 0) -> Verdict:
    """Decide about one candidate by the one policy of its data type.

    A missing, disabled or impossible policy means keep: there is no fallback. Expired means older than `retention_days`
    to the nanosecond. `min_age_ns` additionally keeps whatever was modified more recently.
    """
    age_ns = now_ns - candidate.since_ns
    if candidate.obstacle is not None:
        return Verdict(candidate, False, candidate.obstacle, age_ns, detail=candidate.note)
    hold = holds.first_match(candidate.path, candidate.data_type, candidate.pipeline)
    if hold is not None:
        return Verdict(candidate, False, Reason.HELD, age_ns, detail=f"hold {hold.id}: {hold.reason}")
    policy = policies.get(candidate.data_type)
    if policy is None:
        return Verdict(candidate, False, Reason.NO_POLICY, age_ns)
    if isinstance(policy, PolicyProblem):
        return Verdict(candidate, False, Reason.POLICY_INVALID, age_ns, detail=policy.message)
    days = policy.retention_days
    modified_ago_ns = now_ns - candidate.identity.mtime_ns
    if not policy.enabled:
        return Verdict(candidate, False, Reason.POLICY_DISABLED, age_ns, days)
    if candidate.active and modified_ago_ns < ACTIVE_WITHIN_NS:
        return Verdict(candidate, False, Reason.STILL_ACTIVE, age_ns, days)
    if age_ns <= days * NS_PER_DAY:
        return Verdict(candidate, False, Reason.NOT_EXPIRED, age_ns, days)
    if modified_ago_ns < min_age_ns:
        return Verdict(candidate, False, Reason.RECENTLY_MODIFIED, age_ns, days)
    return Verdict(candidate, True, Reason.EXPIRED, age_ns, days)


class KeepLast:
    """The newest N of each pipeline, gathered while verdicts stream by: memory grows with pipelines, not with files.

    An item without a pipeline belongs to a group of its own kind, never to everybody's (a group of None once bypassed
    keep-last elsewhere and deleted what it should have kept). Equal moments are ordered by path, so every run agrees.
    """

    def __init__(self, policies: Policies) -> None:
        self._keep = {p.data_type: p.keep_last for p in policies.values() if isinstance(p, Policy) and p.keep_last > 0}
        self._newest: dict[tuple[str, str | None], list[tuple[int, str]]] = {}

    def __bool__(self) -> bool:
        """Whether any policy keeps a last N at all."""
        return bool(self._keep)

    def consider(self, candidate: Candidate) -> None:
        """Count one candidate. What cannot be deleted anyway because of an obstacle takes nobody's place."""
        keep = self._keep.get(candidate.data_type, 0)
        if not keep or candidate.obstacle is not None:
            return
        newest = self._newest.setdefault((candidate.data_type, candidate.pipeline), [])
        entry = (candidate.since_ns, candidate.path)
        if len(newest) < keep:
            heapq.heappush(newest, entry)
        else:
            heapq.heappushpop(newest, entry)

    def review(self, verdict: Verdict) -> Verdict:
        """Return `verdict`, turned into a keep when its item is among the newest N. Call after all were considered."""
        candidate = verdict.candidate
        newest = self._newest.get((candidate.data_type, candidate.pipeline))
        if not verdict.delete or not newest or (candidate.since_ns, candidate.path) < newest[0]:
            return verdict
        group = candidate.pipeline or "without a pipeline"
        detail = f"among the newest {self._keep[candidate.data_type]} of {group}"
        return Verdict(candidate, False, Reason.KEEP_LAST, verdict.age_ns, verdict.retention_days, detail)


def keep(verdict: Verdict, reason: Reason, detail: str) -> Verdict:
    """Return `verdict` turned into a keep for `reason`."""
    return Verdict(verdict.candidate, False, reason, verdict.age_ns, verdict.retention_days, detail)


_SENTENCES = {
    Reason.EXPIRED: "older than {days}: it is {age} by its {source}",
    Reason.NOT_EXPIRED: "kept for {days}; it is {age} by its {source}",
    Reason.HELD: "held ({detail})",
    Reason.NO_POLICY: "no policy governs {data_type}, and without a policy everything is kept",
    Reason.POLICY_DISABLED: "the policy of {data_type} is disabled",
    Reason.POLICY_INVALID: "the policy of {data_type} cannot be obeyed: {detail}",
    Reason.STILL_ACTIVE: "it says {status!r} and was modified within the last 24 hours",
    Reason.RECENTLY_MODIFIED: "expired by its {source}, but modified more recently than the target's min_age",
    Reason.KEEP_LAST: "expired, but {detail}",
    Reason.PUT_BACK: "expired, but put back on purpose: {detail}",
    Reason.UNREADABLE_CONTENT: "kept because {detail}",
    Reason.SYMLINK: "a symbolic link, never followed",
    Reason.NOT_REGULAR: "not a regular file ({detail})",
    Reason.HARD_LINKED: "has more than one hard link, so deleting this name frees nothing and may not be ours to do",
    Reason.OTHER_MOUNT: "lies on another mount",
    Reason.OWN_DIRECTORY: "belongs to cleanup_dagster itself",
    Reason.TOO_DEEP: "lies deeper than max_depth, so nothing below it was looked at",
    Reason.UNREADABLE: "cannot be read: {detail}",
    Reason.NOT_FINISHED: "the run has not finished: it is {status}",
    Reason.NOT_SELECTED: "the target leaves it alone: {detail}",
    Reason.ODD_RUN_ID: "its id is not one that Dagster gives, so nothing is looked for by it",
    Reason.KEPT_BY_TAG: "kept by its tag {detail}",
    Reason.RUN_KEY: "a sensor or schedule would launch it anew without its run key {detail}",
    Reason.BACKFILL_AT_WORK: "it belongs to backfill {detail}",
    Reason.ASSET_STATE: "expired, but {detail}",
    Reason.JOB_PARTITION: "expired, but {detail}",
    Reason.RETRY_GROUP: "expired, but {detail}",
}


def sentence(verdict: Verdict) -> str:
    """Say for people why an item is kept or deleted."""
    candidate = verdict.candidate
    said = _SENTENCES[verdict.reason].format(
        days="1 day" if verdict.retention_days == 1 else f"{verdict.retention_days} days",
        age=f"{format_age(verdict.age_ns)} old" if verdict.age_ns >= 0 else "dated in the future",
        source=candidate.age_from.value,
        detail=verdict.detail,
        data_type=candidate.data_type,
        status=candidate.status,
    )
    return f"{said} ({candidate.note})" if candidate.note and candidate.note != verdict.detail else said


def format_age(age_ns: int) -> str:
    """Return an age as people say it: `3.2 days`, `5.0 hours`, `in the future`."""
    if age_ns < 0:
        return "in the future"
    hours = age_ns / (3_600 * NS_PER_SECOND)
    return f"{hours / 24:.1f} days" if hours >= 24 else f"{hours:.1f} hours"
