# pyright: reportUnknownMemberType=false
# Dagster leaves parts of its own signatures unknown.
"""What Dagster's UI shows of a run: counts, bytes, examples with reasons, and where the whole list is."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from cleanup_dagster.handles import BackedUp, CheckedPlan, Counts, Deleted, Plan, Report, RestoreReport, Run, total
from cleanup_dagster.retention.defaults import counted, things
from cleanup_dagster.retention.guardrails import format_bytes
from cleanup_dagster.retention.models import Policy, PolicyProblem, RestoreState, Tally, Verdict
from cleanup_dagster.retention.rules import format_age, sentence
from cleanup_dagster.run_history.store import is_runs_root

Metadata = dict[str, Any]


def of_run(run: Run) -> Metadata:
    """Describe what was asked for, and the policies as they were read."""
    shown: Metadata = {
        "type": run.request.cleanup_type.value,
        "dry_run": run.request.dry_run,
        "executed_by": run.request.executed_by,
        **({"plan": f"exactly what the dry run {run.request.plan} found"} if run.request.plan else {}),
        "policies": table(
            {"data_type": "string", "kept": "string", "keep_last": "string"},
            [_policy(policy) for _, policy in sorted(run.policies.items())],
        ),
    }
    if run.recovered:
        shown["recovered"] = "\n".join(run.recovered)
    if run.request.disk_pressure:
        shown["pruned_first"] = _files(run.pruned)
    return shown


def of_plan(plan: Plan) -> Metadata:
    """Describe what a run means to do in one target, and why."""
    what = things(plan.data_types)
    shown: Metadata = {"summary": intention([plan])}
    if plan.problem:
        shown["problem"] = plan.problem
    if plan.note:
        shown["note"] = plan.note
    if plan.warnings:
        shown["warnings"] = "\n".join(plan.warnings)
    if plan.expired:
        shown["to_delete"] = _tallies("data_type", plan.expired, what)
    if plan.kept:
        shown["kept_because"] = _tallies("reason", {reason.value: tally for reason, tally in plan.kept.items()}, what)
    shown["root"] = plan.root if is_runs_root(plan.root) else dg.MetadataValue.path(plan.root)
    if plan.manifest is not None:
        shown["manifest"] = dg.MetadataValue.path(plan.manifest.path)
        shown["manifest_sha256"] = plan.manifest.sha256
    shown["scanned_files"] = plan.scanned.files
    shown["scanned_bytes"] = plan.scanned.bytes
    shown["to_delete_files"] = plan.deletable.files
    shown["to_delete_bytes"] = plan.deletable.bytes
    if plan.largest:
        shown["largest"] = _examples(plan.largest)
        shown["oldest"] = _examples(plan.oldest)
    return shown


def of_check(checked: CheckedPlan) -> Metadata:
    """Describe the plan as a whole, and the guardrails it met."""
    shown: Metadata = {"summary": planned(checked)}
    effect = "would stop a live run" if checked.run.request.dry_run else "stops the run"
    tripped = [*((effect, r) for r in checked.refusals), *(("bypassed", r) for r in checked.bypassed)]
    if tripped:
        shown["guardrails"] = table(
            {"guardrail": "string", "effect": "string", "message": "string"},
            [{"guardrail": r.guardrail.value, "effect": effect, "message": r.message} for effect, r in tripped],
        )
    shown["targets"] = table(
        {"target": "string", "scanned": "int", "to_delete": "int", "size": "string", "note": "string"},
        [
            {
                "target": plan.target,
                "scanned": plan.scanned.files,
                "to_delete": plan.deletable.files,
                "size": format_bytes(plan.deletable.bytes),
                "note": plan.problem or plan.note,
            }
            for plan in checked.plans
        ],
    )
    expired = total(plan.deletable for plan in checked.plans)
    shown["to_delete_files"] = expired.files
    shown["to_delete_bytes"] = expired.bytes
    return shown


def of_backup(backed_up: BackedUp, directory: str) -> Metadata:
    """Describe one target's backup."""
    copied = total(backed_up.copied.values())
    shown: Metadata = {"summary": saved(backed_up)}
    if backed_up.problem:
        shown["problem"] = backed_up.problem
    if not backed_up.plan.run.request.skip_backup:
        shown["backup_directory"] = dg.MetadataValue.path(directory)
        shown["backed_up_files"] = copied.files
        shown["backed_up_bytes"] = copied.bytes
    if backed_up.counts:
        shown["not_backed_up"] = _counts(backed_up.counts)
    if backed_up.receipts is not None:
        shown["manifest"] = dg.MetadataValue.path(backed_up.receipts.path)
        shown["manifest_sha256"] = backed_up.receipts.sha256
    return shown


