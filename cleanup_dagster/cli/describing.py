"""What a plan and a run come to, as a JSON document and for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cleanup_dagster.cli.output import table
from cleanup_dagster.cli.words import files, short, tally
from cleanup_dagster.handles import total
from cleanup_dagster.overview import overview_of_plans
from cleanup_dagster.retention.guardrails import format_bytes
from cleanup_dagster.retention.models import NS_PER_DAY, Tally
from cleanup_dagster.retention.rules import format_age

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console

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


def show_types(console: Console, types: Sequence[TypeOverview]) -> None:
    """Print what is to go, by data type."""
    rows = [[t.data_type, f"{t.files:,}", format_bytes(t.bytes), format_age(t.oldest_age_ns)] for t in types]
    if len(types) > 1:
        together = total(Tally(t.files, t.bytes) for t in types)
        oldest = max(t.oldest_age_ns for t in types)
        rows.append(["together", f"{together.files:,}", format_bytes(together.bytes), format_age(oldest)])
    table(console, ["Would be deleted", ">Files", ">Size", ">Oldest"], rows)


def show_plan(console: Console, report: Report) -> None:
    """Print a plan: what would go, what stays and why, which guardrails it trips, and what is wrong."""
    checked = report.checked
    scanned = total(plan.scanned for plan in checked.plans)
    types = overview_of_plans(checked.plans)
    if types:
        show_types(console, types)
    else:
        console.print(f"Nothing would be deleted of {files(scanned.files)}.")
    kept = _kept(checked.plans)
    if kept:
        console.print()
        rows = [[reason, f"{sums.files:,}", format_bytes(sums.bytes)] for reason, sums in kept]
        table(console, ["Kept because", ">Files", ">Size"], rows)
    for plan in checked.plans:
        if plan.note:
            console.print(f"\nNote: {plan.note}")
    show_guardrails(console, checked)
    show_problems(console, report.problems)


def show_guardrails(console: Console, checked: CheckedPlan) -> None:
    """Print the guardrails that a plan trips."""
    if checked.refusals:
        verb = "would stop" if checked.run.request.dry_run else "stopped"
        console.print(f"\nGuardrails that {verb} a live run:" if verb == "would stop" else "\nStopped by guardrails:")
        for refusal in checked.refusals:
            console.print(f"  {refusal.guardrail.value}: {refusal.message}", style="red")
    for refusal in checked.bypassed:
        console.print(f"\nBypassed guardrail: {refusal.message}", style="yellow")


def show_problems(console: Console, problems: Sequence[str]) -> None:
    """Print what went wrong."""
    if problems:
        console.print("\nProblems:")
        for problem in problems:
            console.print(f"  {problem}", style="red")


def show_live(console: Console, report: Report, pruned: Pruned | None) -> None:
    """Print what a live run did."""
    for sentence in report.checked.run.recovered:
        console.print(f"Recovered: {sentence}")
    deleted = total(c.deleted for c in report.counts.values())
    request = report.checked.run.request
    if report.counts:
        table(console, ["Data type", "Outcome", ">Files", ">Size"], _outcome_rows(report.counts))
        console.print()
    how = "without any backup" if request.skip_backup else "each one backed up first"
    size = format_bytes(deleted.bytes)
    console.print(f"Deleted {files(deleted.files)} ({size}), {how}." if deleted.files else "Nothing was deleted.")
    if pruned and pruned.copies.files:
        gone = pruned.copies
        console.print(f"Removed {files(gone.files)} ({format_bytes(gone.bytes)}) of expired backups.")
    if not report.checked.may_delete:
        show_guardrails(console, report.checked)
    problems = [problem for problem in report.problems if problem not in {r.message for r in report.checked.refusals}]
    show_problems(console, [*problems, *(pruned.problems if pruned else ())])
    if report.log and deleted.files:
        console.print(f"Log:  {report.log}", soft_wrap=True)
    if deleted.files and not request.skip_backup:
        console.print(f"Undo: cleanup-operations restore {short(request.run_id)}")


def _outcome_rows(counts: Mapping[str, Counts]) -> list[list[str]]:
    return [
        [data_type, state.value, f"{sums.files:,}", format_bytes(sums.bytes)]
        for data_type, mine in sorted(counts.items())
        for state, sums in sorted(mine.states.items(), key=lambda entry: entry[0].value)
    ]
