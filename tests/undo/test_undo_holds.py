"""Holds as people place and release them: by path, glob, data type and pipeline, with reason, author and end."""

import os
import time

import pytest
from service_helpers import DAY, EMERGENCY, Platform, files
from undo_helpers import apply, clean

from cleanup_dagster.database.holds import InvalidHold
from cleanup_dagster.retention.holds import compile_pattern, normalise_pattern

ALL = {"a/one.log", "a/b/two.log", "three.txt", "operation_sales.json", "operation_stock.json"}


def garbage(platform: Platform) -> None:
    for name in ("a/one.log", "a/b/two.log", "three.txt"):
        platform.log(name, 31)
    platform.operation("sales", 91, pipeline_name="sales")
    platform.operation("stock", 91, "failed", pipeline_name="stock")


def left(platform: Platform) -> set[str]:
    return files(platform.logs) | files(platform.operations)


@pytest.mark.parametrize(
    ("pattern", "of", "kept"),
    [
        ("{home}/logs/a/one.log", {}, {"a/one.log"}),
        ("{home}/logs/a/", {}, {"a/one.log", "a/b/two.log"}),
        ("{home}//logs/./a", {}, {"a/one.log", "a/b/two.log"}),
        ("{home}/logs/*.txt", {}, {"three.txt"}),
        ("{home}/logs/**/*.log", {}, {"a/one.log", "a/b/two.log"}),
        ("{home}", {}, ALL),
        ("/", {}, ALL),
        ("/**", {}, ALL),
        ("**", {"data_type": "system_logs"}, {"a/one.log", "a/b/two.log", "three.txt"}),
        ("**", {"data_type": "failed_operations"}, {"operation_stock.json"}),
        ("**", {"pipeline": "sales"}, {"operation_sales.json"}),
        ("**", {"pipeline": "stock", "data_type": "completed_operations"}, set[str]()),
        ("{home}/logs/a/*.log", {"data_type": "system_logs"}, {"a/one.log"}),
        ("{home}/log", {}, set[str]()),
        ("{home}/LOGS", {}, set[str]()),
    ],
)
def test_what_is_held_stays_and_the_rest_goes(
    platform: Platform, pattern: str, of: dict[str, str], kept: set[str]
) -> None:
    garbage(platform)
    with platform.service() as service:
        held = pattern.format(home=platform.home)
        service.records.hold(held, "audit", "alice", data_type=of.get("data_type"), pipeline=of.get("pipeline"))
    clean(platform, cleanup_type=EMERGENCY, skip_backup=True)
    assert left(platform) == kept


def test_a_hold_ends_by_its_time_or_by_its_release(platform: Platform) -> None:
    platform.log("timed.log", 31)
    platform.log("released.log", 31)
    with platform.service() as service:
        until_ns = platform.clock() + 2 * DAY * 10**9
        service.records.hold(f"{platform.logs}/timed.log", "audit", "alice", until_ns=until_ns)
        number = service.records.hold(f"{platform.logs}/released.log", "audit", "bob")
    clean(platform)
    assert left(platform) == {"timed.log", "released.log"}
    with platform.service() as service:
        assert service.records.release(number)
        assert not service.records.release(number)
    platform.clock.advance(days=1.99)
    clean(platform)
    assert left(platform) == {"timed.log"}
    platform.clock.advance(days=0.02)
    clean(platform)
    assert left(platform) == set()


def test_a_hold_says_who_placed_it_when_and_why(platform: Platform) -> None:
    with platform.service() as service:
        service.records.hold("/data//x/./y/", "audit 2026", "alice", data_type="dbt_logs", pipeline="sales")
        (listed,) = service.records.holds()
    assert (listed.hold.pattern, listed.hold.reason, listed.placed_by) == ("/data/x/y", "audit 2026", "alice")
    assert (listed.hold.data_type, listed.hold.pipeline, listed.hold.until_ns) == ("dbt_logs", "sales", None)
    assert abs((listed.placed_ns or 0) - time.time_ns()) < 60 * 10**9


def test_a_hold_wins_over_a_reviewed_plan(platform: Platform) -> None:
    garbage(platform)
    plan = platform.dry().run.request.run_id
    with platform.service() as service:
        service.records.hold("**", "audit", "alice", pipeline="stock")
    apply(platform, plan, cleanup_type=EMERGENCY)
    assert left(platform) == {"operation_stock.json"}


@pytest.mark.parametrize("name", ["new\nline", "back\\slash", "[a-z]*?", "\udcff", "\u202egpj", "{a,b}", "!x", "~"])
def test_a_file_of_any_name_is_held_by_the_name_that_is_shown(platform: Platform, name: str) -> None:
    platform.log(name, 31, "hostile")
    platform.log("1.log", 31)
    verdicts = platform.dry().plans["logs"].largest
    (shown,) = {verdict.candidate.path for verdict in verdicts} - {"1.log"}
    with platform.service() as service:
        service.records.hold(f"{platform.logs}/{shown}", "audit", "alice")
    clean(platform)
    assert os.listdir(platform.logs) == [name]  # noqa: PTH208 names that are not UTF-8


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("logs/a", "matches no absolute path; begin it with / or \\*\\*"),
        ("", "matches no absolute path"),
        ("*", "matches no absolute path"),
        ("~/logs", "matches no absolute path"),
        (" /logs", "matches no absolute path"),
        ("/logs/../etc", "holds '..', which no recorded path does; write where it leads"),
        ("/..", "holds '..'"),
        ("/logs/new\nline", "holds a character that paths show as an escape"),
        ("/logs/\x1b[31m", "as an escape"),
        ("/logs/\u202e", "as an escape"),
        ("/logs/\udcff", "as an escape"),
        ("/logs/\0", "as an escape"),
        ("/**/a/**/b/**/c/**", "holds more than 3 \\*\\*, which takes seconds for a deep path"),
        ("/data/*a*a*a*b", "holds more than 3 \\* in one name, which takes seconds for a long one"),
    ],
)
def test_a_pattern_that_could_protect_nothing_is_refused(platform: Platform, pattern: str, why: str) -> None:
    with platform.service() as service:
        with pytest.raises(InvalidHold, match=why):
            service.records.hold(pattern, "audit", "alice")
        assert service.records.holds() == []


@pytest.mark.parametrize(
    "pattern", ["/data/..hidden", "/data/a..b", "/data/.", "/data/x.", "/**/a/**/b/**", "**/**/**"]
)
def test_dots_and_a_few_stars_are_nothing_special(platform: Platform, pattern: str) -> None:
    with platform.service() as service:
        service.records.hold(pattern, "audit", "alice")


def test_the_worst_pattern_that_is_taken_matches_a_deep_path_in_time() -> None:
    deep = "/data" + "/aaaaaaaaaaaa" * 60
    pattern = compile_pattern(normalise_pattern("/data/**/a*/**/a*/**/a*/b"))
    began = time.process_time()
    assert pattern.match(deep) is None
    assert time.process_time() - began < 3
