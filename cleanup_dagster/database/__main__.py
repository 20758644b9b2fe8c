"""Make or upgrade the tables of a configured database: `python -m cleanup_dagster.database upgrade`, or `status`.

Exit code 0: the tables are this version's. 1: they are not, or the database cannot be used. 2: the configuration is
wrong, or names no database; the embedded one is made and upgraded by the runs themselves.
"""

import argparse
import sys
from collections.abc import Sequence

from cleanup_dagster.database.engine import open_engine
from cleanup_dagster.database.errors import DatabaseUnavailable, SchemaMismatch
from cleanup_dagster.database.schema import SchemaState, require_current, schema_state, upgrade
from cleanup_dagster.database.urls import describe
from cleanup_dagster.settings import ConfigError, load_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m cleanup_dagster.database",
        description="The tables of the database in CLEANUP_DATABASE_URL or CLEANUP_DB_*.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("upgrade", help="create the tables and the default policies, or bring older ones up to date")
    commands.add_parser("status", help="say whether the tables are this version's; changes nothing")
    command = parser.parse_args(arguments).command
    try:
        settings = load_settings()
    except ConfigError as error:
        return _say(str(error), 2)
    if settings.database_url is None:
        return _say(
            "no database is configured: set CLEANUP_DATABASE_URL, or CLEANUP_DB_HOST and its siblings. "
            f"Without one, runs make and upgrade {settings.state_dir / 'cleanup.db'} by themselves.",
            2,
        )
    try:
        return _upgrade_or_ask(settings.database_url.get_secret_value(), upgrading=command == "upgrade")
    except (DatabaseUnavailable, SchemaMismatch) as error:
        return _say(str(error), 1)


def _upgrade_or_ask(url: str, *, upgrading: bool) -> int:
    engine = open_engine(url)
    try:
        before = schema_state(engine)
        if upgrading:
            upgrade(engine)
        require_current(engine)
        name = describe(engine.url)
    finally:
        engine.dispose()
    if before is SchemaState.CURRENT:
        return _say(f"{name} has the tables of this version", 0)
    how = "made, with the default policies" if before is SchemaState.ABSENT else "upgraded"
    return _say(f"{name}: the tables were {how}", 0)


def _say(text: str, code: int) -> int:
    (sys.stderr if code else sys.stdout).write(f"{text}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
