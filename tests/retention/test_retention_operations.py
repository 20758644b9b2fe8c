import json
from datetime import timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanup_dagster.retention.holds import HoldMatcher
from cleanup_dagster.retention.models import NS_PER_DAY, NS_PER_SECOND, AgeSource, Candidate, Identity, Policy
from cleanup_dagster.retention.operations import Classification, OperationFile, classify, read_operation
from cleanup_dagster.retention.rules import judge, sentence
from cleanup_dagster.retention.times import EARLIEST_NS

UTC = timezone.utc
NOW = 1_767_268_800 * NS_PER_SECOND  # 2026-01-01T12:00:00Z
MTIME = NOW - 3 * NS_PER_DAY
DIGITS = b"9" * 10_000

COMPLETED = ["completed", "success", "succeeded", "done"]
FAILED = ["failed", "failure", "error", "cancelled", "canceled"]
ACTIVE = ["running", "pending", "queued", "started", "starting", "in_progress"]
FIELDS = ["status", "success", "start_time", "end_time", "pipeline_name", "message"]


def classified(content: dict[str, Any], mtime_ns: int = MTIME, now_ns: int = NOW) -> Classification:
    return classify(read_operation(json.dumps(content).encode()), mtime_ns, now_ns, UTC)


def spellings(statuses: list[str]) -> list[str]:
    return [spelt for s in statuses for spelt in (s, s.upper(), s.title(), f"  {s}\n")]


@pytest.mark.parametrize("status", spellings(COMPLETED))
def test_every_completed_spelling_is_a_completed_operation(status: str) -> None:
    found = classified({"status": status})
    assert (found.data_type, found.active) == ("completed_operations", False)


@pytest.mark.parametrize("status", spellings(FAILED))
def test_every_failed_spelling_is_a_failed_operation(status: str) -> None:
    found = classified({"status": status})
    assert (found.data_type, found.active) == ("failed_operations", False)


@pytest.mark.parametrize("status", spellings(ACTIVE))
def test_every_active_spelling_is_an_active_pipeline_operation(status: str) -> None:
    found = classified({"status": status})
    assert (found.data_type, found.active) == ("pipeline_operations", True)


@pytest.mark.parametrize("status", ["unknown", "paused", "not completed", "completed!", "uncompleted", "x" * 10_000])
def test_an_unknown_status_is_a_pipeline_operation_that_claims_nothing(status: str) -> None:
    found = classified({"status": status, "success": True})
    assert (found.data_type, found.active) == ("pipeline_operations", False)
    assert found.status == status[:200]


@pytest.mark.parametrize("content", [{}, {"status": None}, {"status": ""}, {"status": "  "}, {"status": 7}])
@pytest.mark.parametrize(
    ("success", "data_type"),
    [
        (True, "completed_operations"),
        (False, "failed_operations"),
        (None, "pipeline_operations"),
        (1, "pipeline_operations"),
        (0, "pipeline_operations"),
        ("true", "pipeline_operations"),
    ],
)
def test_without_a_status_only_success_true_or_false_decides(
    content: dict[str, Any], success: object, data_type: str
) -> None:
    assert classified({**content, "success": success}).data_type == data_type


def test_a_status_wins_over_success() -> None:
    assert classified({"status": "failed", "success": True}).data_type == "failed_operations"
    assert classified({"status": "completed", "success": False}).data_type == "completed_operations"
    assert classified({"status": "running", "success": True}).data_type == "pipeline_operations"


def test_the_dashboards_progress_file_counts_from_its_start() -> None:
    content = {
        "operation_id": "op1",
        "status": "running",
        "message": "Loading",
        "progress": 40,
        "completed": False,
        "start_time": NOW / NS_PER_SECOND - 3_600.5,
    }
    assert classified(content) == Classification(
        "pipeline_operations", NOW - 3_600_500_000_000, AgeSource.START_TIME, "running", None, active=True, note=""
    )


