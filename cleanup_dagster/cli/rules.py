"""`policies` and `holds`: how long things are kept, and what is kept whatever they say."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cleanup_dagster.cli.asking import confirm, require_terminal
from cleanup_dagster.cli.exits import CliError
from cleanup_dagster.cli.session import user
from cleanup_dagster.cli.undo import absolute
from cleanup_dagster.cli.words import days, when
from cleanup_dagster.documents import iso, of_hold, of_policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cleanup_dagster.cli.session import Session
    from cleanup_dagster.database.holds import HoldRow
    from cleanup_dagster.database.policies import PolicyRow


_KEEPS_NOTHING = "keeps nothing: no target is in its reach"


def list_policies(session: Session) -> int:
    """List the policies."""
    with session.records() as records:
        rows = records.policies()
    targets: dict[str, list[str]] = {}
    for target in session.settings.all_targets:
        for data_type in target.data_types:
            targets.setdefault(data_type, []).append(target.name)

    def show() -> None:
        _show_policies(session, rows)
        lacking = [row.data_type for row in rows if row.data_type not in targets]
        if lacking:
            session.out.page.print(f"\nNo target is configured for: {', '.join(lacking)}")

    document = [{**of_policy(row), "targets": targets.get(row.data_type, [])} for row in rows]
    return session.finish({"policies": document}, show)


def change_policies(
    session: Session,
    data_types: Sequence[str],
    *,
    retention_days: int | None = None,
    enabled: bool | None = None,
    keep_last: int | None = None,
    every: bool = False,
) -> int:
    """Change policies, all that are named or none."""
    if every == bool(data_types):
        raise CliError("name the data types or give --all" if not every else "name data types or give --all, not both")
    if enabled is None and retention_days is None and keep_last is None:
        raise CliError("nothing to change: give --days, --keep-last or both")
    with session.records() as records:
        names = [row.data_type for row in records.policies()] if every else list(dict.fromkeys(data_types))
        session.changes("policies list")
        rows = records.change_policies(
            names, user(), retention_days=retention_days, enabled=enabled, keep_last=keep_last
        )

    def show() -> None:
        _show_policies(session, rows)
        session.out.say("\nChanged; it counts from the next run on.")

    return session.finish({"policies": [of_policy(row) for row in rows]}, show)


def reset_policies(session: Session, *, yes: bool) -> int:
    """Bring back the default policies."""
    if not yes:
        require_terminal(session.out, "Resetting the policies")
        _ = session.settings  # says which database it is about
        session.out.note(
            "Every default policy gets its days and its switch back; those that were disabled delete again."
        )
        confirm(session.out, "Reset them?")
    with session.records() as records:
        session.changes("policies list")
        changed = records.reset_policies(user())
        rows = records.policies()

    def show() -> None:
        _show_policies(session, rows)
        session.out.say(
            f"\nReset: {', '.join(changed)}" if changed else "\nAll of them were at their defaults already."
        )

    return session.finish({"changed": changed, "policies": [of_policy(row) for row in rows]}, show)


def _show_policies(session: Session, rows: Sequence[PolicyRow]) -> None:
    shown = [
        [
            row.data_type,
            days(row.retention_days) or "?",
            {True: "yes", False: "no", None: "?"}[row.enabled],
            str(row.keep_last or ""),
            row.problem or row.description,
        ]
        for row in rows
    ]
    session.out.page.table(["Data type", ">Kept for", "Enabled", ">Keep last", "What it covers"], shown)


def list_holds(session: Session) -> int:
    """List the holds."""
    with session.records() as records:
        rows = records.holds()
        idle = [records.idleness(row.hold.pattern, row.hold.data_type) for row in rows]
    now_ns = time.time_ns()
    document: dict[str, object] = {"holds": [of_hold(row, now_ns, why) for row, why in zip(rows, idle, strict=True)]}
    return session.finish(document, lambda: _show_holds(session, rows, idle, now_ns))


def _show_holds(session: Session, rows: Sequence[HoldRow], idle: Sequence[str], now_ns: int) -> None:
    if not rows:
        session.out.say("There are no holds.")
        return
    shown: list[list[str]] = []
    for row, why in zip(rows, idle, strict=True):
        hold = row.hold
        only = [f"only {hold.data_type}"] if hold.data_type else []
        only += [f"only pipeline {hold.pipeline}"] if hold.pipeline else []
        over = hold.until_ns is not None and hold.until_ns <= now_ns
        until = f"over since {when(hold.until_ns)}" if over else when(hold.until_ns, "for ever")
        said = [hold.reason, *only, f"by {row.placed_by}" if row.placed_by else "", _KEEPS_NOTHING if why else ""]
        shown.append([str(hold.id), hold.pattern, until, ", ".join(filter(None, said))])
    session.out.page.table([">Id", "Held", "Until", "Reason"], shown)


def add_hold(
    session: Session,
    pattern: str,
    reason: str,
    *,
    data_type: str | None,
    pipeline: str | None,
    until: str | None,
    hold_days: int | None,
) -> int:
    """Place a hold. In no target it is placed, too, with a warning: one may be planned, or be configured elsewhere."""
    if until is not None and hold_days is not None:
        raise CliError("--until and --days contradict each other; give one of them")
    wanted = absolute(session, pattern)
    until_ns = _until_ns(session, until, hold_days)
    with session.records() as records:
        session.changes("holds list")
        number = records.hold(wanted, reason, user(), data_type=data_type, pipeline=pipeline, until_ns=until_ns)
        warning = records.idleness(wanted, data_type)
    if warning:
        session.out.note(f"Warning: the hold is placed, but keeps nothing: {warning}")

    def show() -> None:
        kept = "would be kept" if warning else "is kept"
        session.out.page.print(f"Hold {number}: {wanted} {kept} {_so_long(until_ns)}, whatever the policies say.")

    return session.finish({"id": number, "pattern": wanted, "until": iso(until_ns), "warning": warning or None}, show)


def _so_long(until_ns: int | None) -> str:
    return "for ever" if until_ns is None else f"until {when(until_ns)}"


def _until_ns(session: Session, until: str | None, hold_days: int | None) -> int | None:
    if hold_days is not None:
        return time.time_ns() + hold_days * 86_400 * 1_000_000_000
    if until is None:
        return None
    from cleanup_dagster.retention.times import read_moment

    moment_ns = read_moment(until, session.settings.naive_zone)
    if moment_ns is None:
        raise CliError(f"--until {until!r} is no moment; write 2026-12-31, or 2026-12-31T18:00+01:00")
    return moment_ns


def remove_hold(session: Session, number: int) -> int:
    """Remove a hold."""
    with session.records() as records:
        session.changes("holds list")
        removed = records.release(number)
    if not removed:
        raise CliError(f"there is no hold {number}; `cleanup-operations holds list` shows them")

    def show() -> None:
        session.out.page.print(f"Hold {number} is removed; what it kept is judged by its policy again.")

    return session.finish({"id": number}, show)
