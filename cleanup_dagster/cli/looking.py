"""`explain`, `stats`, `history`, `check` and `db upgrade`: what is, what was, and whether all is well."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cleanup_dagster.cli import exits
from cleanup_dagster.cli.undo import require_path
from cleanup_dagster.cli.words import days, minute, short, when
from cleanup_dagster.documents import of_audit, of_explanation, of_run, of_types

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cleanup_dagster.cli.session import Session
    from cleanup_dagster.database.audit import AuditRow
    from cleanup_dagster.database.policies import PolicyRow
    from cleanup_dagster.database.runs import RunRecord
    from cleanup_dagster.explaining import Explanation
    from cleanup_dagster.health import Finding

_LATEST = 10


def explain(session: Session, path: str) -> int:
    """Say why one file is kept or would go, or one of Dagster's runs."""
    from cleanup_dagster.cli.drawing import Lines
    from cleanup_dagster.explaining import explain as explained
    from cleanup_dagster.run_history.explaining import explain_run, run_named

    require_path(path)
    run_id = run_named(path)
    if run_id is not None:
        with session.installation() as installation:
            one = explain_run(installation, run_id)
        return session.finish(of_explanation(one), lambda: _show_explanation(session, one))
    with session.installation() as installation:
        judged = Lines(session.out).begin("judged", "", 0, "files")  # says something only when there is much to look at
        found = explained(installation, os.path.abspath(path), judged)  # noqa: PTH100  resolve() would follow a link
    return session.finish(of_explanation(found), lambda: _show_explanation(session, found))


def _show_explanation(session: Session, found: Explanation) -> None:
    say = session.out.say
    say(found.path)
    for title, text in _explanation_lines(found):
        session.out.page.print(f"  {title:<9} {text}", indent=12)
    for one in found.copies:
        until = f"kept until {when(one.expires_ns)}"
        session.out.page.print(
            f"  Backup    of run {short(one.run_id)}, deleted {when(one.deleted_ns)}, {until}", indent=12
        )
        say(f"            {one.copy}")
    if found.copies and not found.exists:
        say(f"  Restore   cleanup-operations restore {short(found.copies[0].run_id)} '{found.path}'")
    if not found.exists and not found.copies:
        say("  Backup    none that is still kept; `cleanup-operations history` lists the runs")


def _explanation_lines(found: Explanation) -> Iterator[tuple[str, str]]:
    from cleanup_dagster.retention.models import Policy
    from cleanup_dagster.retention.rules import format_age

    verdict, policy = found.verdict, found.policy
    if verdict is None:
        yield ("Gone" if not found.exists else "Kept"), found.reason
        if found.exists:
            yield "Policy", "none: no target takes this file"
        return
    yield ("Goes" if verdict.delete else "Kept"), found.reason
    yield "Target", found.target or ""
    data_type = verdict.candidate.data_type
    if isinstance(policy, Policy):
        last = f", and the newest {policy.keep_last} of each pipeline" if policy.keep_last else ""
        disabled = "" if policy.enabled else " (disabled)"
        yield "Policy", f"{data_type}: kept for {days(policy.retention_days)}{last}{disabled}"
    else:
        yield "Policy", f"{data_type}: {policy.message if policy else 'there is none'}"
    yield "Age", f"{format_age(verdict.age_ns)} by its {verdict.candidate.age_from.value}"
    yield "When", _when(found)


def _when(found: Explanation) -> str:
    if found.verdict is not None and found.verdict.delete:
        return "the next live run deletes it, after a backup"
    if found.due_ns is None:
        return "never, as things are now"
    if found.verdict is not None and found.verdict.reason.value in {"held", "put_back"}:
        return f"judged by its policy again from {when(found.due_ns)} on"
    return f"the first live run after {when(found.due_ns)}"