def of_deletion(deleted: Deleted) -> Metadata:
    """Describe what went, and what did not and why."""
    gone = total(counts.deleted for counts in deleted.counts.values())
    shown: Metadata = {"summary": gone_and_left(deleted)}
    if deleted.problem:
        shown["problem"] = deleted.problem
    if deleted.counts:
        shown["outcomes"] = _counts(deleted.counts)
    shown["directories_removed"] = deleted.directories_removed
    shown["open_file_check"] = ", ".join(deleted.open_checks) or "nothing to check"
    shown["deleted_files"] = gone.files
    shown["deleted_bytes"] = gone.bytes
    return shown


def of_report(report: Report) -> Metadata:
    """Describe how the whole run ended."""
    counts = report.counts
    deleted = total(c.deleted for c in counts.values())
    shown: Metadata = {"summary": summary(report), "status": report.status}
    if report.problems:
        shown["problems"] = "\n".join(report.problems)
    if counts:
        shown["by_data_type"] = _counts(counts)
    if report.checked.run.recovered:
        shown["recovered"] = "\n".join(report.checked.run.recovered)
    if report.log:
        shown["backup_directory"] = dg.MetadataValue.path(str(Path(report.log).parent))
        shown["log"] = dg.MetadataValue.path(report.log)
    shown["deleted_files"] = deleted.files
    shown["deleted_bytes"] = deleted.bytes
    shown["skipped_files"] = total(c.skipped for c in counts.values()).files
    shown["failed_files"] = total(c.failed for c in counts.values()).files
    return shown


def of_restore(report: RestoreReport) -> Metadata:
    """Describe what was put back, and what was not and why."""
    request = report.request
    verb = "would be put back" if request.dry_run else "put back"
    well = total(tally for state, tally in report.states.items() if state.is_well and state is not RestoreState.PRESENT)
    shown: Metadata = {
        "summary": f"{_files(well, report.what)} {verb}",
        "of_run": request.of_run,
        "dry_run": request.dry_run,
        "executed_by": request.executed_by,
    }
    if report.problems:
        shown["problems"] = "\n".join(report.problems)
    if report.states:
        tallies = {state.value: tally for state, tally in report.states.items()}
        shown[report.what.replace(" ", "_")] = _tallies("state", tallies, report.what)
    if report.troubled:
        shown["not_restored"] = table(
            {"path": "string", "data_type": "string", "state": "string", "detail": "string"},
            [
                {"path": one.path, "data_type": one.data_type, "state": one.state.value, "detail": one.detail}
                for one in report.troubled
            ],
        )
    if report.holds:
        shown["holds"] = ", ".join(map(str, report.holds))
    shown["manifests"] = dg.MetadataValue.path(report.manifests)
    return shown


def planned(checked: CheckedPlan) -> str:
    """Return one sentence about what a run means to do, and what stops it."""
    many = len(checked.refusals)
    stopped = ""
    if many:
        guardrails = "1 guardrail" if many == 1 else f"{many} guardrails"
        stopped = f", but {guardrails} would stop it" if checked.run.request.dry_run else f"; {guardrails} stopped it"
    return intention(checked.plans) + stopped


def saved(backed_up: BackedUp) -> str:
    """Return one sentence about one target's backup."""
    plan = backed_up.plan
    if plan.run.request.skip_backup:
        return f"{plan.target}: no backup, as asked for"
    return f"{plan.target}: {_files(total(backed_up.copied.values()), things(plan.data_types))} backed up"


