from collections import defaultdict
from collections.abc import Iterable, Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanup_dagster.retention.models import NS_PER_DAY, Candidate, Identity, Policy, PolicyProblem, Reason, Verdict
from cleanup_dagster.retention.rules import KeepLast, keep

NOW = 20_000 * NS_PER_DAY


def a_run(
    path: str,
    since_ns: int,
    pipeline: str | None = "daily",
    data_type: str = "completed_operations",
    obstacle: Reason | None = None,
) -> Candidate:
    identity = Identity(1, 2, 3, since_ns, 0, 0, 0o100644)
    return Candidate(path, identity, data_type, since_ns, pipeline=pipeline, obstacle=obstacle)


def expired(candidate: Candidate) -> Verdict:
    return Verdict(candidate, True, Reason.EXPIRED, NOW - candidate.since_ns, 90)


def keeping(*counts: int) -> KeepLast:
    names = ("completed_operations", "failed_operations")
    return KeepLast({name: Policy(name, 90, True, count) for name, count in zip(names, counts, strict=False)})


def reviewed(keep_last: KeepLast, candidates: Sequence[Candidate]) -> list[Verdict]:
    for candidate in candidates:
        keep_last.consider(candidate)
    return [keep_last.review(expired(c)) for c in candidates if c.obstacle is None]


def kept(verdicts: Iterable[Verdict]) -> set[str]:
    return {v.candidate.path for v in verdicts if not v.delete}


RUNS = [a_run(f"operation_{n}.json", n) for n in range(5)]


@pytest.mark.parametrize("count", [1, 2, 4, 5, 6, 100])
def test_the_newest_n_stay(count: int) -> None:
    assert kept(reviewed(keeping(count), RUNS)) == {c.path for c in RUNS[-count:]}


@pytest.mark.parametrize("count", [0, -1])
def test_without_a_number_nothing_stays(count: int) -> None:
    keep_last = keeping(count)
    assert not keep_last
    assert kept(reviewed(keep_last, RUNS)) == set()


def test_it_is_true_when_any_policy_keeps_a_last() -> None:
    assert keeping(0, 1)
    assert not keeping()


def test_a_policy_that_cannot_be_obeyed_counts_for_nothing() -> None:
    assert not KeepLast({"completed_operations": PolicyProblem("completed_operations", "retention_days is NULL")})


def test_a_verdict_that_stays_says_which_rule_kept_it() -> None:
    verdict = reviewed(keeping(2), RUNS)[-1]
    assert verdict == keep(expired(RUNS[-1]), Reason.KEEP_LAST, "among the newest 2 of daily")
    unnamed = reviewed(keeping(2), [a_run("a", 1, None)])[0]
    assert unnamed.detail == "among the newest 2 of without a pipeline"


def test_a_verdict_that_goes_is_untouched() -> None:
    verdicts = reviewed(keeping(2), RUNS)
    assert verdicts[0] == expired(RUNS[0])


def test_a_keep_for_another_reason_is_untouched() -> None:
    keep_last = keeping(5)
    keep_last.consider(RUNS[0])
    held = keep(expired(RUNS[0]), Reason.HELD, "hold 1: audit")
    assert keep_last.review(held) is held


def test_each_pipeline_has_its_own_newest() -> None:
    candidates = [a_run("a", 1, "daily"), a_run("b", 2, "daily"), a_run("c", 0, "weekly")]
    assert kept(reviewed(keeping(1), candidates)) == {"b", "c"}


def test_no_pipeline_is_a_group_of_its_own() -> None:
    candidates = [a_run("a", 1, None), a_run("b", 2, None), a_run("c", 9, "daily"), a_run("d", 0, "without a pipeline")]
    assert kept(reviewed(keeping(1), candidates)) == {"b", "c", "d"}


def test_each_data_type_has_its_own_newest_and_number() -> None:
    candidates = [
        *RUNS,
        a_run("x", 7, data_type="failed_operations"),
        a_run("y", 8, data_type="failed_operations"),
        a_run("z", 9, data_type="pipeline_operations"),
    ]
    assert kept(reviewed(keeping(2, 1), candidates)) == {"operation_3.json", "operation_4.json", "y"}


def test_what_an_obstacle_keeps_takes_no_place() -> None:
    symlink = a_run("link", 99, obstacle=Reason.SYMLINK)
    assert kept(reviewed(keeping(1), [*RUNS, symlink])) == {"operation_4.json"}


def test_an_item_that_stays_anyway_takes_its_place() -> None:
    keep_last = keeping(1)
    for candidate in RUNS:
        keep_last.consider(candidate)
    assert keep_last.review(expired(RUNS[3])).delete


def test_equal_moments_are_ordered_by_path() -> None:
    candidates = [a_run(path, 1) for path in ("b", "c", "a")]
    assert kept(reviewed(keeping(2), candidates)) == {"b", "c"}


@given(
    st.lists(
        st.builds(
            a_run,
            st.uuids().map(str),
            st.integers(0, 5),
            st.sampled_from(["daily", "weekly", "", None]),
            st.sampled_from(["completed_operations", "failed_operations", "pipeline_operations"]),
            st.sampled_from([None, None, Reason.SYMLINK]),
        ),
        unique_by=lambda c: c.path,
        max_size=40,
    ),
    st.integers(0, 4),
    st.integers(0, 4),
    st.randoms(use_true_random=False),
)
def test_exactly_the_newest_of_each_group_stay_in_any_order(
    candidates: list[Candidate], completed: int, failed: int, random: Random
) -> None:
    counts = {"completed_operations": completed, "failed_operations": failed}
    groups: dict[tuple[str, str | None], list[tuple[int, str]]] = defaultdict(list)
    for c in candidates:
        if c.obstacle is None:
            groups[c.data_type, c.pipeline].append((c.since_ns, c.path))
    expected = {
        path
        for (data_type, _), members in groups.items()
        for _, path in sorted(members, reverse=True)[: counts.get(data_type, 0)]
    }
    assert kept(reviewed(keeping(completed, failed), candidates)) == expected
    random.shuffle(candidates)
    assert kept(reviewed(keeping(completed, failed), candidates)) == expected
