# pyright: reportUnknownMemberType=false
# Dagster leaves parts of its own signatures unknown.
"""The sensor of the full disk and the sensor of failed runs, as the daemon evaluates them."""

import subprocess
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from orchestration_helpers import EXPIRED_LOGS, EXPIRED_OPERATIONS, Platform, run_loaded
from webhooks import SECRET, Webhook, webhook

FULL = {"free_bytes": 2**62}  # no disk has as much


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Generator[Webhook]:
    with webhook() as served:
        monkeypatch.setenv("CLEANUP_ALERT_WEBHOOK_URL", served.url)
        yield served


@pytest.fixture
def instance() -> Generator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def tick(platform: Platform, instance: dg.DagsterInstance, cursor: str | None = None) -> Any:
    sensor = platform.definitions().resolve_sensor_def("disk_pressure")
    return sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=cursor))


def test_both_are_off_until_configured(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    def states() -> dict[str, bool]:
        defs = platform.definitions()
        names = ("disk_pressure", "run_failed")
        return {n: defs.resolve_sensor_def(n).default_status is dg.DefaultSensorStatus.RUNNING for n in names}

    assert states() == {"disk_pressure": False, "run_failed": False}
    monkeypatch.setenv("CLEANUP_ALERT_WEBHOOK_URL", "https://hooks.example.org/x")
    platform.configure(disk_pressure={"used_percent": 90})
    assert states() == {"disk_pressure": True, "run_failed": True}


def test_without_a_threshold_or_with_room_nothing_is_started(platform: Platform, instance: dg.DagsterInstance) -> None:
    assert "has no threshold" in tick(platform, instance).skip_message
    platform.configure(disk_pressure={"free_bytes": 1})
    assert "too full" in tick(platform, instance).skip_message


def test_a_full_disk_starts_a_dry_run_then_waits(
    platform: Platform, instance: dg.DagsterInstance, hook: Webhook
) -> None:
    platform.configure(disk_pressure=FULL)
    ticked = tick(platform, instance)
    (request,) = ticked.run_requests
    assert request.run_config == {"dry_run": True, "type": "automatic", "disk_pressure": True}
    (post,) = hook.posts
    assert post["event"] == "disk_pressure"
    assert "A dry run is started" in post["text"]

    defs = platform.definitions()
    assert dg.validate_run_config(defs.resolve_job_def("cleanup"), dict(request.run_config))
    assert run_loaded(defs, dict(request.run_config), tags={"dagster/sensor_name": "disk_pressure"}).success
    assert platform.ask("SELECT executed_by, dry_run FROM cleanup_runs") == [("sensor disk_pressure", 1)]

    again = tick(platform, instance, ticked.cursor)
    assert "waits" in again.skip_message
    assert not again.run_requests
    hours_ago = str(float(ticked.cursor) - 7 * 3_600)
    assert tick(platform, instance, hours_ago).run_requests
    assert tick(platform, instance, "nonsense").run_requests


def test_a_live_one_has_to_be_configured(platform: Platform, instance: dg.DagsterInstance) -> None:
    platform.configure(disk_pressure={**FULL, "dry_run": False})
    (request,) = tick(platform, instance).run_requests
    assert request.run_config["dry_run"] is False


def test_a_run_that_is_queued_is_enough(platform: Platform, instance: dg.DagsterInstance) -> None:
    platform.configure(disk_pressure=FULL)
    job = platform.definitions().resolve_job_def("cleanup")
    instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=job.tags)
    assert "queued already" in tick(platform, instance).skip_message