def gone_and_left(deleted: Deleted) -> str:
    """Return one sentence about what went from one target, and how much of its plan did not."""
    gone = total(counts.deleted for counts in deleted.counts.values())
    left = deleted.plan.deletable.files - gone.files
    what = _files(gone, things(deleted.plan.data_types))
    return f"{deleted.plan.target}: {what} deleted" + (f", {left:,} not (the outcomes say why)" if left else "")


def summary(report: Report) -> str:
    """Return one sentence about how a run ended."""
    request = report.checked.run.request
    if request.dry_run:
        return planned(report.checked)
    if report.checked.refusals:
        return f"refused, nothing was deleted: {planned(report.checked)}"
    deleted = total(counts.deleted for counts in report.counts.values())
    if not deleted.files:
        return "nothing was deleted"
    how = "without any backup" if request.skip_backup else "each one backed up first"
    return f"deleted {_files(deleted, things(report.counts))}, {how}"


def intention(plans: Sequence[Plan]) -> str:
    """Return one sentence about what plans would take."""
    scanned, expired = total(plan.scanned for plan in plans), total(plan.deletable for plan in plans)
    verb = "a live run would delete" if all(plan.run.request.dry_run for plan in plans) else "this run is to delete"
    what = things(name for plan in plans if plan.scanned.files for name in plan.data_types)
    if not expired.files:
        return f"{verb} none of {scanned.files:,} {what}"
    if "runs" in what:  # of the others nobody knows the size
        return f"{verb} {expired.files:,} of {scanned.files:,} {what} ({format_bytes(expired.bytes)})"
    sizes = f"{format_bytes(expired.bytes)} of {format_bytes(scanned.bytes)}"
    return f"{verb} {expired.files:,} of {scanned.files:,} {what} ({sizes})"


def _files(tally: Tally, what: str = "files") -> str:
    return f"{counted(tally.files, what)} ({format_bytes(tally.bytes)})"


def _examples(verdicts: Iterable[Verdict]) -> dg.TableMetadataValue:
    return table(
        {"path": "string", "data_type": "string", "size": "string", "age": "string", "reason": "string"},
        [
            {
                "path": verdict.candidate.path,
                "data_type": verdict.candidate.data_type,
                "size": format_bytes(verdict.candidate.identity.size),
                "age": format_age(verdict.age_ns),
                "reason": sentence(verdict),
            }
            for verdict in verdicts
        ],
    )


def _policy(policy: Policy | PolicyProblem) -> dict[str, str | int]:
    if isinstance(policy, PolicyProblem):
        return {"data_type": policy.data_type, "kept": f"for ever: {policy.message}", "keep_last": ""}
    days = "1 day" if policy.retention_days == 1 else f"{policy.retention_days:,} days"
    kept = days if policy.enabled else "for ever: disabled"
    return {"data_type": policy.data_type, "kept": kept, "keep_last": str(policy.keep_last or "")}


def _tallies(heading: str, tallies: Mapping[str, Tally], what: str) -> dg.TableMetadataValue:
    return table(
        {heading: "string", what: "int", "size": "string"},
        [
            {heading: name, what: tally.files, "size": format_bytes(tally.bytes)}
            for name, tally in sorted(tallies.items())
        ],
    )


def _counts(counts: Mapping[str, Counts]) -> dg.TableMetadataValue:
    what = things(counts)
    return table(
        {"data_type": "string", "outcome": "string", what: "int", "size": "string"},
        [
            {"data_type": data_type, "outcome": state.value, what: tally.files, "size": format_bytes(tally.bytes)}
            for data_type, mine in sorted(counts.items())
            for state, tally in sorted(mine.states.items(), key=lambda entry: entry[0].value)
        ],
    )


def table(columns: Mapping[str, str], records: Sequence[Mapping[str, str | int | float]]) -> dg.TableMetadataValue:
    """Return a table of plain values."""
    schema = dg.TableSchema([dg.TableColumn(name, kind) for name, kind in columns.items()])
    return dg.MetadataValue.table([dg.TableRecord(record) for record in records], schema)
