"""What the environment says about a configuration, in the words of `cleanup.yaml`: an empty variable counts as unset.

A value keeps the name of the variable it came from, so that a refusal points to where it can be put right.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from cleanup_dagster.roots import TEMPORARY, path_problem

POSTGRES = "postgresql+psycopg2"
_POSTGRES_NAMES = ("postgres", "postgresql", POSTGRES)
DATABASE_URL = "CLEANUP_DATABASE_URL"
#: Where a variable's value goes in `cleanup.yaml`.
OVERRIDES: Mapping[str, tuple[str, ...]] = {
    "CLEANUP_STATE_DIR": ("state_dir",),
    "CLEANUP_BACKUP_DIR": ("backup", "directory"),
    "CLEANUP_TIMEZONE": ("schedule", "timezone"),
    "CLEANUP_NAIVE_TIMEZONE": ("naive_timezone",),
    "CLEANUP_DATABASE_WAIT_SECONDS": ("database_wait_seconds",),
    "CLEANUP_WEB_HOST": ("web", "host"),
    "CLEANUP_WEB_PORT": ("web", "port"),
    "CLEANUP_WEB_ALLOWED_HOSTS": ("web", "allowed_hosts"),
    "CLEANUP_WEB_TRUSTED_PROXY": ("web", "trusted_proxy"),
    "CLEANUP_WEB_TLS_CERTIFICATE": ("web", "tls_certificate"),
    "CLEANUP_WEB_TLS_KEY": ("web", "tls_key"),
    "DAGSTER_WEBSERVER_URL": ("web", "dagster_url"),
    "DAGSTER_PUBLIC_URL": ("web", "dagster_public_url"),
    "CLEANUP_SCHEDULE_STARTED": ("schedule", "started"),
    "CLEANUP_DISK_PRESSURE_USED_PERCENT": ("disk_pressure", "used_percent"),
    "CLEANUP_DISK_PRESSURE_FREE_BYTES": ("disk_pressure", "free_bytes"),
    "CLEANUP_DISK_PRESSURE_DRY_RUN": ("disk_pressure", "dry_run"),
    "CLEANUP_DISK_PRESSURE_BACKUP_DIR": ("disk_pressure", "backup_directory"),
}
#: Shorter ones could be guessed, even at five attempts a minute.
TOKEN_LENGTH = 24
#: Variables whose text says true or false, and what it means.
SWITCHES = frozenset({"CLEANUP_SCHEDULE_STARTED", "CLEANUP_DISK_PRESSURE_DRY_RUN"})
SWITCH: Mapping[str, bool] = {"true": True, "false": False}
WEBHOOK = "CLEANUP_ALERT_WEBHOOK_URL"
_DATABASE_PARTS = {
    "CLEANUP_DB_HOST": "localhost",
    "CLEANUP_DB_PORT": "5433",
    "CLEANUP_DB_NAME": "dagster",
    "CLEANUP_DB_USER": "dagster",
    "CLEANUP_DB_PASSWORD": "",
}
_OPERATION_FILES = "operation_*.json"
_PORTS = "a port from 1 to 65535"
_URL_FORMS = "postgresql+psycopg2://user:password@host:5433/name or sqlite:////absolute/path.db"


@dataclass(frozen=True)
class DefaultTarget:
    """A target as `cleanup.yaml` would write it, and the variable that asked for it."""

    content: dict[str, Any]
    variable: str | None = None


@dataclass
class Environment:
    """The variables of one process. Whatever is wrong with them collects in `problems`."""

    variables: Mapping[str, str]
    problems: list[str] = field(default_factory=list[str])

    def get(self, name: str) -> str | None:
        """Return the value of `name`, or None when it is unset or empty."""
        return self.variables.get(name) or None

    def dagster_home(self) -> Path | None:
        """Return DAGSTER_HOME as Dagster understands it, or None."""
        return self._directory("DAGSTER_HOME")

    def database_url(self) -> SecretStr | None:
        """Return where the database is, with its driver named, or None for the embedded one."""
        parts = [name for name in _DATABASE_PARTS if self.get(name)]
        url = self.get(DATABASE_URL)
        if url and parts:
            self.problems.append(
                f"{DATABASE_URL}: is set and so is {', '.join(parts)}; set the URL or its parts, not both"
            )
            return None
        if url:
            return self._checked_url(url)
        return self._composed_url() if parts else None

    def token(self, variable: str) -> SecretStr | None:
        """Return a token of the page, or None when it is not set. No message quotes it."""
        text = self.get(variable)
        if text is None:
            return None
        if not re.fullmatch(rf"[!-~]{{{TOKEN_LENGTH},512}}", text):
            self.problems.append(
                f"{variable}: is no token of {TOKEN_LENGTH} to 512 visible characters; make one with "
                "`openssl rand -hex 32` (not shown here, it is a secret)"
            )
            return None
        return SecretStr(text)

    def webhook(self) -> SecretStr | None:
        """Return where alerts are posted, or None. No message quotes it: whoever knows it can post there."""
        text = self.get(WEBHOOK)
        if text is None:
            return None
        if _is_webhook(text):
            return SecretStr(text)
        self.problems.append(
            f"{WEBHOOK}: is not an http or https URL; write https://host/path (not shown here, it may hold a secret)"
        )
        return None

    def default_targets(self) -> list[DefaultTarget]:
        """Return the targets of a configuration that names none."""
        operations = {"name": "operations", "kind": "operations", "root": os.path.realpath(TEMPORARY)}
        found = [DefaultTarget({**operations, "patterns": [_OPERATION_FILES]})]
        project = self._directory("DBT_PROJECT_DIR")
        for name, variable, folder in (
            ("dbt_logs", "DBT_LOG_PATH", "logs"),
            ("dbt_target", "DBT_TARGET_PATH", "target"),
        ):
            if place := self.get(variable):
                if project is None and not place.startswith("/"):
                    self.problems.append(
                        f"{variable}: {place!r} is not an absolute path; write it in full, or set DBT_PROJECT_DIR"
                    )
                    continue
                found.append(_directory_target(name, "dbt_logs", Path(project or "/", place), variable))
            elif project:
                found.append(_directory_target(name, "dbt_logs", project / folder, "DBT_PROJECT_DIR"))
        for data_type in ("system_logs", "temp_files"):
            variable = f"CLEANUP_{data_type.upper()}_DIR"
            if place := self.get(variable):
                found.append(_directory_target(data_type, data_type, place, variable))
        if self.get(
            "DAGSTER_HOME"
        ):  # an instance that keeps its runs; its policy is disabled until somebody enables it
            found.append(DefaultTarget({"name": "dagster_runs", "kind": "dagster_runs"}, "DAGSTER_HOME"))
        return found

    def _directory(self, variable: str) -> Path | None:
        text = self.get(variable)
        if text is None:
            return None
        path = Path(os.path.expanduser(text))  # noqa: PTH111  Path.expanduser raises where there is no home
        if problem := path_problem(str(path)):
            self.problems.append(f"{variable}: {text!r} {problem}")
            return None
        return path

    def _composed_url(self) -> SecretStr | None:
        host, port, name, user, password = (self.get(key) or default for key, default in _DATABASE_PARTS.items())
        if not _is_port(port):
            self.problems.append(f"CLEANUP_DB_PORT: {port!r} is not {_PORTS}")
            return None
        if host.startswith("/"):  # the directory of a Unix socket
            url = URL.create(POSTGRES, user, password or None, database=name, query={"host": host, "port": port})
        else:
            url = URL.create(POSTGRES, user, password or None, host, int(port), name)
        text = url.render_as_string(hide_password=False)
        if not _reads_back(text, url):
            self.problems.append(
                f"CLEANUP_DB_HOST, CLEANUP_DB_NAME: {host!r} and {name!r} do not fit into a database URL; "
                "write a host name or an address, and a name of letters, digits, - and _"
            )
            return None
        return SecretStr(text)

    def _checked_url(self, text: str) -> SecretStr | None:
        """Return the URL when it can be used. No message quotes it: mistyped, its password may stand anywhere."""
        url = _parsed(text)
        problem = f"is not a database URL; write {_URL_FORMS}" if url is None else _url_problem(url)
        if url is None or problem:
            self.problems.append(f"{DATABASE_URL}: {problem} (not shown here, it may hold a password)")
            return None
        named = url.set(drivername=POSTGRES) if url.drivername in _POSTGRES_NAMES else url
        return SecretStr(named.render_as_string(hide_password=False))


def _is_webhook(text: str) -> bool:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return False
    visible = re.fullmatch(r"[!-~]{1,4096}", text) is not None
    return visible and url.scheme in ("http", "https") and bool(url.hostname) and port != 0


def _directory_target(name: str, data_type: str, root: Path | str, variable: str) -> DefaultTarget:
    content: dict[str, Any] = {
        "name": name,
        "kind": "files",
        "data_type": data_type,
        "root": str(Path(root)),
        "optional": True,
    }
    if data_type == "temp_files":
        content["excludes"] = [_OPERATION_FILES]  # /tmp holds both, and operations have policies of their own
    return DefaultTarget(content, variable)


def _is_port(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and 1 <= int(text) <= 65535


def _parsed(text: str) -> URL | None:
    try:
        return make_url(text)
    except (ArgumentError, ValueError):  # a ValueError quotes what it took for the port
        return None


def _reads_back(text: str, url: URL) -> bool:
    return _parsed(text) == url


def _url_problem(url: URL) -> str | None:
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        if url.database and not url.query and not path_problem(url.database):
            return None
        return "names no SQLite file by an absolute path alone; write sqlite:////absolute/path.db"
    if url.drivername not in _POSTGRES_NAMES:
        return f"is for another kind of database or driver; write {_URL_FORMS}"
    if not url.database:
        return f"names no database; write {_URL_FORMS}"
    if url.port is not None and not _is_port(str(url.port)):
        return f"has a port that is not {_PORTS}; write {_URL_FORMS}"
    return None
