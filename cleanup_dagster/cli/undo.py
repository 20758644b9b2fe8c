"""`restore` and `backups`: what runs deleted, where its copies are, and putting it back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cleanup_dagster.cli import exits
from cleanup_dagster.cli.asking import confirm, require_terminal
from cleanup_dagster.cli.exits import CliError
from cleanup_dagster.cli.words import days, files, minute, short, tally
from cleanup_dagster.documents import of_backup_file, of_backups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cleanup_dagster.cli.executing import Executed
    from cleanup_dagster.cli.session import Session
    from cleanup_dagster.database.runs import RunRecord
    from cleanup_dagster.handles import RestoreReport
    from cleanup_dagster.inventory import BackupSet, Verification
    from cleanup_dagster.service import CleanupService

_GLOB = frozenset("*?[")


def is_cleanup(run: RunRecord) -> bool:
    """Say whether a run could have deleted something."""
    return not run.dry_run and run.cleanup_type.value != "restore"


def restore(session: Session, typed: str, paths: Sequence[str], data_types: Sequence[str], *, dry_run: bool) -> int:
    """Put back what a run deleted, all of it or a selection, as a run of its own."""
    from cleanup_dagster.cli.executing import execute
    from cleanup_dagster.handles import RestoreReport

    with session.records() as records:
        run_id = records.resolve(typed, is_cleanup).run_id
        known = {row.data_type for row in records.policies()}
    for data_type in data_types:
        if data_type not in known:
            raise CliError(f"there is no data type {data_type!r}; there are: {', '.join(sorted(known))}")
    wanted = [selection(session, path) for path in paths]
    config: dict[str, object] = {"run_id": run_id, "dry_run": dry_run, "paths": wanted, "data_types": list(data_types)}
    ended = execute(session, "restore", config)
    report = ended.watch.last(RestoreReport)
    if report is None:
        raise _broken_off(ended, dry_run=dry_run)
    code = exits.INTERRUPTED if ended.stopped else ended.code
    return session.finish(_restored_document(ended.run_id, report), lambda: _show_restored(session, report), code)


def selection(session: Session, typed: str) -> str:
    """Return a path or glob as restores take it. Raises CliError for one in no target: nothing could ever match it."""
    from cleanup_dagster.reach import out_of_reach

    path = absolute(session, typed)
    if problem := out_of_reach(session.settings, path):
        raise CliError(problem)
    return path


def absolute(session: Session, typed: str) -> str:
    """Return a path or glob absolute and in text form; a run's id stands for the run. Raises CliError: it is empty."""
    require_path(typed)
    from cleanup_dagster.filesystem.names import to_text
    from cleanup_dagster.run_history.eligibility import is_run_id

    if typed.startswith("**") or (typed.startswith("/") and _GLOB & set(typed)):
        return typed
    if session.settings.dagster_runs is not None and is_run_id(typed):
        return f"**/{typed}"
    return to_text(os.path.abspath(typed))  # noqa: PTH100  resolve() would follow a link


def require_path(typed: str) -> None:
    """Refuse an empty path, such as an unset variable of a script leaves: the working directory was not meant."""
    if not typed:
        raise CliError("PATH is empty; name a file, a directory or a glob")


def _broken_off(ended: Executed, *, dry_run: bool) -> CliError:
    if not ended.stopped:
        return CliError(ended.failure, ended.code)
    if dry_run:
        return CliError("Interrupted; nothing was written.", exits.INTERRUPTED)
    return CliError(
        f"Interrupted at a safe point after {ended.watch.counted('restored')} of the restore; start it again for "
        "the rest, what is back already is left as it is.",
        exits.INTERRUPTED,
    )


def _restored_document(run_id: str, report: RestoreReport) -> dict[str, object]:
    request = report.request
    return {
        "run_id": run_id,
        "of_run": request.of_run,
        "dry_run": request.dry_run,
        "states": {state.value: tally(sums) for state, sums in report.states.items()},
        "not_restored": [
            {"path": one.path, "data_type": one.data_type, "state": one.state.value, "detail": one.detail}
            for one in report.troubled
        ],
        "holds": list(report.holds),
        "problems": list(report.problems),
    }


def _show_restored(session: Session, report: RestoreReport) -> None:
    from cleanup_dagster.retention.guardrails import format_bytes

    page = session.out.page
    rows = [[state.value, f"{t.files:,}", format_bytes(t.bytes)] for state, t in sorted(report.states.items())]
    if rows:
        page.table(["State", f">{report.what.capitalize()}", ">Size"], rows)
    if report.troubled:
        page.print()
        page.table(["Not restored", "Why"], [[one.path, one.detail or one.state.value] for one in report.troubled])
    for problem in report.problems:
        page.print(problem, "red")
    if report.holds:
        ids = ", ".join(map(str, report.holds))
        kept = days(session.settings.backup.restore_hold_days)
        page.print(f"\nHeld for {kept}, so that the next run does not delete them again (hold {ids}).")
    if report.request.dry_run and not report.problems:
        page.print("\nDry run: nothing was written. Leave out --dry-run to restore.")


