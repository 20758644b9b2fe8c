import socket
import stat
import time
import traceback
from collections.abc import Generator
from pathlib import Path

import pytest
from database_helpers import ask, run_sql
from sqlalchemy import URL, Engine, create_engine, func, select
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.pool import NullPool

from cleanup_dagster.database.clock import database_now_ns
from cleanup_dagster.database.engine import open_engine, reading
from cleanup_dagster.database.errors import DatabaseUnavailable
from cleanup_dagster.database.problems import connect_problem
from cleanup_dagster.database.schema import require_current, upgrade
from cleanup_dagster.database.urls import read_url
from cleanup_dagster.retention.models import NS_PER_SECOND

SECRET = "p@ss w0rd/äöü"  # noqa: S105 - opens nothing


def failure(engine: Engine) -> str:
    """Return the message of the failing connection, having looked for leaks in everything that comes with it."""
    with pytest.raises(DatabaseUnavailable) as caught:
        require_current(engine)
    engine.dispose()
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    for leak in (SECRET, read_url(engine.url).render_as_string(hide_password=False)):
        assert leak not in "".join(traceback.format_exception(error))
    message = str(error)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_a_postgres_url_always_names_its_driver(scheme: str) -> None:
    assert read_url(f"{scheme}://u:x@db:5433/dagster").drivername == "postgresql+psycopg2"


def test_the_password_of_a_url_is_never_shown() -> None:
    engine = open_engine(f"postgresql://dagster@db/dagster?password={SECRET}")
    assert SECRET not in repr(engine)
    assert engine.url.password == SECRET


@pytest.mark.parametrize(
    "text",
    [
        f"{SECRET}",
        f"postgresql://u:{SECRET}:x@h:{SECRET}/db",
        f"mysql://u:{SECRET}@h/db",
        f"sqlite:///x.db?key={SECRET}",
        "sqlite://",
        "sqlite:///:memory:",
        "",
    ],
)
def test_an_unusable_url_is_refused_without_echoing_it(text: str) -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        open_engine(text)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_server_that_is_down_is_named_with_what_to_do() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    url = URL.create("postgresql", "dagster", SECRET, "127.0.0.1", port, "platform")
    assert failure(open_engine(url)) == (
        f"nothing answers for the Postgres database 'platform' at 127.0.0.1:{port}; "
        "start the database, or correct host and port"
    )


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        url = URL.create("postgresql", "dagster", SECRET, "127.0.0.1", mute.getsockname()[1], "platform")
        assert "did not answer" in failure(open_engine(url.update_query_dict({"connect_timeout": "2"})))


def test_an_unknown_host_is_named() -> None:
    message = failure(
        open_engine(URL.create("postgresql", "dagster", SECRET, "no.such.host.invalid", 5433, "platform"))
    )
    assert "no.such.host.invalid:5433" in message


