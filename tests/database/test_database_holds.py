from typing import Any

import pytest
from database_helpers import NOW, ask, run_sql
from sqlalchemy import Engine

from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.holds import InvalidHold, add_hold, load_holds, remove_hold
from cleanup_dagster.retention.holds import HoldMatcher
from cleanup_dagster.retention.models import Hold


def load(engine: Engine) -> list[Hold]:
    with reading(engine) as conn:
        return load_holds(conn)


def place(engine: Engine, pattern: str = "/data/**", **more: Any) -> int:
    with engine.begin() as conn:
        return add_hold(conn, pattern=pattern, reason="audit", placed_by="ada", now_ns=NOW, **more)


def test_holds_are_loaded_as_placed_expired_ones_too(engine: Engine) -> None:
    first = place(engine)
    second = place(engine, "/data/*.log", data_type="dbt_logs", pipeline="daily", until_ns=NOW + 1_000)
    assert load(engine) == [
        Hold(first, "/data/**", "audit"),
        Hold(second, "/data/*.log", "audit", "dbt_logs", "daily", NOW + 1_000),
    ]
    assert ask(engine, "SELECT placed_by FROM cleanup_holds") == [("ada",), ("ada",)]


def test_a_removed_hold_is_gone_and_its_id_is_not_reused(engine: Engine) -> None:
    first = place(engine)
    with engine.begin() as conn:
        assert remove_hold(conn, first) is True
        assert remove_hold(conn, first) is False
    assert load(engine) == []
    assert place(engine) > first


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pattern": "data/*.log"}, "matches no absolute path; begin it with / or"),
        ({"pattern": ""}, "matches no absolute path"),
        ({"until_ns": NOW}, "which has passed; name a later moment"),
        ({"data_type": "complete_operations"}, "there is no data type 'complete_operations'; use one of .*dbt_logs"),
    ],
)
def test_a_hold_that_would_protect_nothing_is_refused(engine: Engine, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidHold, match=message):
        place(engine, **wrong)
    assert load(engine) == []


def test_a_hold_on_a_data_type_of_the_peoples_own_is_taken(engine: Engine) -> None:
    run_sql(engine, "INSERT INTO cleanup_policies (data_type, retention_days, enabled) VALUES ('reports', 12, true)")
    place(engine, data_type="reports")
    assert [hold.data_type for hold in load(engine)] == ["reports"]


def test_a_hand_written_hold_needs_only_a_pattern(engine: Engine) -> None:
    run_sql(engine, "INSERT INTO cleanup_holds (pattern, data_type, pipeline) VALUES ('/data', '', '')")
    (hold,) = load(engine)
    assert (hold.pattern, hold.data_type, hold.pipeline, hold.until_ns) == ("/data", None, None, None)
    assert HoldMatcher([hold], "/data", NOW).first_match("a.log", "dbt_logs", None) == hold


@pytest.mark.parametrize("until", ["next week", "", "31.12.2099"])
def test_an_end_that_nobody_can_read_is_no_end(sqlite_engine: Engine, until: str) -> None:
    run_sql(sqlite_engine, f"INSERT INTO cleanup_holds (pattern, until) VALUES ('/data', '{until}')")  # noqa: S608
    assert [hold.until_ns for hold in load(sqlite_engine)] == [None]


def test_a_hand_written_end_in_sqlite_is_utc_unless_it_says_otherwise(sqlite_engine: Engine) -> None:
    for until in ("2026-01-31 12:00:00", "2026-01-31T14:00:00+02:00", "2026-01-31T12:00:00Z"):
        run_sql(sqlite_engine, f"INSERT INTO cleanup_holds (pattern, until) VALUES ('/data', '{until}')")  # noqa: S608
    assert [hold.until_ns for hold in load(sqlite_engine)] == [1_769_860_800_000_000_000] * 3


def test_infinity_in_postgres_is_far_away(postgres_engine: Engine) -> None:
    run_sql(postgres_engine, "INSERT INTO cleanup_holds (pattern, until) VALUES ('/data', 'infinity')")
    (hold,) = load(postgres_engine)
    assert HoldMatcher([hold], "/data", 10 * NOW).first_match("a.log", "dbt_logs", None) == hold
