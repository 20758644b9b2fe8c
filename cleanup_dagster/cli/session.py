"""One invocation: its options laid over the environment, its database named, its service opened, its result written."""

from __future__ import annotations

import gc
import os
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cleanup_dagster.cli import exits, interrupts
from cleanup_dagster.cli.exits import CliError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from cleanup_dagster.cli.output import Output
    from cleanup_dagster.installation import Installation
    from cleanup_dagster.records import Records
    from cleanup_dagster.service import CleanupService
    from cleanup_dagster.settings import Settings

_URL = "CLEANUP_DATABASE_URL"
#: The options that say where the database is, the variable each stands for, and its default.
DATABASE_OPTIONS = {
    "db_host": ("CLEANUP_DB_HOST", "localhost"),
    "db_port": ("CLEANUP_DB_PORT", "5433"),
    "db_name": ("CLEANUP_DB_NAME", "dagster"),
    "db_user": ("CLEANUP_DB_USER", "dagster"),
    "db_password": ("CLEANUP_DB_PASSWORD", ""),
}


class Session:
    """What every command works with."""

    def __init__(self, command: str, given: Mapping[str, object], out: Output) -> None:
        self.command = command
        self.out = out
        self._given = given
        self._database = ""

    @cached_property
    def settings(self) -> Settings:
        """The configuration. Raises ConfigError. Says, once, which database it means."""
        from cleanup_dagster.settings import ConfigError, load_settings

        overlay(self._given, self.out)
        settings = load_settings()
        home = settings.dagster_home
        if home is not None and settings.state_dir.is_relative_to(home) and not home.is_dir():
            # Made here, one that was mistyped would be a new installation: no holds, and every policy at its default.
            problem = f"DAGSTER_HOME: {str(home)!r} is no directory; make it, or correct the variable"
            raise ConfigError([problem])
        self._database = name_of(settings)
        self.out.note(f"Database: {self._database}")
        return settings

    @contextmanager
    def service(self) -> Generator[CleanupService]:
        """Open the service. Raises what `open_service` does."""
        from cleanup_dagster.bootstrap import open_service

        self.begin()
        with open_service(self.settings) as service:
            yield service

    @contextmanager
    def installation(self) -> Generator[Installation]:
        """Open what records are looked up and changed in. Raises what `open_installation` does."""
        from cleanup_dagster.bootstrap import open_installation

        self.begin()
        with open_installation(self.settings) as installation:
            yield installation

    @contextmanager
    def records(self) -> Generator[Records]:
        """Open the records alone, which is faster than the whole service."""
        from cleanup_dagster.records import Records

        with self.installation() as installation:
            yield Records(installation)

    def begin(self) -> None:
        """Begin: what is needed is imported, from here on it may take a while, and Ctrl-C must settle what it met."""
        gc.enable()
        interrupts.raise_again()

    def changes(self, shown_by: str) -> None:
        """Say that from here on something may be changed, and which command shows whether it was."""
        self.begin()
        self.out.if_interrupted = f"`cleanup-operations {shown_by}` shows what was done"

    def finish(
        self,
        document: Mapping[str, object],
        show: Callable[[], None],
        code: int = exits.DONE,
        rows: tuple[str, Iterable[object]] | None = None,
    ) -> int:
        """Write the result, as JSON or as `show` does it for people, and return the exit code."""
        if self.out.as_json:
            head = {"command": self.command, "exit_code": code, "database": self._database}
            self.out.document({**head, **document}, rows)
        else:
            show()
        return code


def overlay(given: Mapping[str, object], out: Output) -> None:
    """Lay the options over this process's environment, which the settings and the job are read from.

    Raises CliError when they contradict each other.
    """
    if given.get("config") is not None:
        if not given["config"]:
            raise CliError("--config is empty; give a value, or leave the option out")
        os.environ["CLEANUP_CONFIG"] = str(Path(str(given["config"])).absolute())
    chosen = {name: str(given[name]) for name in DATABASE_OPTIONS if given.get(name) is not None}
    if not chosen:
        return
    for name, value in chosen.items():
        if not value and name != "db_password":
            raise CliError(f"{_dashed(name)} is empty; give a value, or leave the option out")
    if os.environ.get(_URL):
        named = " and ".join(map(_dashed, chosen))
        raise CliError(f"{_URL} is set, and so is {named}; unset the variable, or leave the option out")
    if chosen.get("db_password"):
        out.note(
            "Warning: whoever lists this host's processes can read a password on the command line; "
            "set CLEANUP_DB_PASSWORD instead."
        )
    for name, (variable, default) in DATABASE_OPTIONS.items():
        # Each of them, so that one option selects Postgres even when it repeats a default.
        os.environ[variable] = chosen.get(name) or os.environ.get(variable) or default


def _dashed(name: str) -> str:
    return "--" + name.replace("_", "-")


def name_of(settings: Settings) -> str:
    """Return what people call the database that settings mean, without a password. Connects to nothing."""
    if settings.database_url is None:
        return f"the embedded SQLite file {settings.state_dir / 'cleanup.db'}"
    from cleanup_dagster.database.urls import describe, read_url

    return describe(read_url(settings.database_url.get_secret_value()))


def user() -> str:
    """Return who asks, for the audit: the user of this process, and who became that user with sudo."""
    import pwd

    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's user id without a name
        name = f"uid {uid}"
    behind = os.environ.get("SUDO_USER")
    return f"{name} (sudo by {behind})" if behind else name
