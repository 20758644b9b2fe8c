import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanup_dagster.retention.models import NS_PER_SECOND
from cleanup_dagster.retention.times import EARLIEST_NS, from_ns, read_moment, to_ns

OSLO = ZoneInfo("Europe/Oslo")
UTC = timezone.utc
MOMENT = datetime(2024, 3, 5, 6, 7, 8, tzinfo=UTC)
MOMENT_NS = 1_709_618_828 * NS_PER_SECOND
DAY_NS = 86_400 * NS_PER_SECOND

HALF_PAST_TWO_TWICE = "2025-10-26T02:30:00"  # Oslo's clocks go back from 03:00 to 02:00
HALF_PAST_TWO_NEVER = "2025-03-30T02:30:00"  # Oslo's clocks go from 02:00 to 03:00


@pytest.fixture
def host_in_oslo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Oslo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def utc_ns(*fields: int) -> int:
    return to_ns(datetime(*fields, tzinfo=UTC))  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    "value",
    [
        "2024-03-05T06:07:08Z",
        "2024-03-05t06:07:08z",
        "2024-03-05 06:07:08Z",
        "2024-03-05T06:07:08+00:00",
        "2024-03-05T06:07:08-00:00",
        "2024-03-05 06:07:08+00:00",
        "2024-03-05T06:07:08.000Z",
        "2024-03-05T06:07:08.000000+00:00",
        "2024-03-05T06:07:08.000000000Z",
        "2024-03-05T08:07:08+02:00",
        "2024-03-05T00:37:08-05:30",
        "  2024-03-05T06:07:08Z\n",
        "2024-03-05T06:07:08",
        "2024-03-05 06:07:08",
        "2024-03-05T06:07:08.000",
        "2024-03-05T06:07:08.000000",
        1_709_618_828,
        1_709_618_828.0,
        1_709_618_828_000,
        1_709_618_828_000.0,
        "1709618828",
        "1709618828.0",
        "1709618828000",
        " 1709618828 ",
    ],
)
def test_every_spelling_names_the_same_moment(value: object) -> None:
    assert read_moment(value, UTC) == MOMENT_NS


@pytest.mark.parametrize(
    "value",
    [
        "2024-03-05T06:07:08.123456Z",
        "2024-03-05T06:07:08.123456",
        "2024-03-05T07:07:08.123456+01:00",
        1_709_618_828.123456,
        "1709618828.123456",
        1_709_618_828_123.456,
    ],
)
def test_microseconds_are_exact(value: object) -> None:
    assert read_moment(value, UTC) == MOMENT_NS + 123_456_000


@pytest.mark.parametrize("text", ["20240305T060708Z", "2024-03-05T06:07:08+0000", "2024-W10-2T06:07:08Z"])
def test_spellings_that_only_newer_pythons_read_are_read_right_or_not_at_all(text: str) -> None:
    assert read_moment(text, UTC) in (MOMENT_NS, None)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        "",
        "   ",
        "yesterday",
        "running",
        "12345678",
        "-1709618828",
        "1.7e9",
        "1709618828s",
        "0x65e6b00c",
        "\u0661\u0667\u0660\u0669\u0666\u0661\u0668\u0668\u0662\u0668",  # Arabic digits
        "06:07:08",
        "2024-03",
        "2024-13-05T06:07:08Z",
        "2024-02-30T06:07:08Z",
        "2024-03-05T25:07:08Z",
        "2024-03-05T06:07:60Z",
        "2024-03-05T06:07:08+24:00",
        "2024-03-05T06:07:08 CET",
        "2024-03-05T06:07:08Z[Europe/Oslo]",
        "Tue, 05 Mar 2024 06:07:08 GMT",
        "05.03.2024 06:07",
        "\x00",
        "\ud800",
        "nan",
        "inf",
        float("nan"),
        float("inf"),
        float("-inf"),
        1e308,
        -1e308,
        "9" * 308,
        "9" * 10_000,
        "[" * 10_000,
        b"2024-03-05T06:07:08Z",
        [],
        {},
        [1_709_618_828],
        {"time": 1_709_618_828},
        MOMENT,
    ],
)
def test_what_names_no_moment_is_none(value: object) -> None:
    assert read_moment(value, UTC) is None


@pytest.mark.parametrize("value", [0, -1, 0.0, 12.5, -1_709_618_828, "000000000", "0001-01-01T00:00:00Z", -(10**400)])
def test_zeros_and_negatives_are_read_as_before_anything_we_clean(value: object) -> None:
    moment_ns = read_moment(value, UTC)
    assert moment_ns is not None
    assert moment_ns < EARLIEST_NS


@pytest.mark.parametrize("value", [99_999_999_999, 99_999_999_999.0, "99999999999"])
def test_the_largest_seconds_are_the_year_5138(value: object) -> None:
    assert read_moment(value, UTC) == 99_999_999_999 * NS_PER_SECOND


@pytest.mark.parametrize("value", [100_000_000_000, 100_000_000_000.0, "100000000000"])
def test_the_smallest_milliseconds_are_march_1973(value: object) -> None:
    assert read_moment(value, UTC) == utc_ns(1973, 3, 3, 9, 46, 40)


