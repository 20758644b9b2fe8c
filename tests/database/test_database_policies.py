import json
from typing import Any

import pytest
from database_helpers import ask, run_sql
from sqlalchemy import Engine, insert, select

from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.policies import (
    InvalidPolicy,
    PolicyChanged,
    PolicyRow,
    UnknownDataType,
    change_policy,
    list_policies,
    load_policies,
    reset_policies,
)
from cleanup_dagster.database.tables import cleanup_policies
from cleanup_dagster.retention.defaults import DATA_TYPES, DEFAULT_POLICIES
from cleanup_dagster.retention.models import Policy, PolicyProblem

DAYS = "set a whole number of days from 1 to 36500"


def load(engine: Engine) -> dict[str, Policy | PolicyProblem]:
    with reading(engine) as conn:
        return load_policies(conn)


def view(engine: Engine, data_type: str) -> PolicyRow:
    with reading(engine) as conn:
        return next(row for row in list_policies(conn) if row.data_type == data_type)


def changes(engine: Engine) -> list[tuple[Any, ...]]:
    rows = ask(engine, "SELECT data_type, changed_by, action, old, new FROM cleanup_policy_changes ORDER BY id")
    return [(*row[:3], row[3] and json.loads(row[3]), json.loads(row[4])) for row in rows]


def test_a_hand_written_row_needs_three_values(engine: Engine) -> None:
    run_sql(
        engine,
        "INSERT INTO cleanup_policies (data_type, retention_days, enabled) VALUES ('reports', 12, true)",
    )
    assert load(engine)["reports"] == Policy("reports", 12, True)
    row = view(engine, "reports")
    assert row.created_ns is not None
    assert row.problem is None


def test_one_statement_stops_everything(engine: Engine) -> None:
    run_sql(engine, "UPDATE cleanup_policies SET enabled = false")
    policies = [policy for policy in load(engine).values() if isinstance(policy, Policy)]
    assert [policy.enabled for policy in policies] == [False] * len(DATA_TYPES)


EITHER = [
    ("retention_days = NULL", f"retention_days is NULL; {DAYS}"),
    ("retention_days = -1", f"retention_days is -1; {DAYS}"),
    ("retention_days = 0", f"retention_days is 0; {DAYS}"),
    ("retention_days = 36501", f"retention_days is 36501; {DAYS}"),
    ("enabled = NULL", "enabled is NULL; set true or false (in SQLite 1 or 0)"),
    ("keep_last = -1", "keep_last is -1; set a whole number from 0 to 2147483647"),
]
SQLITE = [
    ("retention_days = 'thirty'", f"retention_days is 'thirty'; {DAYS}"),
    ("retention_days = 30.5", f"retention_days is 30.5; {DAYS}"),
    ("retention_days = ''", f"retention_days is ''; {DAYS}"),
    ("retention_days = x'3330'", f"retention_days is b'30'; {DAYS}"),
    ("retention_days = 9e99", f"retention_days is 9e+99; {DAYS}"),
    ("enabled = 'false'", "enabled is 'false'; set true or false (in SQLite 1 or 0)"),
    ("enabled = 2", "enabled is 2; set true or false (in SQLite 1 or 0)"),
    ("enabled = 0.5", "enabled is 0.5; set true or false (in SQLite 1 or 0)"),
    ("keep_last = 'all'", "keep_last is 'all'; set a whole number from 0 to 2147483647"),
    ("keep_last = 1.5", "keep_last is 1.5; set a whole number from 0 to 2147483647"),
]


def assert_problem(engine: Engine, assignment: str, message: str) -> None:
    run_sql(engine, f"UPDATE cleanup_policies SET {assignment} WHERE data_type = 'dbt_logs'")  # noqa: S608
    found = load(engine)
    assert found["dbt_logs"] == PolicyProblem("dbt_logs", message)
    assert view(engine, "dbt_logs").problem == message
    others = [policy for name, policy in found.items() if name != "dbt_logs"]
    assert all(isinstance(policy, Policy) for policy in others)  # one bad row spoils no other


@pytest.mark.parametrize(("assignment", "message"), EITHER)
def test_a_row_that_cannot_be_obeyed_is_a_problem(engine: Engine, assignment: str, message: str) -> None:
    assert_problem(engine, assignment, message)


@pytest.mark.parametrize(("assignment", "message"), SQLITE)
def test_what_only_sqlite_lets_people_write_is_a_problem_too(
    sqlite_engine: Engine, assignment: str, message: str
) -> None:
    assert_problem(sqlite_engine, assignment, message)


