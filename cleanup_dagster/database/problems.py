"""From a driver's error to one sentence that a person can act upon."""

import re
from urllib.parse import quote

from sqlalchemy import URL

from cleanup_dagster.database.urls import describe, host_of

BUSY_SECONDS = 10
CONNECT_SECONDS = 10

# libpq's connection errors carry no code, so its words must do. The first that matches speaks.
_POSTGRES: tuple[tuple[str, str], ...] = (
    (
        r"password authentication failed",
        "{where} refused the password of user {user!r}; correct it in the database URL or CLEANUP_DB_PASSWORD",
    ),
    (
        r"no password supplied",
        "{where} wants a password for user {user!r}, and none was given; add it to the URL or set CLEANUP_DB_PASSWORD",
    ),
    (
        r"database \".*\" does not exist",
        "the Postgres server at {host} has no database {database!r}; create it with createdb, or correct its name",
    ),
    (
        r"role \".*\" does not exist",
        "the Postgres server at {host} has no user {user!r}; create it with createuser, or correct its name",
    ),
    (r"pg_hba\.conf", "{where} does not admit user {user!r} from this machine; add a line for it to its pg_hba.conf"),
    (
        r"remaining connection slots|too many (clients|connections)",
        "{where} has no connection left; close some, or raise max_connections",
    ),
)

# What passes by itself while a deployment starts; a container that has not started yet has no name either.
_STARTING: tuple[tuple[str, str], ...] = (
    (
        r"starting up|shutting down|not yet accepting|recovery mode",
        "{where} is starting or stopping; try again in a moment",
    ),
    (
        r"could not translate host name|Name or service not known",
        "the host name of {where} is unknown; correct the host or the name service",
    ),
    (
        r"timeout expired|timed out",
        "{where} did not answer within {seconds} seconds; check that it runs and no firewall is between",
    ),
    (
        r"Connection refused|No such file or directory|could not connect|server closed",
        "nothing answers for {where}; start the database, or correct host and port",
    ),
)

_SQLITE: tuple[tuple[str, str], ...] = (
    ("database is locked", "{where} was locked by another process for more than {seconds} seconds; try again"),
    ("readonly database", "{where} cannot be written; check the owner and the mode of the file and its directory"),
    ("unable to open", "{where} cannot be opened; check that it exists and that this user may read and write it"),
    ("not a database", "{where} holds something that is not a database; move it away or correct the path"),
    ("malformed", "{where} is damaged; restore it from a copy"),
    ("disk is full", "{where} cannot grow because its disk is full; free some space"),
    ("disk I/O error", "{where} cannot be read or written because its disk reports errors; check the disk"),
)

_CODES = {
    "42501": "{where} denies user {user!r} a right that is needed; GRANT it, or use the owner of the tables",
    "25006": "{where} takes no changes (a standby, or a read-only transaction); use the primary server",
    "53100": "{where} cannot grow because its disk is full; free some space there",
}


def connect_problem(url: URL, error: BaseException) -> str:
    """Return the sentence for an `error` met while connecting to `url`."""
    if url.get_backend_name() == "sqlite":
        known = sqlite_problem(url, error)
    else:
        known = next((_filled(say, url) for words, say in _POSTGRES + _STARTING if re.search(words, str(error))), None)
    return known or f"{describe(url)} cannot be opened: {_scrubbed(url, error)}"


def may_pass(url: URL, error: BaseException) -> bool:
    """Tell whether an `error` met while connecting to `url` may be over in a moment, because the server starts."""
    if url.get_backend_name() == "sqlite" or any(re.search(words, str(error)) for words, _ in _POSTGRES):
        return False
    return any(re.search(words, str(error)) for words, _ in _STARTING)


def sqlite_problem(url: URL, error: BaseException) -> str | None:
    """Return the sentence for a SQLite `error` that lies in the file and not in the statement, else None."""
    return next((_filled(say, url) for words, say in _SQLITE if words in str(error)), None)


def postgres_problem(url: URL, error: BaseException, is_disconnect: bool) -> str | None:
    """Return the sentence for a Postgres `error` that lies in the server and not in the statement, else None."""
    if is_disconnect and "no answer within" in str(error):
        return (
            f"{describe(url)} took a statement and did not answer: {' '.join(str(error).split())}; look whether the "
            "server hangs or somebody keeps a lock on the tables (pg_stat_activity), then run again"
        )
    if is_disconnect:
        return f"{describe(url)} closed the connection; check that it runs, then run again"
    say = _CODES.get(str(getattr(error, "pgcode", "")))
    return None if say is None else _filled(say, url)


def _filled(sentence: str, url: URL) -> str:
    seconds = BUSY_SECONDS if url.get_backend_name() == "sqlite" else CONNECT_SECONDS
    return sentence.format(
        where=describe(url), host=host_of(url), user=url.username or "", database=url.database or "", seconds=seconds
    )


def _scrubbed(url: URL, error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    secret = str(url.password or "")
    for form in {secret, quote(secret), quote(secret, safe="")} - {""}:
        text = text.replace(form, "***")
    return text
