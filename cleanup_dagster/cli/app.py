"""The command `cleanup-operations` with the original options on itself, and its subcommands. Imports click and no more.

The text of each command's `--help` stands here; what it does stands in the module it imports when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cleanup_dagster.cli import exits
from cleanup_dagster.cli.exits import CliError
from cleanup_dagster.cli.options import (
    Context,
    DataType,
    Days,
    Group,
    common_options,
    examples,
    take_common,
    write_options,
)
from cleanup_dagster.cli.session import Session

if TYPE_CHECKING:
    from cleanup_dagster.cli.session import Session as SessionType

_TYPES = click.Choice(["automatic", "manual", "emergency"])
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
@click.option("--type", "kind", type=_TYPES, help="Who asks for the run. [default: manual]")
@click.option("--stats", "show_stats", is_flag=True, help="Show what was cleaned so far; the same as `stats`.")
@click.option("--yes", is_flag=True, help="Do not ask; with --run, for scripts.")
@click.version_option(None, "--version", "-V", package_name="cleanup_dagster", message="cleanup-operations %(version)s")
@click.pass_context
def root(ctx: click.Context, *, dry_run: bool, live: bool, kind: str | None, show_stats: bool, yes: bool) -> int | None:
    """Clean up what has outlived its retention, with backup, audit and undo.

    Finds operation files, dbt logs and artifacts, system logs and temporary files that are older than
    their policy allows. Without a command and without --run nothing is deleted: the plan is shown, with
    the reason for every file. Start with `check` and `plan`.

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
    "--type", "kind", type=_TYPES, default="manual", show_default=True, help="Judge as a run of this type would."
)
@click.option("--files", "list_files", is_flag=True, help="Also list every file that would go, with the reason.")
@click.pass_obj
def plan_command(session: SessionType, *, kind: str, list_files: bool) -> int:
    """Show what a live run would delete, and why; the same as --dry-run.

    Touches nothing. Shows the guardrails that would stop a live run, too. The plan is kept for 24 hours
    (plan_retention_hours), and `apply` deletes exactly what it names.
    """
    from cleanup_dagster.cli.cleaning import plan

    return plan(session, kind=kind, list_files=list_files)