def test_a_missing_keep_last_is_a_problem_where_a_hand_made_table_allows_it(postgres_engine: Engine) -> None:
    run_sql(postgres_engine, "ALTER TABLE cleanup_policies ALTER keep_last DROP NOT NULL")
    assert_problem(postgres_engine, "keep_last = NULL", "keep_last is NULL; set a whole number from 0 to 2147483647")


def test_other_column_types_of_a_hand_made_postgres_table(postgres_engine: Engine) -> None:
    run_sql(
        postgres_engine,
        "ALTER TABLE cleanup_policies ALTER retention_days TYPE numeric",
        "ALTER TABLE cleanup_policies ALTER enabled TYPE integer USING enabled::integer",
    )
    found = load(postgres_engine)["dbt_logs"]
    assert found == PolicyProblem("dbt_logs", f"retention_days is Decimal('7'); {DAYS}")


def test_a_bad_row_is_shown_without_the_bad_value(sqlite_engine: Engine) -> None:
    run_sql(
        sqlite_engine,
        "UPDATE cleanup_policies SET retention_days = 'x', enabled = 'y', keep_last = 'z', updated_at = 'yesterday',"
        " created_at = '2026-01-31T12:00:00+02:00' WHERE data_type = 'dbt_logs'",
    )
    row = view(sqlite_engine, "dbt_logs")
    assert (row.retention_days, row.enabled, row.keep_last, row.updated_ns) == (None, None, None, None)
    assert row.created_ns == 1_769_853_600_000_000_000


def test_rows_come_in_the_defaults_order_then_by_name(engine: Engine) -> None:
    run_sql(
        engine,
        "INSERT INTO cleanup_policies (data_type, retention_days, enabled) VALUES ('zoo', 1, true), ('ants', 1, true)",
    )
    with reading(engine) as conn:
        assert [row.data_type for row in list_policies(conn)] == [*DATA_TYPES, "ants", "zoo"]


def test_a_change_is_written_and_recorded(engine: Engine) -> None:
    before = view(engine, "dbt_logs")
    with engine.begin() as conn:
        row = change_policy(conn, "dbt_logs", retention_days=10, enabled=False, keep_last=2, changed_by="ada")
    assert (row.retention_days, row.enabled, row.keep_last) == (10, False, 2)
    assert load(engine)["dbt_logs"] == Policy("dbt_logs", 10, False, 2, "dbt logs and artifacts")
    assert row.updated_ns is not None
    assert before.updated_ns is not None
    assert row.updated_ns > before.updated_ns
    assert row.created_ns == before.created_ns
    assert changes(engine) == [
        (
            "dbt_logs",
            "ada",
            "change",
            {"retention_days": 7, "enabled": True, "keep_last": 0},
            {"retention_days": 10, "enabled": False, "keep_last": 2},
        )
    ]


def test_what_is_not_given_stays(engine: Engine) -> None:
    with engine.begin() as conn:
        row = change_policy(conn, "temp_files", keep_last=0, retention_days=4, changed_by="ada")
    assert (row.retention_days, row.enabled, row.keep_last) == (4, True, 0)


def test_a_change_to_the_same_values_is_no_change(engine: Engine) -> None:
    before = view(engine, "dbt_logs")
    with engine.begin() as conn:
        assert change_policy(conn, "dbt_logs", retention_days=7, enabled=True, changed_by="ada") == before
    assert changes(engine) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "nothing to change"),
        ({"retention_days": 0}, "retention_days is 0"),
        ({"retention_days": 36_501}, "retention_days is 36501"),
        ({"retention_days": True}, "retention_days is True"),
        ({"retention_days": 7.0}, "retention_days is 7.0"),
        ({"retention_days": "7"}, "retention_days is '7'"),
        ({"enabled": 1}, "enabled is 1"),
        ({"keep_last": -1}, "keep_last is -1"),
        ({"keep_last": 2**31}, "keep_last is 2147483648"),
        ({"retention_days": 9, "keep_last": -1}, "keep_last is -1"),
    ],
)
def test_a_change_out_of_bounds_is_refused_whole(engine: Engine, values: dict[str, Any], message: str) -> None:
    before = load(engine)
    with engine.begin() as conn, pytest.raises(InvalidPolicy, match=message):
        change_policy(conn, "dbt_logs", **values, changed_by="ada")
    assert load(engine) == before
    assert changes(engine) == []


def test_unknown_and_deleted_data_types_are_told_apart(engine: Engine) -> None:
    run_sql(engine, "DELETE FROM cleanup_policies WHERE data_type = 'temp_files'")
    with engine.begin() as conn:
        with pytest.raises(UnknownDataType, match="no policy for the data type 'dbt'; there are: pipeline_operations,"):
            change_policy(conn, "dbt", enabled=True, changed_by="ada")
        with pytest.raises(UnknownDataType, match="`policies reset` brings it back"):
            change_policy(conn, "temp_files", enabled=True, changed_by="ada")


