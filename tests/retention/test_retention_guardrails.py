import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanup_dagster.retention.guardrails import (
    BYPASSABLE,
    FORGET_THE_FUTURE,
    GIB,
    BackupSpace,
    Guardrail,
    Limits,
    Refusal,
    backup_refusals,
    clock_refusals,
    format_bytes,
    plan_refusals,
)
from cleanup_dagster.retention.models import NS_PER_DAY, NS_PER_SECOND, Tally
from cleanup_dagster.retention.times import from_ns

NOW = 20_000 * NS_PER_DAY
SKEW = 300
MANY = Tally(10**9, 10**15)
UNLIMITED = Limits(max_files=10**12, max_bytes=10**18, max_share=1.0, max_growth=1e12)


def refused(
    expired: Tally,
    *,
    scanned: Tally = MANY,
    limits: Limits | None = None,
    recent: tuple[int, ...] = (),
) -> list[Refusal]:
    return list(plan_refusals("tmp", scanned, expired, limits or Limits(), recent))


def names(refusals: list[Refusal]) -> list[Guardrail]:
    return [refusal.guardrail for refusal in refusals]


def test_the_default_limits_are_the_contract() -> None:
    assert Limits() == Limits(100_000, 100 * 1024**3, 0.5, 10.0, 1024**3, allow_volatile_backup=False)


def test_an_emergency_or_a_reviewed_plan_bypasses_four_and_no_more() -> None:
    assert {Guardrail.FILES, Guardrail.BYTES, Guardrail.SHARE, Guardrail.GROWTH} == BYPASSABLE
    assert set(Guardrail) - BYPASSABLE == {Guardrail.CLOCK, Guardrail.FREE_SPACE, Guardrail.VOLATILE_BACKUP}


def test_a_quiet_day_is_refused_by_nothing() -> None:
    assert refused(Tally(), scanned=Tally()) == []
    assert refused(Tally(10, 1_000), scanned=Tally(1_000, 10**6), recent=(10, 10, 10)) == []


@pytest.mark.parametrize(("files", "tripped"), [(100_000, []), (100_001, [Guardrail.FILES])])
def test_the_number_of_files(files: int, tripped: list[Guardrail]) -> None:
    assert names(refused(Tally(files, 0))) == tripped


@pytest.mark.parametrize(("size", "tripped"), [(100 * GIB, []), (100 * GIB + 1, [Guardrail.BYTES])])
def test_the_number_of_bytes(size: int, tripped: list[Guardrail]) -> None:
    assert names(refused(Tally(1, size))) == tripped


@pytest.mark.parametrize(
    ("scanned", "expired", "tripped"),
    [
        (100, 50, []),
        (100, 51, [Guardrail.SHARE]),
        (101, 50, []),
        (101, 51, [Guardrail.SHARE]),
        (99, 99, []),
        (100, 100, [Guardrail.SHARE]),
        (0, 0, []),
    ],
)
def test_the_share_counts_once_a_hundred_were_scanned(scanned: int, expired: int, tripped: list[Guardrail]) -> None:
    assert names(refused(Tally(expired, 0), scanned=Tally(scanned, 0))) == tripped


def test_a_share_of_all_is_never_too_much() -> None:
    assert refused(Tally(5_000, 0), scanned=Tally(5_000, 0), limits=Limits(max_share=1.0)) == []


def test_a_share_of_none_is_always_too_much() -> None:
    assert names(refused(Tally(1, 0), scanned=Tally(100, 0), limits=Limits(max_share=0.0))) == [Guardrail.SHARE]


@given(st.integers(1, 100), st.integers(1, 1_000))
def test_exactly_the_share_is_allowed_and_one_more_is_not(percent: int, hundreds: int) -> None:
    limits = Limits(max_files=10**9, max_share=float(f"{percent / 100:.2f}"))
    scanned, share = Tally(100 * hundreds, 0), percent * hundreds
    assert refused(Tally(share, 0), scanned=scanned, limits=limits) == []
    assert names(refused(Tally(share + 1, 0), scanned=scanned, limits=limits)) == [Guardrail.SHARE]


