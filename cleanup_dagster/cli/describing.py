"""What a plan and a run come to, as a JSON document and for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cleanup_dagster.cli.words import files, short, tally
from cleanup_dagster.handles import total
from cleanup_dagster.overview import overview_of_plans
from cleanup_dagster.retention.defaults import things
from cleanup_dagster.retention.guardrails import format_bytes
from cleanup_dagster.retention.models import NS_PER_DAY, Tally
from cleanup_dagster.retention.rules import format_age

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cleanup_dagster.cli.pages import Page
    from cleanup_dagster.handles import CheckedPlan, Counts, Plan, Pruned, Report
    from cleanup_dagster.overview import TypeOverview

Document = dict[str, object]


def plan_document(report: Report) -> Document:
    """Describe what a run means to do, and why not more."""
    checked = report.checked
    request = checked.run.request
    return {
        "run_id": request.run_id,
        "type": request.cleanup_type.value,
        "dry_run": request.dry_run,
        "plan": request.plan or None,
        "status": report.status,
        "scanned": tally(total(plan.scanned for plan in checked.plans)),
        "to_delete": tally(total(plan.deletable for plan in checked.plans)),
        "data_types": [type_document(one) for one in overview_of_plans(checked.plans)],
        "kept": [{"reason": reason, **tally(kept)} for reason, kept in _kept(checked.plans)],
        "targets": [_target_document(plan) for plan in checked.plans],
        "guardrails": _guardrails(checked),
        "problems": list(report.problems),
    }


def live_document(report: Report, pruned: Pruned | None) -> Document:
    """Describe what a live run did, besides its plan."""
    counts = report.counts.values()
    copied = total(tally for result in report.results for tally in result.copied.values())
    return {
        "deleted": tally(total(c.deleted for c in counts)),
        "skipped": tally(total(c.skipped for c in counts)),
        "failed": tally(total(c.failed for c in counts)),
        "backed_up": tally(copied) if not report.checked.run.request.skip_backup else tally(Tally()),
        "outcomes": [
            {"data_type": data_type, "state": state.value, **tally(sums)}
            for data_type, mine in sorted(report.counts.items())
            for state, sums in sorted(mine.states.items(), key=lambda entry: entry[0].value)
        ],
        "recovered": list(report.checked.run.recovered),
        "pruned": tally(pruned.copies if pruned else Tally()),
        "log": report.log or None,
    }


def type_document(one: TypeOverview) -> Document:
    """Describe what of one data type is to go."""
    return {
        "data_type": one.data_type,
        "files": one.files,
        "bytes": one.bytes,
        "oldest_days": round(one.oldest_age_ns / NS_PER_DAY, 1),
    }


def _target_document(plan: Plan) -> Document:
    return {
        "target": plan.target,
        "root": plan.root,
        "scanned": tally(plan.scanned),
        "to_delete": tally(plan.deletable),
        "manifest": plan.manifest.path if plan.manifest else None,
        "note": plan.note,
        "problem": plan.problem,
    }


def _guardrails(checked: CheckedPlan) -> list[Document]:
    tripped = [*((r, "stops") for r in checked.refusals), *((r, "bypassed") for r in checked.bypassed)]
    return [
        {"guardrail": r.guardrail.value, "subject": r.subject, "effect": effect, "message": r.message}
        for r, effect in tripped
    ]


def _kept(plans: Iterable[Plan]) -> list[tuple[str, Tally]]:
    sums: dict[str, Tally] = {}
    for plan in plans:
        for reason, kept in plan.kept.items():
            sums[reason.value] = sums.get(reason.value, Tally()).plus(kept.files, kept.bytes)
    return sorted(sums.items(), key=lambda entry: -entry[1].files)


def show_types(page: Page, types: Sequence[TypeOverview]) -> None:
    """Print what is to go, by data type."""
    rows = [[t.data_type, f"{t.files:,}", format_bytes(t.bytes), format_age(t.oldest_age_ns)] for t in types]
    if len(types) > 1:
        together = total(Tally(t.files, t.bytes) for t in types)
        oldest = max(t.oldest_age_ns for t in types)
        rows.append(["together", f"{together.files:,}", format_bytes(together.bytes), format_age(oldest)])
    page.table(["Would be deleted", f">{things(t.data_type for t in types).capitalize()}", ">Size", ">Oldest"], rows)


def show_plan(page: Page, report: Report) -> None:
    """Print a plan: what would go, what stays and why, which guardrails it trips, and what is wrong."""
    checked = report.checked
    scanned = total(plan.scanned for plan in checked.plans)
    scanned_types = {name for plan in checked.plans if plan.scanned.files for name in plan.data_types}
    types = overview_of_plans(checked.plans)
    if types:
        show_types(page, types)
    else:
        page.print(f"Nothing would be deleted of {files(scanned.files, scanned_types)}.")
    kept = _kept(checked.plans)
    if kept:
        page.print()
        rows = [[reason, f"{sums.files:,}", format_bytes(sums.bytes)] for reason, sums in kept]
        page.table(["Kept because", f">{things(scanned_types).capitalize()}", ">Size"], rows)
    for plan in checked.plans:
        if plan.note:
            page.print(f"\nNote: {plan.note}")
    show_guardrails(page, checked)
    show_problems(page, report.problems)


def show_guardrails(page: Page, checked: CheckedPlan) -> None:
    """Print the guardrails that a plan trips."""
    if checked.refusals:
        dry = checked.run.request.dry_run
        page.print("\nGuardrails that would stop a live run:" if dry else "\nStopped by guardrails:")
        for refusal in checked.refusals:
            page.print(f"  {refusal.guardrail.value}: {refusal.message}", "red", 4)
    for refusal in checked.bypassed:
        page.print(f"\nBypassed guardrail: {refusal.message}", "yellow")


def show_problems(page: Page, problems: Sequence[str]) -> None:
    """Print what went wrong; what several targets met is said once."""
    met: dict[str, list[str]] = {}
    for problem in problems:
        subject, colon, said = problem.partition(": ")
        met.setdefault(said if colon else problem, []).extend([subject] if colon else [])
    if met:
        page.print("\nProblems:")
    for said, subjects in met.items():
        page.print(f"  {', '.join(subjects)}: {said}" if subjects else f"  {said}", "red", 4)


def show_live(page: Page, report: Report, pruned: Pruned | None) -> None:
    """Print what a live run did."""
    for sentence in report.checked.run.recovered:
        page.print(f"Recovered: {sentence}")
    deleted = total(c.deleted for c in report.counts.values())
    request = report.checked.run.request
    if report.counts:
        titles = ["Data type", "Outcome", f">{things(report.counts).capitalize()}", ">Size"]
        page.table(titles, _outcome_rows(report.counts))
        page.print()
    how = "without any backup" if request.skip_backup else "each one backed up first"
    size = format_bytes(deleted.bytes)
    what = files(deleted.files, report.counts)
    page.print(f"Deleted {what} ({size}), {how}." if deleted.files else "Nothing was deleted.")
    if pruned and pruned.copies.files:
        gone = pruned.copies
        page.print(f"Removed {files(gone.files)} ({format_bytes(gone.bytes)}) of expired backups.")
    show_guardrails(page, report.checked)
    problems = [problem for problem in report.problems if problem not in {r.message for r in report.checked.refusals}]
    show_problems(page, [*problems, *(pruned.problems if pruned else ())])
    if report.log and deleted.files:
        page.print(f"Log:  {report.log}")
    if deleted.files and not request.skip_backup:
        page.print(f"Undo: cleanup-operations restore {short(request.run_id)}")


def _outcome_rows(counts: Mapping[str, Counts]) -> list[list[str]]:
    return [
        [data_type, state.value, f"{sums.files:,}", format_bytes(sums.bytes)]
        for data_type, mine in sorted(counts.items())
        for state, sums in sorted(mine.states.items(), key=lambda entry: entry[0].value)
    ]