@pytest.mark.parametrize(
    ("success", "status", "data_type"),
    [(True, "completed", "completed_operations"), (False, "failed", "failed_operations")],
)
def test_the_dashboards_result_counts_from_its_mtime(success: bool, status: str, data_type: str) -> None:
    content = {
        "success": success,
        "reply": "done",
        "ui_blocks": [{"type": "text", "text": "x"}],
        "operation_id": "op1",
        "completed": True,
        "status": status,
    }
    assert classified(content) == Classification(data_type, MTIME, AgeSource.MTIME, status, None, active=False, note="")


def test_the_dashboards_error_is_a_failed_operation() -> None:
    content = {"operation_id": "op1", "status": "error", "completed": True, "success": False}
    assert classified(content) == Classification(
        "failed_operations", MTIME, AgeSource.MTIME, "error", None, active=False, note=""
    )


def test_a_pipelines_record_counts_from_its_end() -> None:
    content = {
        "operation_id": "op1",
        "pipeline_name": "daily",
        "status": "completed",
        "start_time": "2025-12-01T10:00:00",
        "end_time": "2025-12-01T12:00:00",
        "progress": 100,
        "message": "ok",
    }
    assert classified(content) == Classification(
        "completed_operations",
        NOW - 31 * NS_PER_DAY,
        AgeSource.END_TIME,
        "completed",
        "daily",
        active=False,
        note="",
    )


def test_a_missing_end_counts_from_the_start_whatever_the_mtime() -> None:
    found = classified({"end_time": None, "start_time": "2025-12-02T12:00:00Z"}, mtime_ns=NOW)
    assert (found.since_ns, found.age_from) == (NOW - 30 * NS_PER_DAY, AgeSource.START_TIME)


@pytest.mark.parametrize("field", ["end_time", "start_time"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("soon", "'soon' cannot be read"),
        ("", "'' cannot be read"),
        (True, "'True' cannot be read"),
        (1e308, "'1e+308' cannot be read"),
        ([[1]], "(a list) cannot be read"),
        ({"a": {}}, "(a dict) cannot be read"),
        ("x" * 5_000, "'" + "x" * 40 + "' cannot be read"),
        (0, "'0' is before the year 2000"),
        (-5.5, "'-5.5' is before the year 2000"),
        ("1999-12-31T23:59:59.999999Z", "'1999-12-31T23:59:59.999999Z' is before the year 2000"),
        ("2026-01-01T12:00:00.000001Z", "'2026-01-01T12:00:00.000001Z' is in the future"),
        ("2026-01-01", "'2026-01-01' is in the future"),
        (9 * 10**30, "'9000000000000000000000000000000' is in the future"),
    ],
)
def test_a_time_that_cannot_be_trusted_yields_to_the_mtime_and_says_so(field: str, value: object, problem: str) -> None:
    found = classified({"status": "completed", "start_time": "2001-01-01T00:00:00Z", field: value})
    assert (found.since_ns, found.age_from) == (MTIME, AgeSource.MTIME)
    assert found.note == f"{field} {problem}, so the modification time counts"


