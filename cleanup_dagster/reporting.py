"""Ending a run: its audit rows and its row in `cleanup_runs` in one transaction, and a log file beside the backups."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cleanup_dagster.backups.manifest import ManifestError, read_header, read_manifest
from cleanup_dagster.database import audit, run_targets
from cleanup_dagster.database.audit import AuditRow
from cleanup_dagster.database.runs import RunStatus, RunTotals, finish_run
from cleanup_dagster.filesystem.private import private_directory
from cleanup_dagster.handles import CheckedPlan, Counts, Deleted, Report, total
from cleanup_dagster.installation import Installation
from cleanup_dagster.retention.defaults import things
from cleanup_dagster.retention.guardrails import format_bytes
from cleanup_dagster.retention.models import Outcome, Receipt, Tally
from cleanup_dagster.retention.times import from_ns

#: Lines about single files in the log; the manifests have every one.
_LOG_LINES = 10_000


def conclude(installation: Installation, checked: CheckedPlan, results: Sequence[Deleted]) -> Report:
    """Write the audit of a run and end it. A dry run has no audit rows and no log, only its row.

    Raises DatabaseUnavailable when the audit cannot be written: then the run stays open, its manifests hold what it
    did, and the next live run writes the audit from them.
    """
    report = _report(checked, results)
    now_ns = installation.clock()
    request = checked.run.request
    if not request.dry_run:
        report = _with_log(installation, report, now_ns)
    if any(result.unsettled for result in results):
        return report  # the run's row stays open: the next live run recovers it and writes its audit
    with installation.database.begin() as conn:
        if not request.dry_run:
            for result in results:
                gone = total(counts.deleted for counts in result.counts.values())
                run_targets.finish_target(conn, request.run_id, result.plan.target, gone, now_ns)
            audit.append(conn, _audit_rows(installation, report, now_ns))
        message = "; ".join(report.problems)
        finish_run(conn, request.run_id, RunStatus(report.status), message, _run_totals(report), now_ns)
    if not request.dry_run:
        installation.state.mark_ended(request.run_id)
    return report


def _report(checked: CheckedPlan, results: Sequence[Deleted]) -> Report:
    problems = list(checked.run.problems)
    for plan in checked.plans:
        problems += [plan.problem] if plan.problem else []
        problems += plan.warnings
    refused = not checked.run.request.dry_run and bool(checked.refusals)
    if refused:  # a dry run is refused nothing: it reports what would stop a live one
        problems += [refusal.message for refusal in checked.refusals]
    for result in results:
        problems += [result.problem] if result.problem else []
        failed = total(counts.failed for counts in result.counts.values())
        if failed.files:
            what = things(result.plan.data_types)
            problems.append(
                f"{result.plan.target}: {failed.files:,} {what} could not be dealt with; the log names them"
            )
    ending = RunStatus.FAILED if problems else RunStatus.DONE
    status = RunStatus.REFUSED if refused else ending
    return Report(checked, status.value, tuple(results), tuple(problems))


def _audit_rows(installation: Installation, report: Report, now_ns: int) -> Iterator[AuditRow]:
    request = report.checked.run.request
    counts = report.counts
    copied: dict[str, Tally] = {}
    checks: set[str] = set()
    for result in report.results:
        checks |= set(result.open_checks)
        for data_type, tally in result.copied.items():
            copied[data_type] = copied.get(data_type, Tally()).plus(tally.files, tally.bytes)
    for data_type in sorted({data_type for plan in report.checked.plans for data_type in plan.data_types}):
        mine = counts.get(data_type, Counts())
        yield AuditRow(
            run_id=request.run_id,
            data_type=data_type,
            cleanup_type=request.cleanup_type.value,
            outcome=report.status,
            executed_ns=now_ns,
            executed_by=request.executed_by,
            records_deleted=mine.deleted.files,
            space_freed_bytes=mine.deleted.bytes,
            records_failed=mine.failed.files,
            records_skipped=mine.skipped.files,
            backup_bytes=0 if request.skip_backup else copied.get(data_type, Tally()).bytes,
            open_check=", ".join(sorted(checks)),
            manifest=str(installation.state.manifests(request.run_id)),
            message="; ".join(report.problems),
        )


def _run_totals(report: Report) -> RunTotals:
    plans = report.checked.plans
    expired = total(plan.deletable for plan in plans)
    counts = report.counts.values()
    deleted = total(c.deleted for c in counts)
    return RunTotals(
        scanned_files=total(plan.scanned for plan in plans).files,
        expired_files=expired.files,
        expired_bytes=expired.bytes,
        deleted_files=deleted.files,
        freed_bytes=deleted.bytes,
        failed_files=total(c.failed for c in counts).files,
    )


def _with_log(installation: Installation, report: Report, now_ns: int) -> Report:
    """Write `cleanup_<time>_<run>.log` beside the backups. A log that cannot be written is a problem of the run."""
    request = report.checked.run.request
    directory, run_id = installation.backup_directory(request), request.run_id
    path = directory / f"cleanup_{from_ns(now_ns):%Y%m%dT%H%M%SZ}_{run_id[:8]}.log"
    problems = report.problems
    try:
        with private_directory(directory, "backup directory") as fd:
            log = os.open(path.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=fd)
            with os.fdopen(log, "w", encoding="utf-8") as file:
                file.writelines(f"{_one_line(line)}\n" for line in _log_lines(installation, report, now_ns))
    except Exception as error:  # noqa: BLE001 whatever keeps the log from being written must not keep the audit from it
        problems = (*problems, f"the log {path} could not be written: {error}")
    return Report(
        report.checked,
        RunStatus.FAILED.value if problems and report.status == RunStatus.DONE.value else report.status,
        report.results,
        problems,
        str(path),
    )


def _one_line(text: str) -> str:
    """Return a line as one line: the reason of a hold, or who started a run, must not write other lines of the log."""
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _log_lines(installation: Installation, report: Report, now_ns: int) -> Iterator[str]:
    request = report.checked.run.request
    yield f"{from_ns(now_ns):%Y-%m-%d %H:%M:%S} UTC  run {request.run_id}  type {request.cleanup_type.value}"
    yield f"executed by {request.executed_by}: {report.status}"
    for sentence in report.checked.run.recovered:
        yield f"recovered: {sentence}"
    for refusal in report.checked.bypassed:
        yield f"bypassed guardrail: {refusal.message}"
    for problem in report.problems:
        yield f"problem: {problem}"
    for data_type, counts in sorted(report.counts.items()):
        yield (
            f"{data_type}: {counts.deleted.files:,} deleted ({format_bytes(counts.deleted.bytes)}), "
            f"{counts.skipped.files:,} skipped, {counts.failed.files:,} failed"
        )
    lines = _item_lines(installation, report)
    for _, line in zip(range(_LOG_LINES), lines, strict=False):
        yield line
    if next(lines, None) is not None:
        yield f"... more in the manifests: {installation.state.manifests(request.run_id)}"


def _item_lines(installation: Installation, report: Report) -> Iterator[str]:
    run_id = report.checked.run.request.run_id
    for result in report.results:
        target, root = result.plan.target, result.plan.root
        for outcome in _rows_of(installation.state.skipped(run_id, target)):
            yield f"{outcome.state.value}  {root}/{outcome.path}  {outcome.detail}"
        receipts = installation.state.receipts(run_id, target)
        for outcomes in installation.state.own_outcomes(run_id, target):
            for outcome, receipt in zip(_rows_of(outcomes), _receipts_of(outcomes, receipts), strict=False):
                where = f"backup {receipt.backup}" if receipt.backup else "no backup"
                yield f"{outcome.state.value}  {root}/{outcome.path}  {outcome.detail or where}"


def _receipts_of(outcomes: Path, receipts: Path) -> Iterator[Receipt]:
    """Yield the receipts that the rows of some outcomes tell of, in their order."""
    try:
        part = read_header(outcomes).part
    except ManifestError:
        return
    yield from read_manifest(receipts, Receipt, part, torn=True)


def _rows_of(path: Path) -> Iterator[Outcome]:
    try:
        if path.exists():
            yield from read_manifest(path, Outcome, torn=True)
    except ManifestError:
        return