def test_a_dead_webhook_does_not_keep_the_run_from_starting(
    platform: Platform, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEANUP_ALERT_WEBHOOK_URL", f"http://127.0.0.1:1/{SECRET}")
    platform.configure(disk_pressure=FULL, alerts={"webhook_attempts": 1})
    assert tick(platform, instance).run_requests


def test_a_broken_configuration_is_a_sentence_in_the_tick(platform: Platform, instance: dg.DagsterInstance) -> None:
    sensor = platform.definitions().resolve_sensor_def("disk_pressure")
    platform.configure(disk_pressure={"used_percent": 200})
    ticked = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
    assert "disk_pressure.used_percent: 200 is not a number" in str(ticked.skip_message)


def test_a_run_under_pressure_prunes_first_and_writes_archives(platform: Platform) -> None:
    defs = platform.definitions()
    assert run_loaded(defs, {"dry_run": False}).success
    copies = {path.name for path in platform.backups.glob("*.backup")}
    assert copies
    platform.tell("UPDATE cleanup_runs SET started_at = '2026-01-01 00:00:00.000000'")
    platform.put(platform.dbt / "dbt.log.9", "y" * 100_000, 30)
    ran = run_loaded(platform.definitions(), {"dry_run": False, "type": "automatic", "disk_pressure": True})
    assert ran.success, ran.failures
    assert not copies & {path.name for path in platform.backups.glob("*.backup")}
    steps = ran.logged(20)
    assert steps.index("expired backups were pruned first: 3 files") < min(
        index for index, said in enumerate(steps) if "deleted" in said
    )
    (archive,) = platform.backups.glob("*.tar.zst")
    assert archive.stat().st_size < 10_000


@pytest.fixture
def other_disk(tmp_path: Path) -> Generator[Path]:
    """A second filesystem, which is in memory because that needs no device."""
    place = tmp_path / "other"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.needs_root
def test_archives_go_to_another_disk_and_can_be_restored(platform: Platform, other_disk: Path) -> None:
    elsewhere = other_disk / "backups"
    platform.configure(
        disk_pressure={**FULL, "backup_directory": str(elsewhere)}, limits={"allow_volatile_backup": True}
    )
    before = platform.files()
    ran = run_loaded(platform.definitions(), {"dry_run": False, "type": "automatic", "disk_pressure": True})
    assert ran.success, ran.failures
    assert not platform.backups.exists()
    assert len(list(elsewhere.glob("*.tar.zst"))) == 2
    assert not (EXPIRED_LOGS | EXPIRED_OPERATIONS) & platform.files().keys()
    undone = run_loaded(platform.definitions(), {"run_id": ran.run_id, "dry_run": False}, "restore")
    assert undone.success, undone.failures
    assert platform.files() == before


def test_copies_on_the_full_disk_are_refused_where_another_was_meant(platform: Platform) -> None:
    platform.configure(disk_pressure={**FULL, "backup_directory": str(platform.home / "not_mounted")})
    before = platform.files()
    ran = run_loaded(platform.definitions(), {"dry_run": False, "type": "automatic", "disk_pressure": True})
    assert not ran.success
    assert "lies on the filesystem that is to be relieved" in ran.failures["conclude"]
    assert platform.files() == before


def test_a_failed_run_is_posted_with_its_reason(
    platform: Platform, instance: dg.DagsterInstance, hook: Webhook
) -> None:
    platform.configure(limits={"max_files": 1}, web={"dagster_public_url": "https://dagster.example.org"})
    assert _failure(platform, instance) is None
    (post,) = hook.posts
    assert post["event"] == "run_failed"
    assert post["job"] == "cleanup"
    assert post["steps"] == "conclude"
    assert post["url"] == f"https://dagster.example.org/runs/{post['run_id']}"
    assert "more than max_files = 1" in post["text"]


@pytest.mark.parametrize("status", [None, 500, 404])
def test_a_webhook_that_fails_ends_in_a_sentence_without_its_url(
    platform: Platform,
    instance: dg.DagsterInstance,
    hook: Webhook,
    status: int | None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    platform.configure(limits={"max_files": 1}, alerts={"webhook_timeout": 0.2, "webhook_attempts": 2})
    hook.status = status
    started = time.monotonic()
    skipped = _failure(platform, instance)
    assert time.monotonic() - started < 30
    assert len(hook.posts) == (1 if status == 404 else 2), "tried again where that may help"
    assert SECRET not in str(skipped)
    output = "".join(capfd.readouterr())
    assert SECRET not in output


def _failure(platform: Platform, instance: dg.DagsterInstance) -> Any:
    defs = platform.definitions()
    job = defs.resolve_job_def("cleanup")
    result = job.execute_in_process(run_config={"dry_run": False}, instance=instance, raise_on_error=False)
    assert not result.success
    context = dg.build_run_status_sensor_context(
        sensor_name="run_failed",
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        dagster_event=next(e for e in result.all_events if e.event_type is dg.DagsterEventType.RUN_FAILURE),
    ).for_run_failure()
    return defs.resolve_sensor_def("run_failed")(context)
