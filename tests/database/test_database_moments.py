from datetime import datetime, timedelta, timezone

import pytest
from database_helpers import run_sql
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, insert, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import StatementError

from cleanup_dagster.database.tables import UtcDateTime, cleanup_installation

MOMENT = datetime(2026, 3, 29, 2, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=45)))
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
AWARE = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=OFFSETS)  # noqa: DTZ001 - bounds take no zone


def test_a_moment_comes_back_as_the_same_moment_in_utc(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(insert(cleanup_installation).values(id="x", created_at=MOMENT))
        found = conn.execute(
            select(cleanup_installation.c.created_at).where(cleanup_installation.c.created_at == MOMENT)
        ).scalar_one()
    assert found == MOMENT
    assert found.tzinfo == timezone.utc


def test_a_moment_without_zone_is_refused(engine: Engine) -> None:
    naive = MOMENT.replace(tzinfo=None)
    with engine.begin() as conn, pytest.raises(StatementError, match="names no time zone"):
        conn.execute(insert(cleanup_installation).values(id="x", created_at=naive))


def test_what_is_no_moment_in_sqlite_is_said(sqlite_engine: Engine) -> None:
    run_sql(sqlite_engine, "UPDATE cleanup_installation SET created_at = 'noon'")
    with sqlite_engine.connect() as conn, pytest.raises(ValueError, match="'noon' in the database is no moment"):
        conn.execute(select(cleanup_installation.c.created_at)).scalar_one()


@given(AWARE, AWARE)
def test_the_order_of_sqlites_texts_is_the_order_of_the_moments(one: datetime, other: datetime) -> None:
    kind, dialect = UtcDateTime(), sqlite.dialect()
    texts = [kind.process_bind_param(moment, dialect) for moment in (one, other)]
    assert (texts[0] < texts[1]) == (one < other)
    assert [kind.process_result_value(text, dialect) for text in texts] == [one, other]
