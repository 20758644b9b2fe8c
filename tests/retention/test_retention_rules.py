from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanup_dagster.retention.defaults import (
    DATA_TYPES,
    DEFAULT_POLICIES,
    RETENTION_DAYS_MAX,
    RETENTION_DAYS_MIN,
)
from cleanup_dagster.retention.holds import HoldMatcher
from cleanup_dagster.retention.models import (
    NS_PER_DAY,
    NS_PER_SECOND,
    OPERATION_DATA_TYPES,
    AgeSource,
    Candidate,
    Hold,
    Identity,
    Policy,
    PolicyProblem,
    Reason,
    Tally,
    Verdict,
)
from cleanup_dagster.retention.rules import ACTIVE_WITHIN_NS, format_age, judge, keep, sentence

NOW = 1_767_268_800 * NS_PER_SECOND
HOUR = 3_600 * NS_PER_SECOND
US = 1_000
ROOT = "/data"
OBSTACLES = [
    Reason.UNREADABLE_CONTENT,
    Reason.SYMLINK,
    Reason.NOT_REGULAR,
    Reason.HARD_LINKED,
    Reason.OTHER_MOUNT,
    Reason.OWN_DIRECTORY,
    Reason.TOO_DEEP,
    Reason.UNREADABLE,
]
NO_HOLDS = HoldMatcher([], ROOT, NOW)
ALL_HELD = HoldMatcher([Hold(4, "**", "audit")], ROOT, NOW)


def a_file(
    age_ns: int = 365 * NS_PER_DAY,
    *,
    modified_ago_ns: int | None = None,
    active: bool = False,
    obstacle: Reason | None = None,
    pipeline: str | None = None,
    note: str = "",
    data_type: str = "dbt_logs",
) -> Candidate:
    modified_ns = NOW - (age_ns if modified_ago_ns is None else modified_ago_ns)
    return Candidate(
        "logs/dbt.log",
        Identity(1, 2, 3, modified_ns, 0, 0, 0o100644),
        data_type,
        NOW - age_ns,
        AgeSource.END_TIME,
        "running" if active else "done",
        pipeline,
        active,
        obstacle=obstacle,
        note=note,
    )


def policies(days: int = 7, *, enabled: bool = True) -> dict[str, Policy | PolicyProblem]:
    return {"dbt_logs": Policy("dbt_logs", days, enabled), "system_logs": Policy("system_logs", 1, True)}


def decision(verdict: Verdict) -> tuple[bool, Reason, str]:
    return verdict.delete, verdict.reason, verdict.detail


def test_an_expired_file_goes() -> None:
    verdict = judge(a_file(8 * NS_PER_DAY), policies(), NO_HOLDS, NOW)
    assert verdict == Verdict(a_file(8 * NS_PER_DAY), True, Reason.EXPIRED, 8 * NS_PER_DAY, 7)


@pytest.mark.parametrize("days", [RETENTION_DAYS_MIN, 7, RETENTION_DAYS_MAX])
@pytest.mark.parametrize(("beyond_ns", "deleted"), [(-US, False), (-1, False), (0, False), (1, True), (US, True)])
def test_expired_means_older_than_the_period_to_the_nanosecond(days: int, beyond_ns: int, deleted: bool) -> None:
    verdict = judge(a_file(days * NS_PER_DAY + beyond_ns), policies(days), NO_HOLDS, NOW)
    assert decision(verdict) == (deleted, Reason.EXPIRED if deleted else Reason.NOT_EXPIRED, "")
    assert verdict.retention_days == days


def test_a_time_in_the_future_keeps() -> None:
    assert decision(judge(a_file(-1), policies(), NO_HOLDS, NOW)) == (False, Reason.NOT_EXPIRED, "")


def test_a_missing_policy_keeps_whatever_other_policies_say() -> None:
    verdict = judge(a_file(data_type="temp_files"), policies(1), NO_HOLDS, NOW)
    assert decision(verdict) == (False, Reason.NO_POLICY, "")
    assert decision(judge(a_file(), {}, NO_HOLDS, NOW)) == (False, Reason.NO_POLICY, "")


def test_a_disabled_policy_keeps() -> None:
    verdict = judge(a_file(), policies(enabled=False), NO_HOLDS, NOW)
    assert decision(verdict) == (False, Reason.POLICY_DISABLED, "")
    assert verdict.retention_days == 7