@pytest.mark.parametrize(
    ("expired", "recent", "tripped"),
    [
        (100, (10, 10, 10), []),
        (101, (10, 10, 10), [Guardrail.GROWTH]),
        (101, (10, 10), []),
        (101, (), []),
        (99, (1, 1, 1), []),
        (100, (9, 9, 9), [Guardrail.GROWTH]),
        (100, (1, 1, 1), [Guardrail.GROWTH]),
        (105, (10, 11, 10, 11), []),
        (106, (10, 11, 10, 11), [Guardrail.GROWTH]),
        (1_000, (1, 100, 1_000_000), []),
        (1_001, (1, 100, 1_000_000), [Guardrail.GROWTH]),
        (101, (10, 10, 10, 10, 500, 500, 500, 500, 500), [Guardrail.GROWTH]),
        (101, (500, 500, 500, 10, 10, 10, 10), [Guardrail.GROWTH]),
        (101, (500, 500, 500, 500, 10, 10, 10, 10, 10), []),
        (100, (0, 0, 0), [Guardrail.GROWTH]),
    ],
)
def test_growth_counts_against_the_median_of_the_last_seven_runs(
    expired: int, recent: tuple[int, ...], tripped: list[Guardrail]
) -> None:
    assert names(refused(Tally(expired, 0), recent=recent)) == tripped


@given(st.integers(11, 99), st.integers(1, 1_000))
def test_exactly_the_growth_is_allowed_and_one_more_is_not(tenths: int, tens: int) -> None:
    limits = Limits(max_files=10**9, max_growth=float(f"{tenths / 10:.1f}"))
    recent, grown = (1_000 * tens,) * 3, tenths * 100 * tens
    assert refused(Tally(grown, 0), limits=limits, recent=recent) == []
    assert names(refused(Tally(grown + 1, 0), limits=limits, recent=recent)) == [Guardrail.GROWTH]


def test_every_bypassable_guardrail_can_trip_at_once() -> None:
    tripped = refused(Tally(200_000, 200 * GIB), scanned=Tally(200_000, 0), recent=(1, 2, 3))
    assert names(tripped) == [Guardrail.FILES, Guardrail.BYTES, Guardrail.SHARE, Guardrail.GROWTH]
    assert set(names(tripped)) == BYPASSABLE


def test_no_limit_no_refusal() -> None:
    assert refused(Tally(10**9, 10**15), limits=UNLIMITED, recent=(1, 1, 1)) == []


def test_the_messages_name_the_figure_the_limit_and_the_way_on() -> None:
    ways = "; review the dry run and apply its plan, raise the limit in cleanup.yaml, or run with type emergency"
    tripped = refused(Tally(200_000, 200 * GIB), scanned=Tally(250_000, 0), recent=(1_000, 2_000, 3_000, 4_000))
    assert [r.message for r in tripped] == [
        "tmp: 200,000 files would go, more than max_files = 100,000" + ways,
        "tmp: 200.0 GiB would go, more than max_bytes = 100.0 GiB" + ways,
        "tmp: 200,000 of 250,000 files would go (80.0%), more than max_share = 50%" + ways,
        "tmp: 200,000 files would go, more than max_growth = 10 times the median of the last 4 runs (2,500)" + ways,
    ]
    assert {r.subject for r in tripped} == {"tmp"}


def test_a_share_is_named_as_it_was_set() -> None:
    (refusal,) = refused(Tally(300, 0), scanned=Tally(1_000, 0), limits=Limits(max_share=0.295))
    assert "(30.0%), more than max_share = 29.5%" in refusal.message


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("beyond_ns", "trips"), [(-1, False), (0, False), (1, True)])
def test_the_hosts_clock_against_the_databases(sign: int, beyond_ns: int, trips: bool) -> None:
    database_ns = NOW + sign * (SKEW * NS_PER_SECOND + beyond_ns)
    assert [r.guardrail for r in clock_refusals(NOW, database_ns, None, SKEW)] == [Guardrail.CLOCK] * trips


