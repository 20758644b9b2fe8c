"""`plan`, `apply` and `run`: the job `cleanup`, dry, with a reviewed plan, or live after a question."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cleanup_dagster.cli import exits
from cleanup_dagster.cli.asking import confirm, confirm_by_word, require_terminal
from cleanup_dagster.cli.exits import CliError
from cleanup_dagster.cli.words import files, short

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cleanup_dagster.cli.executing import Executed
    from cleanup_dagster.cli.session import Session
    from cleanup_dagster.handles import Plan, Report
    from cleanup_dagster.overview import PlanOverview
    from cleanup_dagster.retention.models import Verdict


class Wanted(NamedTuple):
    """What a live run is asked to be."""

    type: str
    yes: bool = False
    skip_backup: bool = False


def plan(session: Session, *, kind: str, list_files: bool) -> int:
    """Make a dry run and show its plan."""
    ended = _clean(session, dry_run=True, kind=kind)
    report = _report(ended)
    code = _code(ended, report)

    def show() -> None:
        from cleanup_dagster.cli.describing import show_plan

        out = session.out
        show_plan(out.page, report)
        if list_files:
            out.say()
            for verdict, path in _verdicts(report):
                out.say(f"{path}  {_why(verdict)}")
        _say_stopped(session, ended)
        if not report.problems and any(one.deletable.files for one in report.checked.plans):
            out.page.print(
                f"\nNothing was touched. To delete exactly this: cleanup-operations apply {short(ended.run_id)}"
            )

    from cleanup_dagster.cli.describing import plan_document

    rows = (_row(verdict, path) for verdict, path in _verdicts(report))
    return session.finish(plan_document(report), show, code, ("files", rows) if list_files else None)


def run(session: Session, wanted: Wanted) -> int:
    """Make a live run. A person is shown the plan first, and what is confirmed is exactly what is deleted."""
    if wanted.skip_backup and wanted.type != "emergency":
        raise CliError(f"--skip-backup goes with --type emergency only, not with {wanted.type}")
    if wanted.type == "automatic" or wanted.yes:
        return _live(session, wanted)
    require_terminal(session.out, f"A live run of type {wanted.type}", "use --yes or --type automatic in scripts")
    dry = _clean(session, dry_run=True, kind=wanted.type, skip_backup=wanted.skip_backup)
    report = _report(dry)
    if dry.stopped:
        raise CliError("Interrupted before anything was changed.", exits.INTERRUPTED)
    _show_aside(session, report)
    if report.checked.refusals:
        return _finish_refused(session, report)
    files_to_go = sum(one.deletable.files for one in report.checked.plans)
    if not files_to_go and not report.problems:
        session.out.note("There is nothing to delete; the run only removes backups that are over.")
    else:
        types = {name for one in report.checked.plans for name in one.expired}
        _confirm(session, wanted, files(files_to_go, types))
    # A plan with problems is not complete and cannot be applied; then the live run makes one of its own.
    return _live(session, wanted, "" if report.problems else dry.run_id)


def apply(session: Session, typed: str, *, yes: bool) -> int:
    """Apply exactly the plan of a dry run."""
    if not yes:
        require_terminal(session.out, "Applying a plan")
    with session.service() as service:
        found = service.records.resolve(typed, lambda one: one.dry_run and one.status.value == "done")
        overview = service.reviewed_plan(found.run_id)
    if not yes:
        _show_overview(session, overview)
        _confirm(session, Wanted("manual"), files(overview.total.files, (one.data_type for one in overview.types)))
    return _live(session, Wanted("manual", yes), found.run_id)


def _clean(session: Session, *, dry_run: bool, kind: str, skip_backup: bool = False, plan: str = "") -> Executed:
    from cleanup_dagster.cli.executing import execute

    with session.service():
        pass  # says what is wrong with the database before Dagster is loaded, and in a sentence of its own
    config: dict[str, object] = {"dry_run": dry_run, "type": kind, "skip_backup": skip_backup, "plan": plan}
    return execute(session, "cleanup", config)


def _report(ended: Executed) -> Report:
    from cleanup_dagster.handles import Report

    report = ended.watch.last(Report)
    if report is None:
        raise CliError(ended.failure, ended.code or exits.SOME_FAILED)
    return report


def _code(ended: Executed, report: Report) -> int:
    if ended.stopped:
        return exits.INTERRUPTED
    if report.status == "refused":
        return exits.REFUSED
    return exits.DONE if ended.success else exits.SOME_FAILED


def _live(session: Session, wanted: Wanted, plan: str = "") -> int:
    from cleanup_dagster.cli.describing import live_document, plan_document, show_live
    from cleanup_dagster.handles import Pruned

    ended = _clean(session, dry_run=False, kind=wanted.type, skip_backup=wanted.skip_backup, plan=plan)
    report = _report(ended)
    pruned = ended.watch.last(Pruned)

    def show() -> None:
        show_live(session.out.page, report, pruned)
        _say_stopped(session, ended)

    document = {**plan_document(report), **live_document(report, pruned)}
    document["problems"] = [*report.problems, *(pruned.problems if pruned else ())]
    return session.finish(document, show, _code(ended, report))


def _say_stopped(session: Session, ended: Executed) -> None:
    if not ended.stopped:
        return
    watch = ended.watch
    what = ", ".join(f"{watch.counted(name)} {name}" for name, count in watch.done.items() if count) or "nothing done"
    session.out.note(
        f"Interrupted at a safe point ({what}). What was not deleted is untouched and comes up again in the next run."
    )


def _confirm(session: Session, wanted: Wanted, what: str) -> None:
    if wanted.type == "emergency":
        confirm_by_word(session.out, "emergency", f"delete {what}{' without any backup' if wanted.skip_backup else ''}")
    else:
        confirm(session.out, f"Delete {what}? Each is backed up first")


def _show_aside(session: Session, report: Report) -> None:
    from cleanup_dagster.cli.describing import show_plan

    show_plan(session.out.aside, report)
    session.out.aside.print()


def _show_overview(session: Session, overview: PlanOverview) -> None:
    from cleanup_dagster.cli.describing import show_types
    from cleanup_dagster.cli.words import when

    aside = session.out.aside
    aside.print(f"Plan {short(overview.run_id)}, made {when(overview.made_ns)}\n")
    show_types(aside, overview.types)
    aside.print("\nEach of them is verified again; what changed since then is left alone.")


def _finish_refused(session: Session, report: Report) -> int:
    from cleanup_dagster.cli.describing import plan_document

    def show() -> None:
        session.out.say(
            "Refused by a guardrail; nothing was deleted. The plan is kept: once it is reviewed, apply it with"
        )
        session.out.say(f"  cleanup-operations apply {short(report.checked.run.request.run_id)}")

    return session.finish(plan_document(report), show, exits.REFUSED)


def _verdicts(report: Report) -> Iterator[tuple[Verdict, str]]:
    """Yield every item that is to go, with its path in text form."""
    for one in report.checked.plans:
        yield from _of_plan(one)


def _of_plan(one: Plan) -> Iterator[tuple[Verdict, str]]:
    from cleanup_dagster.backups.manifest import read_manifest
    from cleanup_dagster.filesystem.names import to_text
    from cleanup_dagster.retention.models import Verdict

    if one.manifest is None or not one.deletable.files:
        return
    root = to_text(one.root)
    for verdict in read_manifest(Path(one.manifest.path), Verdict):
        if verdict.delete:
            yield verdict, f"{root}/{verdict.candidate.path}"


def _why(verdict: Verdict) -> str:
    from cleanup_dagster.retention.rules import sentence

    return f"({verdict.candidate.data_type}: {sentence(verdict)})"


def _row(verdict: Verdict, path: str) -> dict[str, object]:
    from cleanup_dagster.retention.models import NS_PER_DAY
    from cleanup_dagster.retention.rules import sentence

    return {
        "path": path,
        "data_type": verdict.candidate.data_type,
        "bytes": verdict.candidate.identity.size,
        "age_days": round(verdict.age_ns / NS_PER_DAY, 1),
        "reason": sentence(verdict),
    }
