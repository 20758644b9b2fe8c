# pyright: reportUnknownMemberType=false
# Dagster leaves parts of its own signatures unknown.
"""Sensors: one starts a cleanup when a disk fills up, one tells somebody that a run failed. Off until configured."""

import json
import time
from collections.abc import Sequence
from typing import Any

import dagster as dg

from cleanup_dagster.alerting import Alert, send
from cleanup_dagster.figures import Disk, disks
from cleanup_dagster.orchestration.job import LOCK_TAG
from cleanup_dagster.orchestration.launching import sentence_of
from cleanup_dagster.retention.guardrails import format_bytes
from cleanup_dagster.settings import ConfigError, Settings, load_settings
from cleanup_dagster.watch_settings import DiskPressure

_EVERY_SECONDS = 60
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def disk_pressure_sensor(settings: Settings) -> dg.SensorDefinition:
    """Return the sensor that starts a cleanup when a target's filesystem is too full."""

    @dg.sensor(
        name="disk_pressure",
        job_name="cleanup",  # Dagster 1.13.27 copies a sensor that has the job itself, and then warns of its own doing
        minimum_interval_seconds=_EVERY_SECONDS,
        default_status=_started(settings.disk_pressure.watched),
        description="Starts a cleanup when a target's filesystem is fuller than disk_pressure in cleanup.yaml allows.",
    )
    def disk_pressure(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            current = load_settings()
        except ConfigError as error:
            return dg.SkipReason(f"the configuration is refused: {error}")
        pressure = current.disk_pressure
        if not pressure.watched:
            return dg.SkipReason("disk_pressure has no threshold; set used_percent or free_bytes in cleanup.yaml")
        full = too_full(current)
        if not full:
            return dg.SkipReason("no target's filesystem is too full")
        said = "; ".join(full)
        if context.instance.get_runs_count(dg.RunsFilter(tags=LOCK_TAG, statuses=_UNFINISHED)):
            return dg.SkipReason(f"{said}. A run is at work or queued already")
        now = time.time()
        waiting = _waiting(context.cursor, now, pressure.cooldown)
        if waiting > 0:
            return dg.SkipReason(
                f"{said}. The last run for this was started so lately that the next waits {waiting:.0f} s"
            )
        kind = "dry run" if pressure.dry_run else "live cleanup"
        if current.alert_webhook is not None:
            alert = Alert("disk_pressure", f"{said}. A {kind} is started", {"dry_run": pressure.dry_run})
            unsent = send(current.alert_webhook, current.alerts, alert)
            if unsent:
                context.log.error("nobody was told of the full disk: %s", unsent)
        return dg.SensorResult([_request(pressure)], cursor=json.dumps(now))

    return disk_pressure


def _request(pressure: DiskPressure) -> dg.RunRequest:
    config = {"dry_run": pressure.dry_run, "type": "automatic", "disk_pressure": True}
    return dg.RunRequest(run_config=config, tags={"cleanup/disk_pressure": "true"})


def too_full(settings: Settings) -> list[str]:
    """Say which filesystems of targets are beyond the thresholds, a sentence for each."""
    roots = {str(target.root) for target in settings.targets}
    watched = [disk for disk in disks(settings) if roots.intersection(disk.paths)]
    return [said for disk in watched if (said := _excess(disk, settings.disk_pressure))]


def _excess(disk: Disk, pressure: DiskPressure) -> str:
    if pressure.used_percent is not None and disk.used_percent > pressure.used_percent:
        return f"{disk.paths[0]}: {disk.used_percent:.1f} % used, more than {pressure.used_percent:g} %"
    if pressure.free_bytes is not None and disk.free < pressure.free_bytes:
        return f"{disk.paths[0]}: {format_bytes(disk.free)} free, less than {format_bytes(pressure.free_bytes)}"
    return ""


def _waiting(cursor: str | None, now: float, cooldown: float) -> float:
    """Return for how many seconds no other run may be started. An unreadable or future cursor does not bind."""
    try:
        started = float(cursor or 0)
    except ValueError:
        return 0
    return started + cooldown - now if started <= now else 0


def failure_sensor(jobs: Sequence[Any], settings: Settings) -> dg.SensorDefinition:
    """Return the sensor that tells the webhook of a run that failed."""

    @dg.run_failure_sensor(
        name="run_failed",
        monitored_jobs=list(jobs),
        default_status=_started(settings.alert_webhook is not None),
        description="Posts to CLEANUP_ALERT_WEBHOOK_URL when a run of this code location fails.",
    )
    def run_failed(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        try:
            current = load_settings()
        except ConfigError as error:
            return dg.SkipReason(f"the configuration is refused: {error}")
        run = context.dagster_run
        steps = context.get_step_failure_events()
        reason = sentence_of(steps[-1]) if steps else context.failure_event.message or "the run failed"
        details = {"job": run.job_name, "run_id": run.run_id, "steps": ", ".join(str(step.step_key) for step in steps)}
        if current.web.dagster_public_url:
            details["url"] = f"{current.web.dagster_public_url.rstrip('/')}/runs/{run.run_id}"
        alert = Alert("run_failed", f"{run.job_name}, run {run.run_id[:8]}: {reason}", details)
        unsent = send(current.alert_webhook, current.alerts, alert)
        if unsent:
            context.log.error("nobody was told that run %s failed: %s", run.run_id, unsent)
            return dg.SkipReason(f"nobody was told that run {run.run_id} failed: {unsent}")
        return None

    return run_failed


def _started(wanted: bool) -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus.RUNNING if wanted else dg.DefaultSensorStatus.STOPPED