def stats(session: Session) -> int:
    """Show what cleanup did altogether, by data type."""
    from cleanup_dagster.filesystem.space import free_bytes
    from cleanup_dagster.inventory import list_backups
    from cleanup_dagster.records import Records
    from cleanup_dagster.retention.guardrails import format_bytes

    with session.installation() as installation:
        records = Records(installation)
        policies, totals, latest = records.policies(), records.totals(), records.history(_LATEST)
        sets = list_backups(installation)
    free = free_bytes(session.settings.backup.directory)
    held = sum(one.bytes for one in sets)
    named, rows = {row.data_type: row for row in policies}, list(of_types(policies, totals))

    def show() -> None:
        shown = [
            [
                data_type,
                _kept_for(named.get(data_type)),
                minute(mine.last_cleanup_ns if mine else None),
                f"{mine.total_cleaned if mine else 0:,}",
                format_bytes(mine.space_saved if mine else 0),
            ]
            for data_type, mine in ((str(row["data_type"]), totals.get(str(row["data_type"]))) for row in rows)
        ]
        session.out.page.table(["Data type", ">Kept for", "Last cleanup (UTC)", ">Deleted", ">Size"], shown)
        session.out.page.print(
            f"\nHeld by backups: {format_bytes(held)}. Free where the backups go: {format_bytes(free)}."
        )

    document: dict[str, object] = {
        "stats": rows,
        "history": [of_audit(row) for row in latest],
        "held_by_backups": held,
        "free": free,
    }
    return session.finish(document, show)


def _kept_for(policy: PolicyRow | None) -> str:
    if policy is None:
        return "no policy"
    return "disabled" if policy.enabled is False else days(policy.retention_days) or "?"


def history(session: Session, limit: int, *, runs: bool) -> int:
    """Show the audit, or every run."""
    with session.records() as records:
        if runs:
            found = records.runs(limit)
            return session.finish({"runs": [of_run(one) for one in found]}, lambda: _show_runs(session, found))
        rows = records.history(limit)
    return session.finish({"history": [of_audit(row) for row in rows]}, lambda: _show_audit(session, rows))


def _show_audit(session: Session, rows: Sequence[AuditRow]) -> None:
    from cleanup_dagster.retention.guardrails import format_bytes

    say = session.out.say
    if not rows:
        say("No live run yet. `cleanup-operations history --runs` lists dry runs, too.")
    run_id: str | None = None
    for row in rows:
        if row.run_id != run_id:
            run_id = row.run_id
            by = f", by {row.executed_by}" if row.executed_by else ""
            say(f"{when(row.executed_ns)}  run {short(row.run_id) or '(before this package)'}  {row.cleanup_type}{by}")
            if row.message:
                session.out.page.print(f"    {row.message}", indent=4)
        left = [f"{row.records_skipped:,} skipped"] if row.records_skipped else []
        left += [f"{row.records_failed:,} failed"] if row.records_failed else []
        size = format_bytes(row.space_freed_bytes)
        what = "" if row.cleanup_type == "restore" else f"{row.records_deleted:>9,} deleted {size:>10}"
        say(f"    {row.data_type:<21} {row.outcome:<9} {what}{', ' if left else ''}{', '.join(left)}".rstrip())


def _show_runs(session: Session, found: Sequence[RunRecord]) -> None:
    if not found:
        session.out.say("No run yet.")
        return
    rows = [
        [
            short(run.run_id),
            minute(run.started_ns),
            f"{run.cleanup_type.value}{' (dry)' if run.dry_run else ''}",
            run.status.value,
            f"{run.totals.expired_files:,}",
            f"{run.totals.deleted_files:,}",
        ]
        for run in found
    ]
    session.out.page.table(["Run", "Started (UTC)", "Type", "Status", ">Expired", ">Deleted"], rows)


