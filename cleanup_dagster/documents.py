"""What the records say, as JSON: the same keys from the command line, the API and the page.

Moments are ISO 8601 in UTC, sizes bytes, ages days, paths in text form.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cleanup_dagster.database.audit import AuditRow, AuditTotals
    from cleanup_dagster.database.holds import HoldRow
    from cleanup_dagster.database.policies import PolicyRow
    from cleanup_dagster.database.runs import RunRecord
    from cleanup_dagster.explaining import Explanation
    from cleanup_dagster.inventory import BackupFile, BackupSet

Document = dict[str, object]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def iso(moment_ns: int | None) -> str | None:
    """Return a moment: `2026-01-31T02:00:00Z`."""
    if moment_ns is None:
        return None
    return f"{_EPOCH + timedelta(microseconds=moment_ns // 1_000):%Y-%m-%dT%H:%M:%SZ}"


def of_types(policies: Iterable[PolicyRow], totals: Mapping[str, AuditTotals]) -> Iterator[Document]:
    """Yield what the policy of each data type says and its cleanups did; types that have no policy come last."""
    named = {policy.data_type: policy for policy in policies}
    for data_type in [*named, *sorted(totals.keys() - named.keys())]:
        policy, mine = named.get(data_type), totals.get(data_type)
        yield {
            "data_type": data_type,
            "retention_days": policy.retention_days if policy else None,
            "enabled": policy.enabled if policy else None,
            "last_cleanup": iso(mine.last_cleanup_ns) if mine else None,
            "total_cleaned": mine.total_cleaned if mine else 0,
            "space_saved": mine.space_saved if mine else 0,
        }


def of_policy(row: PolicyRow) -> Document:
    """Return one policy; a value that cannot be obeyed is null, and `problem` says what it is."""
    return {
        "data_type": row.data_type,
        "retention_days": row.retention_days,
        "enabled": row.enabled,
        "keep_last": row.keep_last,
        "description": row.description,
        "created_at": iso(row.created_ns),
        "updated_at": iso(row.updated_ns),
        "problem": row.problem,
    }


def of_audit(row: AuditRow) -> Document:
    """Return what one run did to one data type."""
    return {
        "run_id": row.run_id or None,
        "data_type": row.data_type,
        "cleanup_type": row.cleanup_type,
        "outcome": row.outcome,
        "records_deleted": row.records_deleted,
        "space_freed": row.space_freed_bytes,
        "records_skipped": row.records_skipped,
        "records_failed": row.records_failed,
        "backup_bytes": row.backup_bytes,
        "executed_at": iso(row.executed_ns),
        "executed_by": row.executed_by,
        "message": row.message,
    }


def of_run(run: RunRecord) -> Document:
    """Return one run."""
    return {
        "run_id": run.run_id,
        "cleanup_type": run.cleanup_type.value,
        "dry_run": run.dry_run,
        "status": run.status.value,
        "started_at": iso(run.started_ns),
        "finished_at": iso(run.finished_ns),
        "executed_by": run.executed_by,
        "host": run.host,
        "plan": run.plan_of,
        "scanned_files": run.totals.scanned_files,
        "expired_files": run.totals.expired_files,
        "expired_bytes": run.totals.expired_bytes,
        "deleted_files": run.totals.deleted_files,
        "freed_bytes": run.totals.freed_bytes,
        "failed_files": run.totals.failed_files,
        "message": run.message,
    }


def of_hold(row: HoldRow, now_ns: int, idleness: str) -> Document:
    """Return one hold, whether it is in force at this moment, and why it keeps nothing all the same (`idleness`)."""
    hold = row.hold
    return {
        "id": hold.id,
        "pattern": hold.pattern,
        "data_type": hold.data_type,
        "pipeline": hold.pipeline,
        "reason": hold.reason,
        "placed_by": row.placed_by,
        "placed_at": iso(row.placed_ns),
        "until": iso(hold.until_ns),
        "active": hold.until_ns is None or hold.until_ns > now_ns,
        "warning": idleness or None,
    }


def of_backups(one: BackupSet) -> Document:
    """Return the backups of one target of one run."""
    return {
        "run_id": one.run_id,
        "target": one.target,
        "root": one.root,
        "directory": one.directory,
        "files": one.files,
        "bytes": one.bytes,
        "made_at": iso(one.made_ns),
        "expires_at": iso(one.expires_ns),
    }


def of_backup_file(file: BackupFile) -> Document:
    """Return one file that a run backed up."""
    return {
        "target": file.target,
        "path": file.path,
        "data_type": file.data_type,
        "bytes": file.bytes,
        "sha256": file.sha256,
        "copy": file.copy,
    }


def of_explanation(found: Explanation) -> Document:
    """Return why a file is kept or would go, and when."""
    from cleanup_dagster.retention.models import NS_PER_DAY, Policy

    verdict, policy = found.verdict, found.policy
    return {
        "path": found.path,
        "exists": found.exists,
        "target": found.target,
        "data_type": verdict.candidate.data_type if verdict else None,
        "retention_days": policy.retention_days if isinstance(policy, Policy) else None,
        "enabled": policy.enabled if isinstance(policy, Policy) else None,
        "age_days": round(verdict.age_ns / NS_PER_DAY, 2) if verdict else None,
        "age_from": verdict.candidate.age_from.value if verdict else None,
        "would_delete": verdict.delete if verdict else False,
        "rule": verdict.reason.value if verdict else None,
        "reason": found.reason,
        "due_at": iso(found.due_ns),
        "backups": [
            {
                "run_id": one.run_id,
                "copy": one.copy,
                "deleted_at": iso(one.deleted_ns),
                "expires_at": iso(one.expires_ns),
            }
            for one in found.copies
        ],
    }
