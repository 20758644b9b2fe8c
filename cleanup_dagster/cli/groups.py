"""The commands in groups: `backups`, `policies`, `holds`. As in `app.py`, the help stands here, the doing elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cleanup_dagster.cli.options import DataType, Days, Group, HoldId, RunId, Whole, Words, examples

if TYPE_CHECKING:
    from cleanup_dagster.cli.session import Session


@click.group(cls=Group, name="backups")
def backups_group() -> None:
    """List, inspect, verify and prune the backups."""


@backups_group.command("list", epilog=examples("cleanup-operations backups list"))
@click.pass_obj
def backups_list_command(session: Session) -> int:
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
@click.argument("run", metavar="RUN", type=RunId())
@click.option(
    "--limit",
    metavar="N",
    type=Whole(0),
    default=50,
    help="Files to list, 0 for all; --json lists all. [default: 50]",
)
@click.pass_obj
def backups_show_command(session: Session, *, run: str, limit: int) -> int:
    """List the files that a run backed up, and where their copies lie."""
    from cleanup_dagster.cli.undo import show_backups

    return show_backups(session, run, limit)


@backups_group.command(
    "verify", epilog=examples("cleanup-operations backups verify", "cleanup-operations backups verify 1a2b3c4d")
)
@click.argument("run", metavar="[RUN]", required=False, type=RunId())
@click.pass_obj
def backups_verify_command(session: Session, *, run: str | None) -> int:
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
def backups_prune_command(session: Session, *, yes: bool, dry_run: bool) -> int:
    """Remove the backups whose retention is over.

    Every live run does this at its end; here it is on its own. Nothing younger than backup.retention_days
    is ever removed.
    """
    from cleanup_dagster.cli.undo import prune_backups

    return prune_backups(session, yes=yes, dry_run=dry_run)


@click.group(cls=Group, name="policies")
def policies_group() -> None:
    """Look at the retention policies and change them."""


@policies_group.command("list", epilog=examples("cleanup-operations policies list"))
@click.pass_obj
def policies_list_command(session: Session) -> int:
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
@click.option(
    "--keep-last",
    metavar="N",
    type=Whole(0, 2**31 - 1),
    help="Keep the newest N of each pipeline, however old; 0 for none.",
)
@click.pass_obj
def policies_set_command(session: Session, *, data_type: str, days: int | None, keep_last: int | None) -> int:
    """Change how long a data type is kept.

    Counts from the next run on. Who changed what is recorded in the table cleanup_policy_changes.
    """
    from cleanup_dagster.cli.rules import change_policies

    return change_policies(session, [data_type], retention_days=days, keep_last=keep_last)


@policies_group.command("enable", epilog=examples("cleanup-operations policies enable temp_files"))
@click.argument("data_types", metavar="[DATA_TYPE]...", nargs=-1, type=DataType())
@click.option("--all", "every", is_flag=True, help="Enable every policy.")
@click.pass_obj
def policies_enable_command(session: Session, *, data_types: tuple[str, ...], every: bool) -> int:
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
def policies_disable_command(session: Session, *, data_types: tuple[str, ...], every: bool) -> int:
    """Keep everything of some data types, or of all.

    Counts from the next run on, whoever starts it. A run that is at work goes on; press Ctrl-C there, or
    terminate it in Dagster's UI.
    """
    from cleanup_dagster.cli.rules import change_policies

    return change_policies(session, data_types, enabled=False, every=every)


@policies_group.command("reset", epilog=examples("cleanup-operations policies reset"))
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def policies_reset_command(session: Session, *, yes: bool) -> int:
    """Bring every default policy back. Asks first.

    Their days, their switch and how many of the newest stay are then what they were at first. Policies of
    data types of your own stay as they are.
    """
    from cleanup_dagster.cli.rules import reset_policies

    return reset_policies(session, yes=yes)


@click.group(cls=Group, name="holds")
def holds_group() -> None:
    """Keep files whatever the policies say, emergency included."""


@holds_group.command("list", epilog=examples("cleanup-operations holds list"))
@click.pass_obj
def holds_list_command(session: Session) -> int:
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
@click.argument("pattern", metavar="PATH", type=click.Path(readable=False))
@click.option("--reason", type=Words(), required=True, help="Why; shown wherever the hold keeps something.")
@click.option("--data-type", type=DataType(), help="Hold only this data type.")
@click.option("--pipeline", type=Words(), help="Hold only operations of this pipeline.")
@click.option(
    "--until", metavar="MOMENT", type=Words(), help="Until when, such as 2026-12-31 or 2026-12-31T18:00+01:00."
)
@click.option("--days", type=Days(), help="For how many days from now. Without either: until it is removed.")
@click.pass_obj
def holds_add_command(
    session: Session,
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
@click.argument("number", metavar="ID", type=HoldId())
@click.pass_obj
def holds_remove_command(session: Session, *, number: int) -> int:
    """Remove a hold by its id."""
    from cleanup_dagster.cli.rules import remove_hold

    return remove_hold(session, number)
