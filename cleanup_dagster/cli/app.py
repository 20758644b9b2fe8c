"""The command `cleanup-operations` with the original options on itself, and its subcommands. Imports click and no more.

The text of each command's `--help` stands here; what it does stands in the module it imports when it is called.
"""

from __future__ import annotations

from typing import Any

import click

from cleanup_dagster.cli import exits
from cleanup_dagster.cli.exits import CliError
from cleanup_dagster.cli.groups import backups_group, holds_group, policies_group
from cleanup_dagster.cli.options import (
    Context,
    DataType,
    Group,
    RunId,
    Whole,
    Words,
    common_options,
    examples,
    take_common,
    write_options,
)
from cleanup_dagster.cli.session import Session

_TYPES = click.Choice(["automatic", "manual", "emergency"])
_TYPE_HELP = "automatic (never asks), manual, or emergency (passes four of the guardrails). [default: manual]"
_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:<4} {meaning}" for code, meaning in exits.EXIT_CODES)


class Root(Group):
    """The command itself: the original options, and the common ones once for all subcommands."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.params.extend(common_options())

    def invoke(self, ctx: click.Context) -> Any:
        """Keep the common options for the command that is called."""
        context = ctx.find_object(Context)
        assert context is not None, "main makes it"  # noqa: S101
        context.given = take_common(ctx.params)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the original options, then the common ones, then the commands."""
        write_options(self, ctx, formatter, "Options of every command")
        self.format_commands(ctx, formatter)


