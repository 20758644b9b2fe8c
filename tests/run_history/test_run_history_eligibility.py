"""Which runs may go, over every combination of what a run can say about itself."""

import uuid
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from cleanup_dagster.retention.holds import HoldMatcher
from cleanup_dagster.retention.models import NS_PER_DAY, Policy, Verdict
from cleanup_dagster.retention.rules import KeepLast, judge
from cleanup_dagster.run_history.eligibility import candidate_of, group_of, run_id_of, whole_groups
from cleanup_dagster.run_history.store import RunRow
from cleanup_dagster.run_history.target import RunsTarget

NOW = 20_000 * NS_PER_DAY
TARGET = RunsTarget(name="runs", kind="dagster_runs", keep_last_per_job=0)
IDS = [str(uuid.UUID(int=number)) for number in range(1, 9)]
BACKFILLS = {"over": True, "working": False}


def a_row(number: int) -> st.SearchStrategy[RunRow]:
    days = st.integers(-5, 200).map(lambda age: NOW - age * NS_PER_DAY)
    return st.builds(
        RunRow,
        number=st.just(number),
        run_id=st.just(IDS[number]),
        job=st.sampled_from(["export", "a/b", "..", ""]),
        status=st.sampled_from(["SUCCESS", "FAILURE", "CANCELED", "STARTED", "QUEUED", "MANAGED", "SUSPENDED", "NEW"]),
        ended_ns=st.one_of(st.none(), days, st.just(0)),
        updated_ns=days,
        retry_root=st.one_of(st.none(), st.sampled_from(IDS[:3])),
        backfill=st.sampled_from([None, None, "over", "working", "unknown"]),
        run_key=st.sampled_from([None, None, "key"]),
        keep=st.sampled_from([None, None, ""]),
    )


ROWS = st.tuples(*map(a_row, range(len(IDS)))).map(list)


def judged(rows: list[RunRow], keep_last: int) -> dict[str, Verdict]:
    policies = {"dagster_runs": Policy("dagster_runs", 90, True, keep_last)}
    roots = frozenset(row.retry_root for row in rows if row.retry_root)
    newest = KeepLast(policies)
    verdicts: list[Verdict] = []
    for row in rows:
        candidate = candidate_of(row, TARGET, roots, BACKFILLS, NOW)
        newest.consider(candidate)
        verdicts.append(judge(candidate, policies, HoldMatcher([], "/dagster_runs/x", NOW), NOW))
    final = list(whole_groups(newest.review(verdict) for verdict in verdicts))
    assert len(final) == len(rows)
    return {run_id_of(verdict.candidate.path): verdict for verdict in final}


@given(ROWS, st.integers(0, 3))
def test_nothing_goes_that_somebody_looks_for(rows: list[RunRow], keep_last: int) -> None:
    verdicts = judged(rows, keep_last)
    for row in rows:
        if verdicts[row.run_id].delete:
            assert row.status in {"SUCCESS", "FAILURE", "CANCELED"}
            assert (row.run_key, row.keep) == (None, None)
            assert row.backfill in {None, "over"}
            dated = row.ended_ns is not None and 946_684_800 * 10**9 <= row.ended_ns <= NOW
            assert NOW - (row.ended_ns if dated and row.ended_ns is not None else row.updated_ns) > 90 * NS_PER_DAY


@given(ROWS, st.integers(0, 3))
def test_a_retry_group_goes_as_a_whole_or_not_at_all(rows: list[RunRow], keep_last: int) -> None:
    verdicts = judged(rows, keep_last)
    groups: dict[str, set[bool]] = defaultdict(set)
    for row in rows:
        if row.retry_root:
            groups[row.retry_root].add(verdicts[row.run_id].delete)
    for root, members in groups.items():
        own = verdicts[root]
        if group_of(own.candidate.path) == root:
            members.add(own.delete)
        assert len(members) == 1


@given(ROWS)
def test_the_newest_of_each_job_stay(rows: list[RunRow]) -> None:
    kept, all_of = judged(rows, 1), judged(rows, 0)
    for job in {row.job for row in rows}:
        going = [row for row in rows if row.job == job and all_of[row.run_id].delete]
        assert (
            not going
            or any(not kept[row.run_id].delete for row in going)
            or len(going) < len([row for row in rows if row.job == job])
        )


@given(ROWS)
def test_every_verdict_has_a_path_of_its_own_and_a_reason(rows: list[RunRow]) -> None:
    verdicts = judged(rows, 0)
    assert len({verdict.candidate.path for verdict in verdicts.values()}) == len(rows)
    for verdict in verdicts.values():
        assert ".." not in verdict.candidate.path.split("/")
        assert verdict.delete == (verdict.reason.value == "expired")


def test_a_run_whose_id_is_none_of_dagsters_stays() -> None:
    for odd in ("", "..", "index", "../x", "A" * 36, IDS[0].replace("-", ""), IDS[3].upper() + "A"):
        row = RunRow(1, odd, "export", "SUCCESS", NOW - 200 * NS_PER_DAY, NOW - 200 * NS_PER_DAY)
        candidate = candidate_of(row, TARGET, frozenset(), {}, NOW)
        assert candidate.obstacle is not None, odd