@pytest.fixture
def guarded_url(postgres_url: URL) -> Generator[URL]:
    """A database whose user `guarded` needs the password `right`."""
    admin = create_engine(postgres_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    hba = Path(str(ask(admin, "SHOW hba_file")[0][0]))
    before = hba.read_text()
    run_sql(admin, "CREATE ROLE guarded LOGIN PASSWORD 'right'")
    hba.write_text(f"local all guarded scram-sha-256\nlocal all barred reject\n{before}")
    run_sql(admin, "SELECT pg_reload_conf()")
    yield postgres_url.set(username="guarded")
    hba.write_text(before)
    run_sql(admin, "SELECT pg_reload_conf()", "DROP ROLE guarded")


def test_a_wrong_password_is_said_and_not_shown(guarded_url: URL) -> None:
    message = failure(open_engine(guarded_url.set(password=SECRET)))
    assert "refused the password of user 'guarded'" in message
    assert "correct it in the database URL or CLEANUP_DB_PASSWORD" in message
    assert str(guarded_url.database) in message
    assert "wants a password for user 'guarded'" in failure(open_engine(guarded_url))


def test_the_right_password_opens(guarded_url: URL) -> None:
    engine = open_engine(guarded_url.set(password="right"))  # noqa: S106 - of a server that lives for this test
    assert ask(engine, "SELECT current_user") == [("guarded",)]
    engine.dispose()


def test_a_user_from_a_forbidden_place_is_told_about_pg_hba(guarded_url: URL) -> None:
    assert "pg_hba.conf" in failure(open_engine(guarded_url.set(username="barred", password=SECRET)))


def test_a_missing_database_and_a_missing_user_are_named(postgres_url: URL) -> None:
    message = failure(open_engine(postgres_url.set(database="nowhere")))
    assert "has no database 'nowhere'; create it with createdb" in message
    assert "has no user 'nobody'" in failure(open_engine(postgres_url.set(username="nobody")))


def test_an_unforeseen_error_is_passed_on_without_the_password() -> None:
    url = URL.create("postgresql+psycopg2", "u", SECRET, "h", 1, "d")
    told = connect_problem(url, RuntimeError(f"odd: password={SECRET} and\np%40ss%20w0rd/%C3%A4%C3%B6%C3%BC"))
    assert told == "the Postgres database 'd' at h:1 cannot be opened: odd: password=*** and ***"


def test_a_missing_right_is_said(guarded_url: URL, postgres_url: URL) -> None:
    upgrade(open_engine(postgres_url))
    engine = open_engine(guarded_url.set(password="right"))  # noqa: S106 - of a server that lives for this test
    with pytest.raises(DatabaseUnavailable, match="denies user 'guarded' a right"):
        ask(engine, "SELECT * FROM cleanup_policies")
    engine.dispose()


def test_a_connection_lost_in_mid_work_is_unavailability(postgres_engine: Engine, postgres_url: URL) -> None:
    admin = create_engine(postgres_url.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with postgres_engine.connect() as conn:
        pid = conn.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        run_sql(admin, f"SELECT pg_terminate_backend({pid}, 5000)")
        with pytest.raises(DatabaseUnavailable, match="closed the connection"):
            conn.exec_driver_sql("SELECT 1")
    assert ask(postgres_engine, "SELECT 1") == [(1,)]  # and the pool is well again


def test_a_postgres_session_is_utc_named_durable_and_patient(postgres_url: URL) -> None:
    admin = create_engine(postgres_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    database = postgres_url.database
    run_sql(
        admin,
        f"ALTER DATABASE {database} SET timezone = 'Asia/Tokyo'",
        f"ALTER DATABASE {database} SET synchronous_commit = off",
    )
    engine = open_engine(postgres_url)
    settings = ("TimeZone", "application_name", "synchronous_commit", "tcp_keepalives_idle")
    assert [ask(engine, f"SHOW {name}")[0][0] for name in settings][:3] == ["UTC", "cleanup_dagster", "on"]
    with engine.connect() as conn, pytest.raises(ProgrammingError):
        conn.exec_driver_sql("nonsense")  # an error in a statement stays what it is
    assert [ask(engine, f"SHOW {name}")[0][0] for name in settings][:3] == ["UTC", "cleanup_dagster", "on"]
    engine.dispose()


def test_a_stricter_server_setting_stays(postgres_url: URL) -> None:
    admin = create_engine(postgres_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    run_sql(admin, f"ALTER DATABASE {postgres_url.database} SET synchronous_commit = remote_apply")
    engine = open_engine(postgres_url)
    assert ask(engine, "SHOW synchronous_commit") == [("remote_apply",)]
    engine.dispose()


def test_a_sqlite_connection_is_durable_strict_and_patient(sqlite_engine: Engine) -> None:
    pragmas = ("synchronous", "foreign_keys", "recursive_triggers", "busy_timeout", "journal_mode")
    assert [ask(sqlite_engine, f"PRAGMA {name}")[0][0] for name in pragmas] == [3, 1, 1, 10_000, "delete"]


def test_a_sqlite_file_is_private_and_never_made_by_looking(sqlite_url: URL) -> None:
    path = Path(str(sqlite_url.database))
    engine = open_engine(sqlite_url)
    with pytest.raises(DatabaseUnavailable, match="check that it exists"):
        ask(engine, "SELECT 1")
    assert not path.exists()
    upgrade(engine)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_existing_sqlite_file_keeps_its_mode(sqlite_url: URL) -> None:
    path = Path(str(sqlite_url.database))
    path.touch(0o640)
    upgrade(open_engine(sqlite_url))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["a?mode=ro.db", "b#c.db", "d%20e.db", "f g.db", "ü.db", "\udcff.db"])
def test_any_file_name_is_taken_literally(tmp_path: Path, name: str) -> None:
    engine = open_engine(URL.create("sqlite", database=str(tmp_path / name)))
    upgrade(engine)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_relative_sqlite_path_is_pinned_when_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_engine("sqlite:///x.db").url.database == str(tmp_path / "x.db")


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir or Madam, " * 100)
    engine = open_engine(f"sqlite:///{path}")
    assert failure(engine) == (
        f"the SQLite file {path} holds something that is not a database; move it away or correct the path"
    )


def test_a_directory_that_cannot_hold_the_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="cannot be created: No such file or directory") as caught:
        upgrade(open_engine(f"sqlite:///{tmp_path}/none/x.db"))
    assert caught.value.__context__ is None


def test_a_locked_file_is_unavailable_after_the_timeout(sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cleanup_dagster.database.engine.BUSY_SECONDS", 0.2)
    with sqlite_engine.begin(), pytest.raises(DatabaseUnavailable, match="was locked by another process"):
        run_sql(sqlite_engine, "SELECT 1")


def test_a_replaced_file_is_noticed(sqlite_engine: Engine) -> None:
    Path(str(sqlite_engine.url.database)).unlink()
    with pytest.raises(DatabaseUnavailable):
        ask(sqlite_engine, "SELECT 1")


def test_reading_can_change_nothing(engine: Engine) -> None:
    with reading(engine) as conn, pytest.raises(DatabaseUnavailable, match=r"cannot be written|takes no changes"):
        conn.exec_driver_sql("UPDATE cleanup_policies SET retention_days = 1")
    run_sql(engine, "UPDATE cleanup_policies SET retention_days = 3")  # and the next transaction may write again
    with reading(engine) as conn:
        assert conn.exec_driver_sql("SELECT DISTINCT retention_days FROM cleanup_policies").scalars().all() == [3]


def test_reading_does_not_wait_for_another_reader(sqlite_engine: Engine) -> None:
    before = time.monotonic()
    with reading(sqlite_engine) as first, reading(sqlite_engine) as second:
        assert [conn.execute(select(func.count())).scalar_one() for conn in (first, second)] == [1, 1]
    assert time.monotonic() - before < 5


def test_a_sqlite_transaction_is_whole_even_for_ddl(sqlite_engine: Engine) -> None:
    with pytest.raises(OperationalError, match="syntax error"):
        run_sql(sqlite_engine, "CREATE TABLE half (id INTEGER)", "nonsense")
    assert ask(sqlite_engine, "SELECT name FROM sqlite_master WHERE name = 'half'") == []


def test_only_postgres_has_a_clock_of_its_own(engine: Engine) -> None:
    with engine.connect() as conn:
        first = database_now_ns(conn)
        time.sleep(0.01)
        second = database_now_ns(conn)
    if engine.dialect.name == "sqlite":
        assert (first, second) == (None, None)
    else:
        assert first is not None
        assert second is not None
        assert abs(first - time.time_ns()) < 60 * NS_PER_SECOND
        assert second - first >= 10_000_000  # not the transaction's frozen now()