def list_backups(session: Session) -> int:
    """List the backups by run and target."""
    from cleanup_dagster.inventory import list_backups as listed

    with session.installation() as installation:
        sets = listed(installation)
    document: dict[str, object] = {"backups": [of_backups(one) for one in sets]}
    return session.finish(document, lambda: _show_sets(session, sets))


def _show_sets(session: Session, sets: Sequence[BackupSet]) -> None:
    from cleanup_dagster.retention.guardrails import format_bytes

    if not sets:
        session.out.say("There are no backups: nothing was deleted yet, or all of them were pruned.")
        return
    rows = [
        [
            short(one.run_id),
            one.target,
            f"{one.files:,}",
            format_bytes(one.bytes),
            minute(one.made_ns),
            minute(one.expires_ns),
        ]
        for one in sets
    ]
    session.out.page.table(["Run", "Target", ">Files", ">Size", "Made (UTC)", "Kept until (UTC)"], rows)


def show_backups(session: Session, typed: str, limit: int) -> int:
    """List the files that a run backed up, and where their copies lie."""
    with session.service() as service:
        run_id = _with_backups(service, typed)
        rows = service.backed_up_files(run_id)
        listed = map(of_backup_file, rows)
        if session.out.as_json:
            return session.finish({"run_id": run_id}, lambda: None, rows=("files", listed))
        return session.finish({}, lambda: _show_files(session, service, run_id, limit))


def _show_files(session: Session, service: CleanupService, run_id: str, limit: int) -> None:
    from cleanup_dagster.retention.guardrails import format_bytes

    for shown, one in enumerate(service.backed_up_files(run_id)):
        if limit and shown == limit:
            session.out.say(
                f"... more; --limit 0 lists all of them. To restore: cleanup-operations restore {short(run_id)}"
            )
            return
        session.out.say(f"{one.path}  ({one.data_type}, {format_bytes(one.bytes)})")
        session.out.say(f"  copy: {one.copy}")


def _with_backups(service: CleanupService, typed: str) -> str:
    run_id = service.records.resolve(typed, is_cleanup).run_id
    if not service.backups(run_id):
        raise CliError(
            f"run {run_id} has no backups: it made none, or they were pruned after their retention", exits.REFUSED
        )
    return run_id


def verify_backups(session: Session, typed: str | None) -> int:
    """Read every byte of the backups again."""
    from cleanup_dagster.cli.drawing import drawing
    from cleanup_dagster.inventory import things_in

    with session.service() as service:
        run_id = _with_backups(service, typed) if typed else None
        sets = service.backups(run_id)
        of, what = sum(one.files for one in sets), things_in(sets)
        with drawing(session.out) as shown:
            found = service.verify_backups(shown.begin("verified", "", of, what), run_id)
    code = exits.SOME_FAILED if found.damaged else exits.DONE
    document: dict[str, object] = {
        "sound": tally(found.sound),
        "damaged": [
            {"run_id": one.run_id, "path": one.path, "copy": one.backup, "problem": one.problem}
            for one in found.damaged
        ],
    }
    return session.finish(document, lambda: _show_verified(session, found, what), code)


def _show_verified(session: Session, found: Verification, what: str) -> None:
    from cleanup_dagster.retention.defaults import counted
    from cleanup_dagster.retention.guardrails import format_bytes

    for one in found.damaged:
        session.out.page.print(f"damaged: {one.path} of run {short(one.run_id)}: copy {one.backup}: {one.problem}")
    verb = "is" if found.sound.files == 1 else "are"
    sound = counted(found.sound.files, what)
    session.out.say(f"{sound} ({format_bytes(found.sound.bytes)}) {verb} what was written.")
    if found.damaged:
        session.out.say(
            f"{counted(len(found.damaged), what)} cannot be restored; a restore leaves them out and says so."
        )


def prune_backups(session: Session, *, yes: bool, dry_run: bool) -> int:
    """Remove the backups whose retention is over, as every live run does at its end."""
    asks = not (yes or dry_run)
    if asks:
        require_terminal(session.out, "Pruning")
    with session.service() as service:
        over = service.expired_backups()
        if asks and over:
            _show_expired(session, over)
            confirm(session.out, "Remove these copies?")
        if dry_run or (asks and not over):
            document: dict[str, object] = {"dry_run": dry_run, "expired": [of_backups(one) for one in over]}
            return session.finish(document, lambda: _show_over(session, over))
        session.changes("backups list")
        pruned = service.prune_backups()
    code = exits.SOME_FAILED if pruned.problems else exits.DONE

    def show() -> None:
        session.out.say(f"Removed {files(pruned.copies.files)} of expired backups.")
        for problem in pruned.problems:
            session.out.say(f"Problem: {problem}")

    return session.finish(
        {"dry_run": False, "pruned": tally(pruned.copies), "problems": list(pruned.problems)}, show, code
    )


def _show_expired(session: Session, over: Sequence[BackupSet]) -> None:
    rows = [[short(one.run_id), one.target, f"{one.files:,}", minute(one.expires_ns)] for one in over]
    session.out.aside.table(["Run", "Target", ">Files", "Was kept until (UTC)"], rows)


def _show_over(session: Session, over: Sequence[BackupSet]) -> None:
    if over:
        _show_sets(session, over)
        session.out.say("\nThese are over. Nothing was removed.")
    else:
        session.out.say("No backup is over yet.")