def check(session: Session) -> int:
    """Look at every part of the installation."""
    findings: list[Finding] = []
    for finding in _findings(session):
        findings.append(finding)
        if not session.out.as_json:
            _show_finding(session, finding)
    bad = [one for one in findings if one.health.value == "failed"]
    worst = exits.UNUSABLE if any(one.unusable for one in bad) else exits.SOME_FAILED
    document: dict[str, object] = {
        "checks": [
            {"part": one.part, "health": one.health.value, "said": one.said, "advice": one.advice} for one in findings
        ]
    }

    def show() -> None:
        warnings = sum(1 for one in findings if one.health.value == "warning")
        well = f"Nothing stands in the way; warnings: {warnings}." if warnings else "All is well."
        session.out.say(f"\n{len(bad)} of {len(findings)} checks failed." if bad else f"\n{well}")

    return session.finish(document, show, worst if bad else exits.DONE)


def _findings(session: Session) -> Iterator[Finding]:
    from cleanup_dagster.health import Finding, Health, configuration, examine
    from cleanup_dagster.settings import ConfigError

    try:
        settings = session.settings
    except ConfigError as error:
        for problem in error.problems:
            yield Finding("config", Health.FAILED, problem, "nothing can run before it is right", unusable=True)
        return
    yield configuration(settings)
    session.begin()
    yield from examine(settings)
    yield _schedule(session)


def _schedule(session: Session) -> Finding:
    from cleanup_dagster.health import Finding, Health

    if session.settings.dagster_home is None:
        return Finding("schedule", Health.NOT_CHECKED, "DAGSTER_HOME is not set, so there is no instance to ask")
    from cleanup_dagster.cli.executing import quiet

    with quiet():
        from cleanup_dagster.orchestration.launching import SCHEDULE, InstanceError, schedule_state

        try:
            state = schedule_state()
        except InstanceError as error:
            said = f"Dagster's instance in {session.settings.dagster_home}: {error}"
            return Finding("schedule", Health.FAILED, said, "correct DAGSTER_HOME, or its dagster.yaml and permissions")
    if not state.running:
        advice = f"start it: dagster schedule start {SCHEDULE} -m cleanup_dagster.definitions"
        return Finding("schedule", Health.WARNING, f"{SCHEDULE} is stopped, as it is until somebody starts it", advice)
    if not state.daemon:
        said = f"{SCHEDULE} is started, and no daemon is alive to fire it"
        return Finding("schedule", Health.FAILED, said, "start dagster-daemon with the same DAGSTER_HOME")
    return Finding("schedule", Health.OK, f"{SCHEDULE} is started, and the daemon is alive")


def _show_finding(session: Session, finding: Finding) -> None:
    page = session.out.page
    styles = {"ok": "green", "warning": "yellow", "failed": "red", "not checked": "dim"}
    page.print(f"{finding.health.value:<12}{finding.part}: {finding.said}", styles[finding.health.value], 12)
    if finding.advice:
        page.print(f"{'':<12}{finding.advice}", indent=12)


def upgrade(session: Session) -> int:
    """Make the tables of the database, or bring older ones up to date."""
    from cleanup_dagster.bootstrap import wait_for_database
    from cleanup_dagster.cli.session import name_of
    from cleanup_dagster.database.engine import open_engine
    from cleanup_dagster.database.schema import SchemaState, require_current, schema_state
    from cleanup_dagster.database.schema import upgrade as upgrade_schema

    settings = session.settings
    session.changes("check")
    if settings.database_url is None:
        path = settings.state_dir / "cleanup.db"
        existed = path.exists()
        with session.service():  # the embedded database is made and upgraded by whoever opens it
            said = "the tables are up to date" if existed else "made, with the default policies"
    else:
        wait_for_database(settings, session.out.note)
        engine = open_engine(settings.database_url.get_secret_value())
        try:
            before = schema_state(engine)
            upgrade_schema(engine)
            require_current(engine)
        finally:
            engine.dispose()
        said = {
            SchemaState.ABSENT: "the tables were made, with the default policies",
            SchemaState.OLDER: "the tables were upgraded",
        }.get(before, "the tables are up to date")
    name = name_of(settings)
    return session.finish({"said": said}, lambda: session.out.page.print(f"{name[:1].upper()}{name[1:]}: {said}."))