@pytest.mark.parametrize(
    ("beyond_ns", "trips"), [(-(10**15), False), (-1, False), (0, False), (1, True), (10**15, True)]
)
def test_the_hosts_clock_against_the_last_run(beyond_ns: int, trips: bool) -> None:
    last_run_ns = NOW + SKEW * NS_PER_SECOND + beyond_ns
    assert [r.guardrail for r in clock_refusals(NOW, None, last_run_ns, SKEW)] == [Guardrail.CLOCK] * trips


def test_without_another_clock_none_is_refused() -> None:
    assert list(clock_refusals(NOW, None, None, SKEW)) == []
    assert list(clock_refusals(NOW, NOW, NOW - NS_PER_DAY, SKEW)) == []


def test_the_clock_messages_name_the_figure_the_limit_and_the_way_on() -> None:
    later = NOW + 3_600 * NS_PER_SECOND
    way = "; correct the clock (timedatectl status) before anything is judged by age"
    when = f"{from_ns(later):%Y-%m-%d %H:%M}"
    or_so = f"or, if it was that run's clock that was wrong, say so: {FORGET_THE_FUTURE}"
    assert [(r.subject, r.message) for r in clock_refusals(NOW, later, later, SKEW)] == [
        ("clock", "the host's clock and the database's are 3,600 seconds apart, more than 300" + way),
        (
            "clock",
            f"the host's clock is 3,600 seconds before the start of the last run, {when} UTC{way}, {or_so}",
        ),
    ]


@pytest.mark.parametrize(
    ("needed", "available", "trips"),
    [
        (10 * GIB, 11 * GIB, False),
        (10 * GIB, 11 * GIB - 1, True),
        (10 * GIB + 1, 11 * GIB, True),
        (10 * GIB, 0, True),
        (0, 0, False),
        (10 * GIB, None, False),
    ],
)
def test_the_backup_must_fit_beside_the_reserve(needed: int, available: int | None, trips: bool) -> None:
    refusals = list(backup_refusals("tmp", BackupSpace(needed, available), Limits()))
    assert names(refusals) == [Guardrail.FREE_SPACE] * trips


@pytest.mark.parametrize(
    ("volatile", "source_volatile", "allowed", "trips"),
    [
        (True, False, False, True),
        (True, False, True, False),
        (True, True, False, False),
        (False, False, False, False),
        (False, True, False, False),
    ],
)
def test_a_backup_must_not_be_more_volatile_than_its_source(
    volatile: bool, source_volatile: bool, allowed: bool, trips: bool
) -> None:
    space = BackupSpace(1, 10 * GIB, volatile, source_volatile)
    refusals = list(backup_refusals("tmp", space, Limits(allow_volatile_backup=allowed)))
    assert names(refusals) == [Guardrail.VOLATILE_BACKUP] * trips


@pytest.mark.parametrize("space", [BackupSpace(0, 10 * GIB, volatile=True), BackupSpace(1, None, volatile=True)])
def test_where_nothing_is_backed_up_nothing_is_volatile(space: BackupSpace) -> None:
    assert list(backup_refusals("tmp", space, Limits())) == []


def test_the_backup_messages_name_the_figure_the_limit_and_the_way_on() -> None:
    small, volatile = backup_refusals("tmp", BackupSpace(10 * GIB, GIB // 2, volatile=True), Limits())
    assert small.message == (
        "tmp: the backup needs 10.0 GiB and a reserve of 1.0 GiB, but 512.0 MiB are free where backups go; free "
        "space there, point backup.directory at another disk, or run with type emergency and skip_backup"
    )
    assert volatile.message == (
        "tmp: the backup directory lies in memory (tmpfs) and the files do not, so a power cut loses both; "
        "point backup.directory at a disk, or set limits.allow_volatile_backup"
    )
    assert (small.subject, volatile.subject) == ("tmp", "tmp")


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 B"),
        (1_023, "1023 B"),
        (1_024, "1.0 KiB"),
        (1_024**2, "1.0 MiB"),
        (1_024**3, "1.0 GiB"),
        (1_500_000_000, "1.4 GiB"),
        (1_024**4, "1.0 TiB"),
        (5_000 * 1_024**4, "5000.0 TiB"),
    ],
)
def test_a_size_is_said_in_binary_units(size: int, said: str) -> None:
    assert format_bytes(size) == said