def test_an_impossible_policy_keeps_and_says_why() -> None:
    problem: dict[str, Policy | PolicyProblem] = {"dbt_logs": PolicyProblem("dbt_logs", "retention_days is NULL")}
    assert decision(judge(a_file(), problem, NO_HOLDS, NOW)) == (
        False,
        Reason.POLICY_INVALID,
        "retention_days is NULL",
    )


def test_an_impossible_policy_stops_no_other_data_type() -> None:
    mixed = {**policies(), "dbt_logs": PolicyProblem("dbt_logs", "retention_days is NULL")}
    assert judge(a_file(data_type="system_logs"), mixed, NO_HOLDS, NOW).delete


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_an_obstacle_keeps_and_brings_its_note(obstacle: Reason) -> None:
    verdict = judge(a_file(obstacle=obstacle, note="a FIFO"), policies(), NO_HOLDS, NOW)
    assert decision(verdict) == (False, obstacle, "a FIFO")


def test_a_hold_keeps_and_names_itself() -> None:
    assert decision(judge(a_file(), policies(), ALL_HELD, NOW)) == (False, Reason.HELD, "hold 4: audit")


@pytest.mark.parametrize(
    "governed",
    [{}, policies(), policies(enabled=False), {"dbt_logs": PolicyProblem("dbt_logs", "bad")}],
    ids=["none", "enabled", "disabled", "invalid"],
)
@pytest.mark.parametrize("candidate", [a_file(), a_file(1), a_file(active=True, modified_ago_ns=0)])
def test_a_hold_is_the_reason_whatever_else_would_keep(
    candidate: Candidate, governed: dict[str, Policy | PolicyProblem]
) -> None:
    assert judge(candidate, governed, ALL_HELD, NOW, 10**20).reason is Reason.HELD


@pytest.mark.parametrize(
    "hold",
    [
        Hold(1, "/data/logs/dbt.log", ""),
        Hold(1, "/data/logs", ""),
        Hold(1, "**", "", data_type="dbt_logs"),
        Hold(1, "**", "", pipeline="daily"),
    ],
)
def test_a_hold_is_asked_with_the_path_the_data_type_and_the_pipeline(hold: Hold) -> None:
    holds = HoldMatcher([hold], ROOT, NOW)
    assert judge(a_file(pipeline="daily"), policies(), holds, NOW).reason is Reason.HELD


@pytest.mark.parametrize(
    ("modified_ago_ns", "reason"),
    [
        (-HOUR, Reason.STILL_ACTIVE),
        (0, Reason.STILL_ACTIVE),
        (24 * HOUR - US, Reason.STILL_ACTIVE),
        (24 * HOUR - 1, Reason.STILL_ACTIVE),
        (24 * HOUR, Reason.EXPIRED),
        (24 * HOUR + 1, Reason.EXPIRED),
        (25 * HOUR, Reason.EXPIRED),
    ],
)
def test_a_running_operation_is_believed_for_a_day_after_its_last_write(modified_ago_ns: int, reason: Reason) -> None:
    assert ACTIVE_WITHIN_NS == 24 * HOUR
    running = a_file(active=True, modified_ago_ns=modified_ago_ns)
    assert judge(running, policies(), NO_HOLDS, NOW).reason is reason


def test_a_finished_operation_goes_however_recently_it_was_modified() -> None:
    assert judge(a_file(modified_ago_ns=0), policies(), NO_HOLDS, NOW).delete


def test_an_operation_that_stopped_writing_while_young_is_not_expired() -> None:
    stopped = a_file(2 * NS_PER_DAY, active=True, modified_ago_ns=2 * NS_PER_DAY)
    assert judge(stopped, policies(), NO_HOLDS, NOW).reason is Reason.NOT_EXPIRED


@pytest.mark.parametrize(
    ("modified_ago_ns", "reason"),
    [
        (0, Reason.RECENTLY_MODIFIED),
        (HOUR - 1, Reason.RECENTLY_MODIFIED),
        (HOUR, Reason.EXPIRED),
        (HOUR + 1, Reason.EXPIRED),
    ],
)
def test_min_age_keeps_what_was_modified_more_recently(modified_ago_ns: int, reason: Reason) -> None:
    verdict = judge(a_file(modified_ago_ns=modified_ago_ns), policies(), NO_HOLDS, NOW, HOUR)
    assert verdict.reason is reason
    assert verdict.delete is (reason is Reason.EXPIRED)