@click.group(
    cls=Root,
    name="cleanup-operations",
    invoke_without_command=True,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.option("--dry-run", is_flag=True, help="Show what a live run would delete, and why. The default.")
@click.option("--run", "live", is_flag=True, help="Delete what has outlived its retention. Asks first.")
@click.option("--type", "kind", metavar="TYPE", type=_TYPES, help=_TYPE_HELP)
@click.option("--stats", "show_stats", is_flag=True, help="Show what was cleaned so far; the same as `stats`.")
@click.option("--yes", is_flag=True, help="Do not ask; with --run, for scripts.")
@click.version_option(None, "--version", "-V", package_name="cleanup_dagster", message="cleanup-operations %(version)s")
@click.pass_context
def root(ctx: click.Context, *, dry_run: bool, live: bool, kind: str | None, show_stats: bool, yes: bool) -> int | None:
    """Clean up what has outlived its retention, with backup, audit and undo.

    Finds operation files, dbt logs and artifacts, system logs and temporary files that are older than
    their policy allows. Without a command and without --run nothing is deleted: the plan is shown. Start
    with `check` and `plan`.

    \b
    Examples:
      cleanup-operations check               is everything set up?
      cleanup-operations                     what would go, and why?
      cleanup-operations --run               show the plan, ask, delete
      cleanup-operations explain FILE        why is this file still here?
      cleanup-operations restore 1a2b3c4d    undo the run 1a2b3c4d
    """  # noqa: D301  \b is click's mark for text that stays as it is
    flags = {"--dry-run": dry_run, "--run": live, "--type": kind is not None, "--stats": show_stats, "--yes": yes}
    given = [name for name, on in flags.items() if on]
    if ctx.invoked_subcommand is not None:
        if given:
            raise CliError(
                f"{given[0]} and the command {ctx.invoked_subcommand!r} contradict each other; leave one out"
            )
        return None
    _require_consistent(dry_run=dry_run, live=live, show_stats=show_stats, kind=kind, yes=yes)
    session = _session(ctx, "stats" if show_stats else ("run" if live else "plan"))
    if show_stats:
        from cleanup_dagster.cli.looking import stats

        return stats(session)
    from cleanup_dagster.cli.cleaning import Wanted, plan, run

    wanted = Wanted(kind or "manual", yes)
    return run(session, wanted) if live else plan(session, kind=wanted.type, list_files=False)


def _session(ctx: click.Context, command: str) -> Session:
    context = ctx.find_object(Context)
    assert context is not None, "main makes it"  # noqa: S101
    context.out.as_json = bool(context.given.get("json"))
    return Session(command, context.given, context.out)


def _require_consistent(*, dry_run: bool, live: bool, show_stats: bool, kind: str | None, yes: bool) -> None:
    if dry_run and live:
        raise CliError("--dry-run and --run contradict each other; give one of them")
    if show_stats and (dry_run or live):
        raise CliError(f"--stats and {'--run' if live else '--dry-run'} contradict each other; give one of them")
    if show_stats and kind:
        raise CliError("--stats and --type contradict each other; statistics have no type")
    if yes and not live:
        raise CliError("--yes goes with --run; nothing else here asks")


@root.command(
    "plan",
    epilog=examples(
        "cleanup-operations plan",
        "cleanup-operations plan --files",
        "cleanup-operations plan --json --files > plan.json",
    ),
)
@click.option(
    "--type",
    "kind",
    metavar="TYPE",
    type=_TYPES,
    default="manual",
    help="Plan for a run of this type. [default: manual]",
)
@click.option("--files", "list_files", is_flag=True, help="Also list every file that would go, with the reason.")
@click.pass_obj
def plan_command(session: Session, *, kind: str, list_files: bool) -> int:
    """Show what a live run would delete, and why.

    The same as --dry-run. Touches nothing. Shows the guardrails that would stop a live run, too. The
    plan is kept for 24 hours (plan_retention_hours), and `apply` deletes exactly what it names.
    """
    from cleanup_dagster.cli.cleaning import plan

    return plan(session, kind=kind, list_files=list_files)


@root.command(
    "apply",
    epilog=examples(
        "cleanup-operations plan", "cleanup-operations apply 1a2b3c4d", "cleanup-operations apply 1a2b3c4d --yes"
    ),
)
@click.argument("plan", metavar="PLAN", type=RunId(dry=True))
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def apply_command(session: Session, *, plan: str, yes: bool) -> int:
    """Delete exactly what a reviewed plan names.

    PLAN is the id of a dry run, or enough of its beginning. Each file is verified again: one that changed
    is left alone, and so is whatever is new, or held by now. Since somebody reviewed the plan, the
    guardrails on number, bytes, share and growth do not stop it. When policies or targets changed since,
    it is refused.
    """
    from cleanup_dagster.cli.cleaning import apply

    return apply(session, plan, yes=yes)


@root.command(
    "run",
    epilog=examples(
        "cleanup-operations run",
        "cleanup-operations run --type automatic    (cron)",
        "cleanup-operations run --type emergency --skip-backup",
    ),
)
@click.option("--type", "kind", metavar="TYPE", type=_TYPES, default="manual", help=_TYPE_HELP)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--skip-backup", is_flag=True, help="Delete without backup, for a full disk; only with type emergency.")
@click.pass_obj
def run_command(session: Session, *, kind: str, yes: bool, skip_backup: bool) -> int:
    """Delete what has outlived its retention.

    The same as --run. On a terminal the plan is shown first, and exactly what you confirm is deleted.
    Without a terminal a manual or emergency run needs --yes; type automatic never asks. Every file is
    backed up before it goes.

    Type emergency bypasses the guardrails on number, bytes, share and growth. It shortens no retention
    and overrides no hold.

    Ctrl-C stops the run at the next safe point and says what was done; a second one ends it at once, and
    the next live run settles what was in hand.
    """
    from cleanup_dagster.cli.cleaning import Wanted, run

    return run(session, Wanted(kind, yes, skip_backup))


@root.command(
    "restore",
    epilog=examples(
        "cleanup-operations restore 1a2b3c4d --dry-run",
        "cleanup-operations restore 1a2b3c4d",
        "cleanup-operations restore 1a2b3c4d /srv/ops/operation_7.json",
        "cleanup-operations restore 1a2b3c4d '/srv/dbt/**' --data-type dbt_logs",
    ),
)
@click.argument("run", metavar="RUN", type=RunId())
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(readable=False))
@click.option("--data-type", "data_types", type=DataType(), multiple=True, help="Only this data type; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Verify the backups and say what would be restored.")
@click.pass_obj
def restore_command(
    session: Session, *, run: str, paths: tuple[str, ...], data_types: tuple[str, ...], dry_run: bool
) -> int:
    """Put back what a run deleted, all of it or some.

    RUN is the id of a run, or enough of its beginning; `history` lists them. A PATH is a file, a directory
    or a glob (* stays within a name, ** crosses directories). Every backup is verified first, nothing that
    exists is replaced, and what came back is held for a while, so that the next run does not delete it
    again.
    """
    from cleanup_dagster.cli.undo import restore

    return restore(session, run, paths, data_types, dry_run=dry_run)


