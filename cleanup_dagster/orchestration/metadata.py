# pyright: reportUnknownMemberType=false - Dagster leaves parts of its own signatures unknown
"""What Dagster's UI shows of a run: counts, bytes, examples with reasons, and where the whole list is."""

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from cleanup_dagster.handles import BackedUp, CheckedPlan, Counts, Deleted, Plan, Report, Run, total
from cleanup_dagster.retention.guardrails import format_bytes
from cleanup_dagster.retention.models import Policy, PolicyProblem, Tally, Verdict
from cleanup_dagster.retention.rules import format_age, sentence

Metadata = dict[str, Any]


def of_run(run: Run) -> Metadata:
    """Describe what was asked for, and the policies as they were read."""
    shown: Metadata = {
        "type": run.request.cleanup_type.value,
        "dry_run": run.request.dry_run,
        "executed_by": run.request.executed_by,
        "policies": _table(
            {"data_type": "string", "kept": "string", "keep_last": "string"},
            [_policy(policy) for _, policy in sorted(run.policies.items())],
        ),
    }
    if run.recovered:
        shown["recovered"] = "\n".join(run.recovered)
    return shown


def of_plan(plan: Plan) -> Metadata:
    """Describe what a run means to do in one target, and why."""
    shown: Metadata = {
        "root": dg.MetadataValue.path(plan.root),
        "scanned_files": plan.scanned.files,
        "scanned_bytes": plan.scanned.bytes,
        "would_delete_files": plan.deletable.files,
        "would_delete_bytes": plan.deletable.bytes,
    }
    if plan.problem:
        shown["problem"] = plan.problem
    if plan.note:
        shown["note"] = plan.note
    if plan.warnings:
        shown["warnings"] = "\n".join(plan.warnings)
    if plan.expired:
        shown["would_delete"] = _tallies(plan.expired)
    if plan.kept:
        shown["kept_because"] = _tallies({reason.value: tally for reason, tally in plan.kept.items()})
    if plan.largest:
        shown["largest"] = _examples(plan.largest)
        shown["oldest"] = _examples(plan.oldest)
    if plan.manifest is not None:
        shown["manifest"] = dg.MetadataValue.path(plan.manifest.path)
        shown["manifest_sha256"] = plan.manifest.sha256
    return shown


def of_check(checked: CheckedPlan) -> Metadata:
    """Describe the plan as a whole, and the guardrails it met."""
    expired = total(plan.deletable for plan in checked.plans)
    shown: Metadata = {
        "would_delete_files": expired.files,
        "would_delete_bytes": expired.bytes,
        "refused_by": len(checked.refusals),
        "bypassed": len(checked.bypassed),
    }
    effect = "would stop a live run" if checked.run.request.dry_run else "stops the run"
    tripped = [*((effect, r) for r in checked.refusals), *(("bypassed", r) for r in checked.bypassed)]
    if tripped:
        shown["guardrails"] = _table(
            {"guardrail": "string", "effect": "string", "message": "string"},
            [{"guardrail": r.guardrail.value, "effect": effect, "message": r.message} for effect, r in tripped],
        )
    return shown


def of_backup(backed_up: BackedUp, directory: str) -> Metadata:
    """Describe one target's backup."""
    copied = total(backed_up.copied.values())
    shown: Metadata = {
        "backed_up_files": copied.files,
        "backed_up_bytes": copied.bytes,
        "backup_directory": dg.MetadataValue.path(directory),
    }
    if backed_up.problem:
        shown["problem"] = backed_up.problem
    if backed_up.counts:
        shown["not_backed_up"] = _counts(backed_up.counts)
    if backed_up.receipts is not None:
        shown["manifest"] = dg.MetadataValue.path(backed_up.receipts.path)
        shown["manifest_sha256"] = backed_up.receipts.sha256
    return shown


def of_deletion(deleted: Deleted) -> Metadata:
    """Describe what went, and what did not and why."""
    gone = total(counts.deleted for counts in deleted.counts.values())
    shown: Metadata = {
        "deleted_files": gone.files,
        "deleted_bytes": gone.bytes,
        "directories_removed": deleted.directories_removed,
        "open_file_check": ", ".join(deleted.open_checks) or "nothing to check",
    }
    if deleted.problem:
        shown["problem"] = deleted.problem
    if deleted.counts:
        shown["outcomes"] = _counts(deleted.counts)
    return shown


def of_report(report: Report) -> Metadata:
    """Describe how the whole run ended."""
    counts = report.counts
    shown: Metadata = {
        "status": report.status,
        "deleted_files": total(c.deleted for c in counts.values()).files,
        "deleted_bytes": total(c.deleted for c in counts.values()).bytes,
        "skipped_files": total(c.skipped for c in counts.values()).files,
        "failed_files": total(c.failed for c in counts.values()).files,
    }
    if counts:
        shown["by_data_type"] = _counts(counts)
    if report.problems:
        shown["problems"] = dg.MetadataValue.md("\n".join(f"- {problem}" for problem in report.problems))
    if report.checked.run.recovered:
        shown["recovered"] = "\n".join(report.checked.run.recovered)
    if report.log:
        shown["log"] = dg.MetadataValue.path(report.log)
    return shown


def summary(report: Report) -> str:
    """Return one sentence about how a run ended."""
    checked = report.checked
    if checked.run.request.dry_run:
        expired = total(plan.deletable for plan in checked.plans)
        stopped = f", but {len(checked.refusals)} guardrails would stop it" if checked.refusals else ""
        return f"dry run: a live run would delete {expired.files:,} files ({format_bytes(expired.bytes)}){stopped}"
    deleted = total(counts.deleted for counts in report.counts.values())
    return f"deleted {deleted.files:,} files ({format_bytes(deleted.bytes)}), each of them backed up or said not to be"


def _examples(verdicts: Iterable[Verdict]) -> dg.TableMetadataValue:
    return _table(
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
    kept = f"{policy.retention_days} days" if policy.enabled else "for ever: disabled"
    return {"data_type": policy.data_type, "kept": kept, "keep_last": str(policy.keep_last or "")}


def _tallies(tallies: Mapping[str, Tally]) -> dg.TableMetadataValue:
    return _table(
        {"what": "string", "files": "int", "size": "string"},
        [
            {"what": what, "files": tally.files, "size": format_bytes(tally.bytes)}
            for what, tally in sorted(tallies.items())
        ],
    )


def _counts(counts: Mapping[str, Counts]) -> dg.TableMetadataValue:
    return _table(
        {"data_type": "string", "outcome": "string", "files": "int", "size": "string"},
        [
            {"data_type": data_type, "outcome": state.value, "files": tally.files, "size": format_bytes(tally.bytes)}
            for data_type, mine in sorted(counts.items())
            for state, tally in sorted(mine.states.items(), key=lambda entry: entry[0].value)
        ],
    )


def _table(columns: Mapping[str, str], records: list[dict[str, str | int]]) -> dg.TableMetadataValue:
    schema = dg.TableSchema([dg.TableColumn(name, kind) for name, kind in columns.items()])
    return dg.MetadataValue.table([dg.TableRecord(record) for record in records], schema)