def test_min_age_never_shortens_the_period() -> None:
    assert judge(a_file(6 * NS_PER_DAY), policies(), NO_HOLDS, NOW, 0).reason is Reason.NOT_EXPIRED
    assert judge(a_file(6 * NS_PER_DAY), policies(), NO_HOLDS, NOW, HOUR).reason is Reason.NOT_EXPIRED


@given(
    days=st.integers(RETENTION_DAYS_MIN, RETENTION_DAYS_MAX),
    beyond_ns=st.integers(-2, 2) | st.integers(-NS_PER_DAY, 10**19),
    modified_ago_ns=st.integers(-NS_PER_DAY, 10**19) | st.sampled_from([24 * HOUR, 24 * HOUR - 1]),
    min_age_ns=st.just(0) | st.integers(0, 10**19),
    governed=st.sampled_from(["enabled", "disabled", "invalid", "missing"]),
    obstacle=st.none() | st.sampled_from(OBSTACLES),
    active=st.booleans(),
    held=st.booleans(),
)
def test_nothing_goes_unless_every_rule_agrees(
    days: int,
    beyond_ns: int,
    modified_ago_ns: int,
    min_age_ns: int,
    governed: str,
    obstacle: Reason | None,
    active: bool,
    held: bool,
) -> None:
    choices: dict[str, dict[str, Policy | PolicyProblem]] = {
        "enabled": policies(days),
        "disabled": policies(days, enabled=False),
        "invalid": {"dbt_logs": PolicyProblem("dbt_logs", "bad")},
        "missing": {"temp_files": Policy("temp_files", 1, True)},
    }
    age_ns = days * NS_PER_DAY + beyond_ns
    candidate = a_file(age_ns, modified_ago_ns=modified_ago_ns, active=active, obstacle=obstacle, note="a note")
    verdict = judge(candidate, choices[governed], ALL_HELD if held else NO_HOLDS, NOW, min_age_ns)
    assert verdict.delete is (
        governed == "enabled"
        and beyond_ns > 0
        and obstacle is None
        and not held
        and not (active and modified_ago_ns < 24 * HOUR)
        and modified_ago_ns >= min_age_ns
    )
    assert verdict.delete is (verdict.reason is Reason.EXPIRED)
    assert verdict.age_ns == age_ns
    assert verdict.candidate is candidate
    if held and obstacle is None:
        assert verdict.reason is Reason.HELD
    if obstacle is not None:
        assert verdict.reason is obstacle
    assert_reads_well(sentence(verdict))


def test_keep_changes_the_decision_and_nothing_else() -> None:
    verdict = judge(a_file(), policies(), NO_HOLDS, NOW)
    kept = keep(verdict, Reason.PUT_BACK, "equal to its backup of run 7")
    assert kept == Verdict(verdict.candidate, False, Reason.PUT_BACK, verdict.age_ns, 7, "equal to its backup of run 7")


def assert_reads_well(said: str) -> None:
    assert said
    assert "None" not in said
    assert "{" not in said
    assert "}" not in said
    assert not said.endswith((" ", ":", "()"))


SENTENCES: Sequence[tuple[Reason, str]] = [
    (Reason.EXPIRED, "older than 7 days: it is 8.0 days old by its end_time"),
    (Reason.NOT_EXPIRED, "kept for 7 days; it is 8.0 days old by its end_time"),
    (Reason.HELD, "held (the detail)"),
    (Reason.NO_POLICY, "no policy governs dbt_logs, and without a policy everything is kept"),
    (Reason.POLICY_DISABLED, "the policy of dbt_logs is disabled"),
    (Reason.POLICY_INVALID, "the policy of dbt_logs cannot be obeyed: the detail"),
    (Reason.STILL_ACTIVE, "it says 'running' and was modified within the last 24 hours"),
    (Reason.RECENTLY_MODIFIED, "expired by its end_time, but modified more recently than the target's min_age"),
    (Reason.KEEP_LAST, "expired, but the detail"),
    (Reason.PUT_BACK, "expired, but put back on purpose: the detail"),
    (Reason.UNREADABLE_CONTENT, "kept because the detail"),
    (Reason.SYMLINK, "a symbolic link, never followed"),
    (Reason.NOT_REGULAR, "not a regular file (the detail)"),
    (Reason.HARD_LINKED, "has more than one hard link, so deleting this name frees nothing and may not be ours to do"),
    (Reason.OTHER_MOUNT, "lies on another mount"),
    (Reason.OWN_DIRECTORY, "belongs to cleanup_dagster itself"),
    (Reason.TOO_DEEP, "lies deeper than max_depth, so nothing below it was looked at"),
    (Reason.UNREADABLE, "cannot be read: the detail"),
    (Reason.NOT_FINISHED, "the run has not finished: it is running"),
    (Reason.NOT_SELECTED, "the target leaves it alone: the detail"),
    (Reason.ODD_RUN_ID, "its id is not one that Dagster gives, so nothing is looked for by it"),
    (Reason.KEPT_BY_TAG, "kept by its tag the detail"),
    (Reason.RUN_KEY, "a sensor or schedule would launch it anew without its run key the detail"),
    (Reason.BACKFILL_AT_WORK, "it belongs to backfill the detail"),
    (Reason.ASSET_STATE, "expired, but the detail"),
    (Reason.JOB_PARTITION, "expired, but the detail"),
    (Reason.RETRY_GROUP, "expired, but the detail"),
]