def test_a_broken_row_can_be_disabled_or_mended_but_not_enabled(engine: Engine) -> None:
    run_sql(engine, "UPDATE cleanup_policies SET retention_days = NULL WHERE data_type = 'dbt_logs'")
    with engine.begin() as conn:
        with pytest.raises(InvalidPolicy, match="dbt_logs cannot be enabled: retention_days is NULL"):
            change_policy(conn, "dbt_logs", enabled=True, changed_by="ada")
        assert change_policy(conn, "dbt_logs", enabled=False, changed_by="ada").enabled is False
        row = change_policy(conn, "dbt_logs", enabled=True, retention_days=7, changed_by="ada")
    assert row.problem is None
    assert changes(engine)[-1][3] == {"retention_days": None, "enabled": False, "keep_last": 0}


def test_reset_brings_back_what_was_changed_broken_or_deleted(engine: Engine) -> None:
    run_sql(
        engine,
        "DELETE FROM cleanup_policies WHERE data_type = 'temp_files'",
        "UPDATE cleanup_policies SET retention_days = NULL WHERE data_type = 'dbt_logs'",
        "UPDATE cleanup_policies SET enabled = true WHERE data_type = 'dagster_runs'",
        "INSERT INTO cleanup_policies (data_type, retention_days, enabled) VALUES ('reports', 12, true)",
    )
    with engine.begin() as conn:
        assert reset_policies(conn, "ada") == ["dbt_logs", "temp_files", "dagster_runs"]
        assert reset_policies(conn, "ada") == []
    expected = {policy.data_type: policy for policy in DEFAULT_POLICIES}
    assert load(engine) == expected | {"reports": Policy("reports", 12, True)}
    assert [change[:3] for change in changes(engine)] == [
        ("dbt_logs", "ada", "reset"),
        ("temp_files", "ada", "reset"),
        ("dagster_runs", "ada", "reset"),
    ]
    assert [change[3] for change in changes(engine)] == [
        {"retention_days": None, "enabled": True, "keep_last": 0},
        None,
        {"retention_days": 90, "enabled": True, "keep_last": 0},
    ]


def test_reset_mends_a_number_that_is_equal_but_of_the_wrong_type(sqlite_engine: Engine) -> None:
    # A table without declared types, as people make them in SQLite, keeps 7.0 as it is.
    run_sql(
        sqlite_engine,
        "ALTER TABLE cleanup_policies RENAME TO old",
        "CREATE TABLE cleanup_policies (data_type TEXT PRIMARY KEY, retention_days, enabled, keep_last, description,"
        " created_at, updated_at)",
        "INSERT INTO cleanup_policies SELECT * FROM old",
        "UPDATE cleanup_policies SET retention_days = 7.0 WHERE data_type = 'dbt_logs'",
    )
    assert isinstance(load(sqlite_engine)["dbt_logs"], PolicyProblem)
    with sqlite_engine.begin() as conn:
        assert reset_policies(conn, "ada") == ["dbt_logs"]
    assert load(sqlite_engine)["dbt_logs"] == DEFAULT_POLICIES[1]


def test_a_typed_read_of_the_same_table_still_works(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(insert(cleanup_policies).values(data_type="x", retention_days=1, enabled=True))
        chosen = select(cleanup_policies.c.enabled).where(cleanup_policies.c.data_type == "x")
        assert conn.execute(chosen).scalar_one() is True


def test_a_version_tells_whether_somebody_else_changed_what_decides(engine: Engine) -> None:
    seen = view(engine, "dbt_logs").version
    run_sql(engine, "UPDATE cleanup_policies SET description = 'ours' WHERE data_type = 'dbt_logs'")
    assert view(engine, "dbt_logs").version == seen
    with engine.begin() as conn:
        mine = change_policy(conn, "dbt_logs", retention_days=9, changed_by="alice", versions={seen})
    assert (mine.retention_days, mine.version == seen) == (9, False)
    for statement in ("keep_last = 2", "enabled = false", "retention_days = 10", "retention_days = NULL"):
        before = view(engine, "dbt_logs").version
        run_sql(engine, f"UPDATE cleanup_policies SET {statement} WHERE data_type = 'dbt_logs'")  # noqa: S608
        with (
            pytest.raises(PolicyChanged, match="changed by somebody else meanwhile; now ") as told,
            engine.begin() as conn,
        ):
            change_policy(conn, "dbt_logs", retention_days=11, changed_by="bob", versions={before})
        assert told.value.row == view(engine, "dbt_logs")
    assert [change[1] for change in changes(engine)] == ["alice"]
