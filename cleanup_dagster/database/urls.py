"""Database URLs: read, normalised, and described without their password."""

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from cleanup_dagster.database.errors import DatabaseUnavailable

_POSTGRES = frozenset({"postgres", "postgresql", "postgresql+psycopg2"})
_SQLITE = frozenset({"sqlite", "sqlite+pysqlite"})
_WANTED = "postgresql://user:password@host:port/database or sqlite:////absolute/path.db"


def read_url(text: str | URL) -> URL:
    """Return the URL with its driver named, so that SQLAlchemy 2.1 will not take psycopg 3 for a bare `postgresql://`.

    A password in the query moves to where SQLAlchemy hides it. Raises DatabaseUnavailable, without echoing the text,
    when it is no URL of a supported database.
    """
    url = _parsed(text)
    if url is None:
        raise DatabaseUnavailable(f"the database URL cannot be read; write it as {_WANTED}")
    if url.drivername in _SQLITE:
        return _sqlite(url)
    if url.drivername not in _POSTGRES:
        raise DatabaseUnavailable(f"the database URL names the driver {url.drivername!r}; only {_WANTED} are supported")
    if "@" in f"{url.host}{url.database}":
        # A password with a bare @ was cut in two, and its end would be shown as a host's name.
        raise DatabaseUnavailable("the database URL has more than one @; percent-encode the password's as %40")
    password = url.query.get("password")
    if isinstance(password, str):
        url = url.difference_update_query(["password"]).set(password=url.password or password)
    return url.set(drivername="postgresql+psycopg2")


def _parsed(text: str | URL) -> URL | None:
    try:
        return make_url(text)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number, which may be part of a password
        return None


def _sqlite(url: URL) -> URL:
    if url.query:
        raise DatabaseUnavailable("the SQLite URL carries options after '?', and none are supported; remove them")
    if url.database in {None, "", ":memory:"}:
        raise DatabaseUnavailable("the SQLite URL names no file; policies and audit must outlive the process")
    return url.set(drivername="sqlite+pysqlite", database=str(Path(str(url.database)).absolute()))


def host_of(url: URL) -> str:
    """Return the Postgres server of `url` as `host:port`; a socket directory or a host in the query counts too."""
    return f"{url.host or _option(url, 'host') or 'localhost'}:{url.port or _option(url, 'port') or 5432}"


def _option(url: URL, name: str) -> str:
    return ",".join(url.normalized_query.get(name, ()))


def describe(url: URL) -> str:
    """Return what a person calls this database: its file, or its name, host and port."""
    if url.drivername in _SQLITE:
        return f"the SQLite file {url.database}"
    return f"the Postgres database {url.database or url.username or ''!r} at {host_of(url)}"
