"""Where the database is said to be, and that nobody sees its password."""

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

from cleanup_dagster.settings import ConfigError, load_settings

SECRET = "s3cret@:/?#%"  # noqa: S105
HIDDEN = "(not shown here, it may hold a password)"
FORMS = "write postgresql+psycopg2://user:password@host:5433/name or sqlite:////absolute/path.db"


def url_of(**environ: str) -> str | None:
    url = load_settings(environ).database_url
    return None if url is None else url.get_secret_value()


def refused(**environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_settings(environ)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    return caught.value.problems


def test_nothing_set_is_the_embedded_database() -> None:
    assert url_of() is None
    assert url_of(CLEANUP_DATABASE_URL="", CLEANUP_DB_PASSWORD="", CLEANUP_DB_HOST="") is None


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"CLEANUP_DB_HOST": "db"}, "postgresql+psycopg2://dagster@db:5433/dagster"),
        ({"CLEANUP_DB_PORT": "1"}, "postgresql+psycopg2://dagster@localhost:1/dagster"),
        ({"CLEANUP_DB_NAME": "n"}, "postgresql+psycopg2://dagster@localhost:5433/n"),
        ({"CLEANUP_DB_USER": "u@v"}, "postgresql+psycopg2://u%40v@localhost:5433/dagster"),
        ({"CLEANUP_DB_HOST": "::1"}, "postgresql+psycopg2://dagster@[::1]:5433/dagster"),
        (
            {"CLEANUP_DB_HOST": "/var/run/pg"},
            "postgresql+psycopg2://dagster@/dagster?host=%2Fvar%2Frun%2Fpg&port=5433",
        ),
        ({"CLEANUP_DATABASE_URL": "sqlite:////x/y.db"}, "sqlite:////x/y.db"),
        ({"CLEANUP_DATABASE_URL": "postgresql://u@h/d"}, "postgresql+psycopg2://u@h/d"),
        ({"CLEANUP_DATABASE_URL": "postgres://u:p%40@h:1/d"}, "postgresql+psycopg2://u:p%40@h:1/d"),
        (
            {"CLEANUP_DATABASE_URL": "postgresql+psycopg2://u@h/d?sslmode=require"},
            "postgresql+psycopg2://u@h/d?sslmode=require",
        ),
    ],
)
def test_what_is_understood(environ: dict[str, str], url: str) -> None:
    assert url_of(**environ) == url


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_any_password_arrives(password: str) -> None:
    url = make_url(url_of(CLEANUP_DB_PASSWORD=password) or "")
    assert url.password == password
    assert (url.drivername, url.username, url.host, url.port, url.database) == (
        "postgresql+psycopg2",
        "dagster",
        "localhost",
        5433,
        "dagster",
    )


def test_the_password_is_never_shown() -> None:
    for environ in (
        {"CLEANUP_DB_PASSWORD": SECRET},
        {"CLEANUP_DATABASE_URL": "postgresql://u:s3cret@h/d?password=s3cret"},
    ):
        settings = load_settings(environ)
        assert settings.database_url is not None
        assert "s3cret" in settings.database_url.get_secret_value()
        for text in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump())):
            assert "s3cret" not in text


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("s3cret", f"is not a database URL; {FORMS}"),
        ("postgresql://u@h:s3cret/d", f"is not a database URL; {FORMS}"),
        ("mysql://u:s3cret@h/d", f"is for another kind of database or driver; {FORMS}"),
        ("postgresql+asyncpg://u:s3cret@h/d", f"is for another kind of database or driver; {FORMS}"),
        ("postgresql://u:s3cret@h", f"names no database; {FORMS}"),
        ("postgresql://u:s3cret@h:99999/d", f"has a port that is not a port from 1 to 65535; {FORMS}"),
        ("sqlite://", "names no SQLite file by an absolute path alone; write sqlite:////absolute/path.db"),
        ("sqlite:///:memory:", "names no SQLite file by an absolute path alone; write sqlite:////absolute/path.db"),
        ("sqlite:///x.db", "names no SQLite file by an absolute path alone; write sqlite:////absolute/path.db"),
        (
            "sqlite:////x.db?mode=ro",
            "names no SQLite file by an absolute path alone; write sqlite:////absolute/path.db",
        ),
    ],
)
def test_refused_urls(url: str, problem: str) -> None:
    assert refused(CLEANUP_DATABASE_URL=url) == (f"CLEANUP_DATABASE_URL: {problem} {HIDDEN}",)


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1", " 1", "1_0", "٣", "1e3", "99999999999"])
def test_refused_ports(port: str) -> None:
    assert refused(CLEANUP_DB_PORT=port, CLEANUP_DB_PASSWORD=SECRET) == (
        f"CLEANUP_DB_PORT: {port!r} is not a port from 1 to 65535",
    )


def test_a_name_that_a_url_cannot_carry() -> None:
    assert refused(CLEANUP_DB_NAME="a?b", CLEANUP_DB_PASSWORD=SECRET) == (
        (
            "CLEANUP_DB_HOST, CLEANUP_DB_NAME: 'localhost' and 'a?b' do not fit into a database URL; "
            "write a host name or an address, and a name of letters, digits, - and _"
        ),
    )


def test_url_and_parts_exclude_each_other() -> None:
    assert refused(
        CLEANUP_DATABASE_URL="postgresql://u:s3cret@h/d", CLEANUP_DB_HOST="h", CLEANUP_DB_PASSWORD=SECRET
    ) == (
        (
            "CLEANUP_DATABASE_URL: is set and so is CLEANUP_DB_HOST, CLEANUP_DB_PASSWORD; "
            "set the URL or its parts, not both"
        ),
    )
