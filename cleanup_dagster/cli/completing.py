"""What a shell offers after a Tab: runs, policies and holds. Silent about whatever fails, and makes no database."""

from __future__ import annotations

import io
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

from cleanup_dagster.cli.options import COMMON, DATA_TYPES
from cleanup_dagster.cli.output import Output
from cleanup_dagster.cli.session import overlay
from cleanup_dagster.cli.words import files, minute

if TYPE_CHECKING:
    from collections.abc import Generator

    import click
    from sqlalchemy import Connection

    from cleanup_dagster.database.runs import RunRecord

_SECONDS = "2"  # for a Postgres that does not answer; a person waits
_MOST = 50


def data_types(ctx: click.Context, typed: str) -> list[CompletionItem]:
    """Return the data types that have a policy, or else the default ones."""
    found: list[tuple[str, str]] = [(name, "") for name in DATA_TYPES]
    with suppress(Exception), _records(ctx) as conn:
        from cleanup_dagster.database.policies import list_policies

        found = [(row.data_type, row.description) for row in list_policies(conn)]
    return [CompletionItem(name, help=said or None) for name, said in found if name.startswith(typed)]


def runs(ctx: click.Context, typed: str, *, dry: bool) -> list[CompletionItem]:
    """Return the latest runs, newest first: dry ones that ended, or those that could have deleted something."""
    with suppress(Exception), _records(ctx) as conn:
        from cleanup_dagster.cli.undo import is_cleanup
        from cleanup_dagster.database.runs import find_runs

        wanted = _is_plan if dry else is_cleanup
        return [CompletionItem(run.run_id, help=_of_run(run)) for run in find_runs(conn, typed, _MOST) if wanted(run)]
    return []


def holds(ctx: click.Context, typed: str) -> list[CompletionItem]:
    """Return the ids of the holds."""
    with suppress(Exception), _records(ctx) as conn:
        from cleanup_dagster.database.holds import list_holds

        found = ((str(row.hold.id), f"{row.hold.pattern} ({row.hold.reason})") for row in list_holds(conn))
        return [CompletionItem(number, help=said) for number, said in found if number.startswith(typed)]
    return []


def _is_plan(run: RunRecord) -> bool:
    return run.dry_run and run.status.value == "done"


def _of_run(run: RunRecord) -> str:
    count = files(run.totals.expired_files) if run.dry_run else f"{files(run.totals.deleted_files)} deleted"
    return f"{minute(run.started_ns)} UTC, {run.cleanup_type.value}, {count}"


@contextmanager
def _records(ctx: click.Context) -> Generator[Connection]:
    """Connect to the database that the line so far names, to read. Raises whatever it meets."""
    from sqlalchemy import URL

    from cleanup_dagster.database.engine import open_engine, reading
    from cleanup_dagster.database.urls import read_url
    from cleanup_dagster.settings import load_settings

    given = {**ctx.find_root().params, **ctx.params}
    nobody = Output(io.StringIO(), io.StringIO(), as_json=False)
    overlay({name: value for name, value in given.items() if name in COMMON and value is not None}, nobody)
    settings = load_settings()
    if settings.database_url is None:
        embedded = URL.create("sqlite+pysqlite", database=str(settings.state_dir / "cleanup.db"))
        engine = open_engine(embedded)  # a file that is not there stays so
    else:
        url = read_url(settings.database_url.get_secret_value())
        postgres = url.get_backend_name() == "postgresql"
        engine = open_engine(url.update_query_dict({"connect_timeout": _SECONDS}) if postgres else url)
    with reading(engine) as conn:
        yield conn