@pytest.mark.parametrize("value", [1_709_618_828_000_000, 1_709_618_828_000_000_000, "20240305060708"])
def test_other_units_are_far_in_the_future_and_so_never_older(value: object) -> None:
    moment_ns = read_moment(value, UTC)
    assert moment_ns is not None
    assert moment_ns > utc_ns(2500, 1, 1)


@pytest.mark.parametrize("zone", [UTC, OSLO, timezone(timedelta(hours=-11))])
def test_a_naive_time_belongs_to_the_zone_given(zone: tzinfo) -> None:
    assert read_moment("2024-03-05T06:07:08", zone) == to_ns(datetime(2024, 3, 5, 6, 7, 8, tzinfo=zone))


@pytest.mark.usefixtures("host_in_oslo")
def test_a_naive_time_belongs_to_the_host_without_a_zone() -> None:
    assert read_moment("2024-03-05T06:07:08", None) == utc_ns(2024, 3, 5, 5, 7, 8)
    assert read_moment("2024-07-05T06:07:08", None) == utc_ns(2024, 7, 5, 4, 7, 8)


@pytest.mark.usefixtures("host_in_oslo")
def test_a_zone_given_wins_over_the_hosts() -> None:
    assert read_moment("2024-03-05T06:07:08", UTC) == MOMENT_NS


@pytest.mark.usefixtures("host_in_oslo")
@pytest.mark.parametrize("zone", [UTC, OSLO, None])
@pytest.mark.parametrize("value", ["2024-03-05T06:07:08Z", "2024-03-05T08:07:08+02:00", 1_709_618_828, "1709618828"])
def test_a_zoned_time_needs_no_zone(value: object, zone: tzinfo | None) -> None:
    assert read_moment(value, zone) == MOMENT_NS


@pytest.mark.usefixtures("host_in_oslo")
@pytest.mark.parametrize("zone", [OSLO, None])
def test_an_hour_that_comes_twice_is_the_second_one(zone: tzinfo | None) -> None:
    assert read_moment(HALF_PAST_TWO_TWICE, zone) == utc_ns(2025, 10, 26, 1, 30)


@pytest.mark.usefixtures("host_in_oslo")
@pytest.mark.parametrize("zone", [OSLO, None])
def test_an_hour_that_never_comes_is_the_later_reading(zone: tzinfo | None) -> None:
    assert read_moment(HALF_PAST_TWO_NEVER, zone) == utc_ns(2025, 3, 30, 1, 30)


@pytest.mark.usefixtures("host_in_oslo")
@pytest.mark.parametrize("zone", [OSLO, None])
def test_a_date_alone_is_its_last_instant(zone: tzinfo | None) -> None:
    assert read_moment("2024-03-05", zone) == utc_ns(2024, 3, 5, 22, 59, 59, 999_999)


@pytest.mark.parametrize("zone", [UTC, OSLO, None])
@pytest.mark.parametrize("text", ["0001-01-01T00:00:00", "9999-12-31T23:59:59.999999", "0001-01-01", "9999-12-31"])
def test_the_ends_of_the_calendar_are_read_or_refused_quietly(text: str, zone: tzinfo | None) -> None:
    moment_ns = read_moment(text, zone)
    assert moment_ns is None or not EARLIEST_NS <= moment_ns <= utc_ns(2500, 1, 1)


@given(st.datetimes(timezones=st.timezones()))
def test_nanoseconds_hold_every_microsecond(moment: datetime) -> None:
    assert from_ns(to_ns(moment)) - moment == timedelta(0)


@given(st.integers(-(10**18), 10**20))
def test_a_moment_shown_is_cut_never_rounded_up(moment_ns: int) -> None:
    assert 0 <= moment_ns - to_ns(from_ns(moment_ns)) < 1_000


@given(st.datetimes(min_value=datetime(2000, 1, 2), max_value=datetime(2400, 1, 1), timezones=st.timezones()))  # noqa: DTZ001
def test_what_isoformat_writes_is_read_back(moment: datetime) -> None:
    offset = moment.utcoffset()
    if offset is not None and offset % timedelta(minutes=1) == timedelta(0):
        assert read_moment(moment.isoformat(), OSLO) == to_ns(moment)


@given(st.datetimes(min_value=datetime(2000, 1, 2), max_value=datetime(2400, 1, 1)), st.timezones())  # noqa: DTZ001
def test_a_naive_time_is_never_read_as_the_older_of_two(naive: datetime, zone: ZoneInfo) -> None:
    readings = [to_ns(naive.replace(tzinfo=zone, fold=fold)) for fold in (0, 1)]
    assert read_moment(naive.isoformat(), zone) == max(readings)


@given(st.integers(min_value=946_684_800, max_value=99_999_999_999))
def test_seconds_and_milliseconds_agree(seconds: int) -> None:
    assert read_moment(seconds, UTC) == read_moment(seconds * 1_000, UTC) == seconds * NS_PER_SECOND


@given(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.lists(st.integers()),
    st.sampled_from([UTC, OSLO, None]),
)
def test_reading_never_raises(value: object, zone: tzinfo | None) -> None:
    moment_ns = read_moment(value, zone)
    assert moment_ns is None or isinstance(moment_ns, int)