@root.command(
    "apply",
    epilog=examples(
        "cleanup-operations plan", "cleanup-operations apply 1a2b3c4d", "cleanup-operations apply 1a2b3c4d --yes"
    ),
)
@click.argument("plan", metavar="PLAN")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def apply_command(session: SessionType, *, plan: str, yes: bool) -> int:
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
@click.option("--type", "kind", type=_TYPES, default="manual", show_default=True, help="Who asks for the run.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--skip-backup", is_flag=True, help="Delete without backup, for a full disk; only with type emergency.")
@click.pass_obj
def run_command(session: SessionType, *, kind: str, yes: bool, skip_backup: bool) -> int:
    """Delete what has outlived its retention; the same as --run.

    On a terminal the plan is shown first, and exactly what you confirm is deleted. Without a terminal a
    manual or emergency run needs --yes; type automatic never asks. Every file is backed up before it goes.

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
@click.argument("run", metavar="RUN")
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@click.option("--data-type", "data_types", type=DataType(), multiple=True, help="Only this data type; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Verify the backups and say what would be restored.")
@click.pass_obj
def restore_command(
    session: SessionType, *, run: str, paths: tuple[str, ...], data_types: tuple[str, ...], dry_run: bool
) -> int:
    """Put back what a run deleted, all of it or some.

    RUN is the id of a run, or enough of its beginning; `history` lists them. A PATH is a file, a directory
    or a glob (* stays within a name, ** crosses directories). Every backup is verified first, nothing that
    exists is replaced, and what came back is held for a while, so that the next run does not delete it
    again.
    """
    from cleanup_dagster.cli.undo import restore

    return restore(session, run, paths, data_types, dry_run=dry_run)


@root.group("backups")
def backups_group() -> None:
    """List, inspect, verify and prune the backups."""


@backups_group.command("list", epilog=examples("cleanup-operations backups list"))
@click.pass_obj
def backups_list_command(session: SessionType) -> int:
    """List the backups by run and target, and until when they are kept."""
    from cleanup_dagster.cli.undo import list_backups

    return list_backups(session)


@backups_group.command(
    "show",
    epilog=examples(
        "cleanup-operations backups show 1a2b3c4d",
        "cleanup-operations backups show 1a2b3c4d --limit 0 | grep operation_7",
    ),
)
@click.argument("run", metavar="RUN")
@click.option(
    "--limit", type=click.IntRange(0), default=50, show_default=True, help="Files to list; 0 for all. --json lists all."
)
@click.pass_obj
def backups_show_command(session: SessionType, *, run: str, limit: int) -> int:
    """List the files that a run backed up, and where their copies lie."""
    from cleanup_dagster.cli.undo import show_backups

    return show_backups(session, run, limit)


@backups_group.command(
    "verify", epilog=examples("cleanup-operations backups verify", "cleanup-operations backups verify 1a2b3c4d")
)
@click.argument("run", metavar="[RUN]", required=False)
@click.pass_obj
def backups_verify_command(session: SessionType, *, run: str | None) -> int:
    """Read every byte of the backups again, of all runs or of one.

    Each copy is compared with the sha256 that was recorded when it was made. Exit code 1 when one is
    missing or damaged.
    """
    from cleanup_dagster.cli.undo import verify_backups

    return verify_backups(session, run)


@backups_group.command(
    "prune", epilog=examples("cleanup-operations backups prune --dry-run", "cleanup-operations backups prune --yes")
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only list the backups that are over.")
@click.pass_obj
def backups_prune_command(session: SessionType, *, yes: bool, dry_run: bool) -> int:
    """Remove the backups whose retention is over.

    Every live run does this at its end; here it is on its own. Nothing younger than backup.retention_days
    is ever removed.
    """
    from cleanup_dagster.cli.undo import prune_backups

    return prune_backups(session, yes=yes, dry_run=dry_run)


@root.group("policies")
def policies_group() -> None:
    """Look at the retention policies and change them."""


@policies_group.command("list", epilog=examples("cleanup-operations policies list"))
@click.pass_obj
def policies_list_command(session: SessionType) -> int:
    """List the policies."""
    from cleanup_dagster.cli.rules import list_policies

    return list_policies(session)


@policies_group.command(
    "set",
    epilog=examples(
        "cleanup-operations policies set dbt_logs --days 14",
        "cleanup-operations policies set completed_operations --keep-last 5",
    ),
)
@click.argument("data_type", metavar="DATA_TYPE", type=DataType())
@click.option("--days", type=Days(), help="How long to keep, from 1 to 36500 days.")
@click.option("--keep-last", type=click.IntRange(0, 2**31 - 1), help="Keep the newest N of each pipeline; 0 for none.")
@click.pass_obj
def policies_set_command(session: SessionType, *, data_type: str, days: int | None, keep_last: int | None) -> int:
    """Change how long a data type is kept.

    Counts from the next run on. Who changed what is recorded in the table cleanup_policy_changes.
    """
    from cleanup_dagster.cli.rules import change_policies

    return change_policies(session, [data_type], retention_days=days, keep_last=keep_last)


@policies_group.command("enable", epilog=examples("cleanup-operations policies enable temp_files"))
@click.argument("data_types", metavar="[DATA_TYPE]...", nargs=-1, type=DataType())
@click.option("--all", "every", is_flag=True, help="Enable every policy.")
@click.pass_obj
def policies_enable_command(session: SessionType, *, data_types: tuple[str, ...], every: bool) -> int:
    """Let policies delete again."""
    from cleanup_dagster.cli.rules import change_policies

    return change_policies(session, data_types, enabled=True, every=every)


@policies_group.command(
    "disable",
    epilog=examples(
        "cleanup-operations policies disable dbt_logs",
        "cleanup-operations policies disable --all    (stops all deletion)",
    ),
)
@click.argument("data_types", metavar="[DATA_TYPE]...", nargs=-1, type=DataType())
@click.option("--all", "every", is_flag=True, help="Disable every policy: nothing is deleted any more.")
@click.pass_obj
def policies_disable_command(session: SessionType, *, data_types: tuple[str, ...], every: bool) -> int:
    """Keep everything of some data types, or of all.

    Counts from the next run on, whoever starts it. A run that is at work goes on; press Ctrl-C there, or
    terminate it in Dagster's UI.
    """
    from cleanup_dagster.cli.rules import change_policies

    return change_policies(session, data_types, enabled=False, every=every)


@policies_group.command("reset", epilog=examples("cleanup-operations policies reset"))
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def policies_reset_command(session: SessionType, *, yes: bool) -> int:
    """Bring every default policy back, days and switch. Asks first.

    Policies of data types of your own stay as they are.
    """
    from cleanup_dagster.cli.rules import reset_policies

    return reset_policies(session, yes=yes)


@root.group("holds")
def holds_group() -> None:
    """Keep files whatever the policies say, emergency included."""


@holds_group.command("list", epilog=examples("cleanup-operations holds list"))
@click.pass_obj
def holds_list_command(session: SessionType) -> int:
    """List the holds, those that are over, too."""
    from cleanup_dagster.cli.rules import list_holds

    return list_holds(session)


@holds_group.command(
    "add",
    epilog=examples(
        "cleanup-operations holds add /srv/ops/operation_7.json --reason 'audit 2026'",
        "cleanup-operations holds add /srv/dbt --reason 'incident 7' --days 30",
        "cleanup-operations holds add '**' --data-type failed_operations \\",
        "      --reason 'incident 7' --until 2026-12-31",
    ),
)
@click.argument("pattern", metavar="PATH")
@click.option("--reason", required=True, help="Why; shown wherever the hold keeps something.")
@click.option("--data-type", type=DataType(), help="Hold only this data type.")
@click.option("--pipeline", help="Hold only operations of this pipeline.")
@click.option("--until", metavar="MOMENT", help="Until when, such as 2026-12-31 or 2026-12-31T18:00+01:00.")
@click.option("--days", type=Days(), help="For how many days from now. Without either: until it is removed.")
@click.pass_obj
def holds_add_command(
    session: SessionType,
    *,
    pattern: str,
    reason: str,
    data_type: str | None,
    pipeline: str | None,
    until: str | None,
    days: int | None,
) -> int:
    """Hold a file, a directory with all in it, or what a glob names.

    A hold counts at once: a run that is at work reads the holds again before each batch of deletions.
    """
    from cleanup_dagster.cli.rules import add_hold

    return add_hold(session, pattern, reason, data_type=data_type, pipeline=pipeline, until=until, hold_days=days)


@holds_group.command("remove", epilog=examples("cleanup-operations holds remove 3"))
@click.argument("number", metavar="ID", type=click.IntRange(1))
@click.pass_obj
def holds_remove_command(session: SessionType, *, number: int) -> int:
    """Remove a hold by its id."""
    from cleanup_dagster.cli.rules import remove_hold

    return remove_hold(session, number)


@root.command("explain", epilog=examples("cleanup-operations explain /srv/ops/operation_7.json"))
@click.argument("path", metavar="PATH")
@click.pass_obj
def explain_command(session: SessionType, *, path: str) -> int:
    """Say why a file is kept or would go, and when.

    Shows the policy that governs it, how old it is and by what, and holds over it. For a file that is
    gone: which run deleted it, and how to get it back.
    """
    from cleanup_dagster.cli.looking import explain

    return explain(session, path)


@root.command("stats", epilog=examples("cleanup-operations stats", "cleanup-operations --stats"))
@click.pass_obj
def stats_command(session: SessionType) -> int:
    """Show what was cleaned so far, by data type."""
    from cleanup_dagster.cli.looking import stats

    return stats(session)


@root.command("history", epilog=examples("cleanup-operations history", "cleanup-operations history --runs --limit 5"))
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=30, show_default=True, help="Rows to show, newest first."
)
@click.option("--runs", is_flag=True, help="Every run instead of the audit: dry runs and restores, too.")
@click.pass_obj
def history_command(session: SessionType, *, limit: int, runs: bool) -> int:
    """Show what live runs did, from the audit."""
    from cleanup_dagster.cli.looking import history

    return history(session, limit, runs=runs)


@root.command("check", epilog=examples("cleanup-operations check", "cleanup-operations check --json"))
@click.pass_obj
def check_command(session: SessionType) -> int:
    """Say whether everything is set up, and what to do where it is not.

    Looks at the configuration, state directory, database, tables, policies, clock, targets, backup
    directory, free space and schedule, and takes a scratch file through scan, classification, backup,
    deletion and restore in a temporary directory. Touches nothing else. Exit code 4 when nothing could
    run, 1 when something would fail.
    """
    from cleanup_dagster.cli.looking import check

    return check(session)


@root.group("db")
def db_group() -> None:
    """Set up the database."""


@db_group.command(
    "upgrade",
    epilog=examples("cleanup-operations db upgrade", "cleanup-operations db upgrade --db-host db --db-user cleanup"),
)
@click.pass_obj
def db_upgrade_command(session: SessionType) -> int:
    """Make the tables and the default policies, or bring older tables up to date.

    A run never does this to a Postgres database. Safe to repeat, and safe to run twice at once.
    """
    from cleanup_dagster.cli.looking import upgrade

    return upgrade(session)