def test_every_reason_has_a_sentence_here() -> None:
    assert [reason for reason, _ in SENTENCES] == list(Reason)


@pytest.mark.parametrize(("reason", "said"), SENTENCES)
def test_every_reason_is_said_in_a_sentence(reason: Reason, said: str) -> None:
    verdict = Verdict(a_file(active=True), False, reason, 8 * NS_PER_DAY, 7, "the detail")
    assert sentence(verdict) == said
    assert_reads_well(said)


def test_a_note_is_added_once() -> None:
    noted = a_file(8 * NS_PER_DAY, note="start_time '0' is before the year 2000")
    assert sentence(judge(noted, policies(), NO_HOLDS, NOW)).endswith(" (start_time '0' is before the year 2000)")
    fifo = a_file(obstacle=Reason.NOT_REGULAR, note="a FIFO")
    assert sentence(judge(fifo, policies(), NO_HOLDS, NOW)) == "not a regular file (a FIFO)"


def test_one_day_is_singular_and_the_future_has_no_age() -> None:
    assert sentence(judge(a_file(2 * NS_PER_DAY), policies(1), NO_HOLDS, NOW)) == (
        "older than 1 day: it is 2.0 days old by its end_time"
    )
    assert sentence(judge(a_file(-1), policies(), NO_HOLDS, NOW)) == (
        "kept for 7 days; it is dated in the future by its end_time"
    )


def test_braces_in_what_a_file_says_stay_as_they_are() -> None:
    noted = a_file(1, note="end_time '{days}{0}{' cannot be read")
    assert sentence(judge(noted, policies(), NO_HOLDS, NOW)).endswith("(end_time '{days}{0}{' cannot be read)")


@pytest.mark.parametrize(
    ("age_ns", "said"),
    [
        (-1, "in the future"),
        (0, "0.0 hours"),
        (5 * HOUR, "5.0 hours"),
        (24 * HOUR - 360 * NS_PER_SECOND, "23.9 hours"),
        (24 * HOUR, "1.0 days"),
        (77 * HOUR, "3.2 days"),
        (36_500 * NS_PER_DAY, "36500.0 days"),
    ],
)
def test_an_age_is_said_in_hours_and_then_in_days(age_ns: int, said: str) -> None:
    assert format_age(age_ns) == said


def test_the_default_policies_are_the_contract() -> None:
    assert [(p.data_type, p.retention_days, p.enabled, p.keep_last) for p in DEFAULT_POLICIES] == [
        ("pipeline_operations", 30, True, 0),
        ("dbt_logs", 7, True, 0),
        ("failed_operations", 14, True, 0),
        ("completed_operations", 90, True, 0),
        ("system_logs", 30, True, 0),
        ("temp_files", 1, True, 0),
        ("dagster_runs", 90, False, 0),
    ]
    assert all(p.description for p in DEFAULT_POLICIES)
    assert all(RETENTION_DAYS_MIN <= p.retention_days <= RETENTION_DAYS_MAX for p in DEFAULT_POLICIES)
    assert set(OPERATION_DATA_TYPES) <= set(DATA_TYPES)


def test_a_tally_adds_files_and_bytes() -> None:
    assert Tally(1, 10).plus(2, 20) == Tally(3, 30)