root.add_command(backups_group)
root.add_command(policies_group)
root.add_command(holds_group)


@root.command(
    "explain",
    epilog=examples(
        "cleanup-operations explain /srv/ops/operation_7.json",
        "cleanup-operations explain 0c5e8f1a-3f0e-4c1b-9a57-6f3d2b1c0a99",
    ),
)
@click.argument("path", metavar="PATH", type=click.Path(readable=False))
@click.pass_obj
def explain_command(session: Session, *, path: str) -> int:
    """Say why a file is kept or would go, and when.

    Shows the policy that governs it, how old it is and by what, and holds over it. For a file that is
    gone: which run deleted it, and how to get it back. Of a run of Dagster's, named by its id, the
    newest plan is asked.
    """
    from cleanup_dagster.cli.looking import explain

    return explain(session, path)


@root.command("stats", epilog=examples("cleanup-operations stats", "cleanup-operations --stats"))
@click.pass_obj
def stats_command(session: Session) -> int:
    """Show what was cleaned so far, by data type."""
    from cleanup_dagster.cli.looking import stats

    return stats(session)


@root.command("history", epilog=examples("cleanup-operations history", "cleanup-operations history --runs --limit 5"))
@click.option(
    "--limit",
    metavar="N",
    type=Whole(1, 100_000),
    default=30,
    help="Rows to show, newest first. [default: 30]",
)
@click.option("--runs", is_flag=True, help="Every run instead of the audit: dry runs and restores, too.")
@click.pass_obj
def history_command(session: Session, *, limit: int, runs: bool) -> int:
    """Show what live runs did, from the audit."""
    from cleanup_dagster.cli.looking import history

    return history(session, limit, runs=runs)


@root.command("check", epilog=examples("cleanup-operations check", "cleanup-operations check --json"))
@click.pass_obj
def check_command(session: Session) -> int:
    """Say whether everything is set up, and what is not.

    Looks at the configuration, state directory, database, tables, policies, clock, targets, backup
    directory, free space and schedule, and takes a scratch file through scan, classification, backup,
    deletion and restore in a temporary directory. Touches nothing else. Exit code 4 when nothing could
    run, 1 when something would fail.
    """
    from cleanup_dagster.cli.looking import check

    return check(session)


@root.command(
    "serve",
    epilog=examples("cleanup-operations serve", "cleanup-operations serve --port 8080"),
)
@click.option("--host", metavar="ADDRESS", type=Words(), help="Listen on this address. [default: web.host, 127.0.0.1]")
@click.option("--port", metavar="PORT", type=Whole(1, 65535), help="Listen on this port. [default: web.port, 3001]")
@click.pass_obj
def serve_command(session: Session, *, host: str | None, port: int | None) -> int:
    """Serve the page and the REST API.

    Shows what is and was, changes policies and holds, and launches runs in Dagster, whose webserver it
    expects at DAGSTER_WEBSERVER_URL. It deletes nothing by itself. The first start makes the tokens and
    prints a login link, once. An address that other machines can reach needs a token of your own and TLS
    or a trusted proxy.
    """
    from cleanup_dagster.cli.serving import serve

    return serve(session, host, port)


@root.group("db")
def db_group() -> None:
    """Set up the database."""


@db_group.command(
    "upgrade",
    short_help="Make the tables, or bring older ones up to date.",
    epilog=examples("cleanup-operations db upgrade", "cleanup-operations db upgrade --db-host db --db-user cleanup"),
)
@click.pass_obj
def db_upgrade_command(session: Session) -> int:
    """Make the tables and the default policies, or bring older tables up to date.

    A run never does this to a Postgres database. Safe to repeat, and safe to run twice at once.
    """
    from cleanup_dagster.cli.looking import upgrade

    return upgrade(session)