@pytest.mark.parametrize("seconds", [EARLIEST_NS // NS_PER_SECOND, NOW // NS_PER_SECOND])
def test_the_first_and_the_last_trusted_moment_count(seconds: int) -> None:
    found = classified({"end_time": seconds})
    assert (found.since_ns, found.age_from, found.note) == (seconds * NS_PER_SECOND, AgeSource.END_TIME, "")


@pytest.mark.parametrize(
    ("name", "pipeline"),
    [
        ("daily", "daily"),
        ("Dagl\u00f8b \u2713", "Dagl\u00f8b \u2713"),
        ("x" * 500, "x" * 200),
        ("", None),
        (" \t", None),
        (None, None),
        (7, None),
        (["daily"], None),
    ],
)
def test_a_pipeline_is_a_name_or_nothing(name: object, pipeline: str | None) -> None:
    assert classified({"pipeline_name": name}).pipeline == pipeline


def in_field(field: str, value: bytes) -> bytes:
    return b'{"status": "completed", "' + field.encode() + b'": ' + value + b"}"


UNREADABLE = {
    "empty": (b"", "the file is empty"),
    "blank": (b" \r\n\t", "the file is empty"),
    "cut in a string": (b'{"status": "compl', "not JSON"),
    "cut in an object": (b'{"status": "completed"', "not JSON"),
    "cut after the brace": (b"{", "not JSON"),
    "zeros after a power cut": (b"\0" * 4_096, "not JSON"),
    "two objects": (b"{}{}", "not JSON"),
    "trailing text": (b"{} x", "not JSON"),
    "single quotes": (b"{'status': 'done'}", "not JSON"),
    "text": (b"done", "not JSON"),
    "NaN": (b"NaN", "not JSON"),
    "array": (b"[]", "not an operation"),
    "string": (b'"completed"', "not an operation"),
    "number": (b"1709618828", "not an operation"),
    "null": (b"null", "not an operation"),
    "byte order mark": (b"\xef\xbb\xbf{}", "not JSON"),
    "UTF-16": ('{"status": "done"}'.encode("utf-16"), "not UTF-8"),
    "key not UTF-8": (b'{"\xff": 1}', "not UTF-8"),
    "open arrays": (b"[" * 200_000, "not an operation"),
    "open objects": (b'{"a":' * 200_000, "nested too deeply"),
    "closed objects": (b'{"a":' * 200_000 + b"1" + b"}" * 200_000, "nested too deeply"),
    "huge and cut": (b'{"message": "' + b"x" * 20_000_000, "not JSON"),
    "huge of spaces": (b" " * 5_000_000, "the file is empty"),
    **{f"{field} not UTF-8": (in_field(field, b'"\xff"'), "not UTF-8") for field in FIELDS},
    **{f"{field} lone surrogate": (in_field(field, b'"\\ud800 and more"'), "not JSON") for field in FIELDS},
    **{f"{field} encoded surrogate": (in_field(field, b'"\xed\xa0\x80"'), "not UTF-8") for field in FIELDS},
    **{f"{field} NaN": (in_field(field, b"NaN"), "not JSON") for field in FIELDS},
    **{f"{field} Infinity": (in_field(field, b"-Infinity"), "not JSON") for field in FIELDS},
    **{f"{field} open arrays": (in_field(field, b"[" * 200_000), "nested too deeply") for field in FIELDS},
    **{
        f"{field} closed arrays": (in_field(field, b"[" * 200_000 + b"]" * 200_000), "nested too deeply")
        for field in FIELDS
    },
    **{f"{field} open objects": (in_field(field, b'{"a":' * 200_000), "nested too deeply") for field in FIELDS},
    **{
        f"{field} of 10,000 digits": (in_field(field, sign + DIGITS), "not an operation")
        for field in FIELDS[:-1]
        for sign in (b"", b"-")
    },
    **{f"{field} 1e999": (in_field(field, b"1e999"), "not an operation") for field in FIELDS[:-1]},
}


@pytest.mark.parametrize(("content", "problem"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_unreadable_content_is_refused_with_a_sentence(content: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as refusal:
        read_operation(content)
    assert type(refusal.value) is ValueError


@pytest.mark.parametrize(
    "value",
    [
        DIGITS,
        b"-" + DIGITS,
        DIGITS + b".5",
        b"1e999",
        b"-1e999",
        b'"' + b"x" * 20_000_000 + b'"',
        b"[" * 100 + b"]" * 100,
        b'"\\u0000\\u202e"',
    ],
    ids=lambda value: value[:12].decode(),
)
def test_a_strange_value_in_a_skipped_field_is_harmless(value: bytes) -> None:
    found = classify(read_operation(in_field("message", value)), MTIME, NOW, UTC)
    assert (found.data_type, found.since_ns) == ("completed_operations", MTIME)


def test_the_last_of_doubled_keys_counts_as_in_every_json_reader() -> None:
    assert read_operation(b'{"status": "completed", "status": "running"}').status == "running"


def nested(depth: int) -> bytes:
    return in_field("start_time", b"[" * depth + b"]" * depth)


def test_nesting_at_the_edge_of_the_stack_is_refused_or_harmless() -> None:
    for depth in range(700, 1_100):
        try:
            operation = read_operation(nested(depth))
        except ValueError:
            continue
        found = classify(operation, MTIME, NOW, UTC)
        assert found.note == "start_time (a list) cannot be read, so the modification time counts"


deciding_values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 2 * NOW // NS_PER_SECOND)
    | st.floats()
    | st.text()
    | st.sampled_from(COMPLETED + FAILED + ACTIVE + ["9" * 400, "2025-12-01", "2025-10-26T02:30:00"])
    | st.datetimes().map(lambda moment: moment.isoformat())
)
json_values = st.recursive(
    deciding_values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
operation_files = st.dictionaries(st.sampled_from(FIELDS) | st.text(), json_values, max_size=8)


def judged(content: bytes, mtime_ns: int) -> tuple[Classification, bool, str] | None:
    try:
        operation = read_operation(content)
    except ValueError:
        return None
    found = classify(operation, mtime_ns, NOW, UTC)
    candidate = Candidate(
        "operation_x.json",
        Identity(1, 2, len(content), mtime_ns, 0, 0, 0o100600),
        found.data_type,
        found.since_ns,
        found.age_from,
        found.status,
        found.pipeline,
        found.active,
        note=found.note,
    )
    policies = {
        data_type: Policy(data_type, 30, True)
        for data_type in ("pipeline_operations", "completed_operations", "failed_operations")
    }
    verdict = judge(candidate, policies, HoldMatcher([], "/tmp", NOW), NOW)  # noqa: S108
    return found, verdict.delete, sentence(verdict)


@given(operation_files | json_values, st.integers(0, NOW + NS_PER_DAY))
def test_any_json_gets_a_verdict(content: object, mtime_ns: int) -> None:
    judged(json.dumps(content).encode(), mtime_ns)


@given(st.binary() | st.text().map(str.encode), st.integers(0, NOW))
def test_any_bytes_get_a_verdict_or_a_refusal(content: bytes, mtime_ns: int) -> None:
    judged(content, mtime_ns)


@given(operation_files, st.data())
def test_a_half_written_file_is_never_judged(content: dict[str, object], data: st.DataObject) -> None:
    whole = json.dumps(content).encode()
    half = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(ValueError, match=r"empty|not JSON"):
        read_operation(half)


@given(operation_files, st.integers(EARLIEST_NS, NOW))
def test_an_untrusted_time_never_makes_a_file_older_than_its_mtime(content: dict[str, object], mtime_ns: int) -> None:
    result = judged(json.dumps(content).encode(), mtime_ns)
    if result is None:
        return
    found, deleted, _ = result
    if found.age_from is AgeSource.MTIME:
        assert found.since_ns == mtime_ns
    else:
        assert EARLIEST_NS <= found.since_ns <= NOW
        assert not found.note
    if deleted:
        assert NOW - found.since_ns > 30 * NS_PER_DAY
    if found.note:
        assert found.age_from is AgeSource.MTIME


@given(st.integers(2, 400).map(lambda n: 10**n) | st.floats(min_value=1e12), st.integers(EARLIEST_NS, NOW))
def test_a_future_number_in_any_unit_yields_to_the_mtime(value: float, mtime_ns: int) -> None:
    found = classify(OperationFile(end_time=value), mtime_ns, NOW, UTC)
    assert found.since_ns == mtime_ns or EARLIEST_NS <= found.since_ns <= NOW
