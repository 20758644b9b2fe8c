"""What may be said about alerts, disk pressure and the schedules, and the words in which the rest is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cleanup_dagster.retention.guardrails import GIB
from cleanup_dagster.settings import load_settings

SECRET = "https://hooks.example.org/services/T0/B0/hush?token=very-secret"  # noqa: S105

Refused = Callable[..., tuple[str, ...]]


def test_nothing_is_watched_or_started_by_default() -> None:
    settings = load_settings({})
    assert settings.alert_webhook is None
    assert not settings.disk_pressure.watched
    assert settings.disk_pressure.dry_run
    assert not settings.schedule.started
    assert settings.alerts.silent_after == 26 * 3_600


def test_the_environment_sets_what_a_deployment_needs() -> None:
    settings = load_settings(
        {
            "CLEANUP_SCHEDULE_STARTED": "true",
            "CLEANUP_ALERT_WEBHOOK_URL": SECRET,
            "CLEANUP_DISK_PRESSURE_USED_PERCENT": "92.5%",
            "CLEANUP_DISK_PRESSURE_FREE_BYTES": "20 GiB",
            "CLEANUP_DISK_PRESSURE_DRY_RUN": "false",
            "CLEANUP_DISK_PRESSURE_BACKUP_DIR": "/mnt/other/backups",
        }
    )
    assert settings.schedule.started
    assert settings.alert_webhook is not None
    assert settings.alert_webhook.get_secret_value() == SECRET
    pressure = settings.disk_pressure
    assert (pressure.watched, pressure.used_percent, pressure.free_bytes) == (True, 92.5, 20 * GIB)
    assert not pressure.dry_run
    assert settings.backup_directories == (Path("/tmp/cleanup_backups"), Path("/mnt/other/backups"))  # noqa: S108
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("CLEANUP_SCHEDULE_STARTED", "yes", "'yes' is not true or false"),
        ("CLEANUP_DISK_PRESSURE_DRY_RUN", "0", "'0' is not true or false"),
        ("CLEANUP_DISK_PRESSURE_USED_PERCENT", "190", "'190' is not a number from 1 to 99.999"),
        ("CLEANUP_DISK_PRESSURE_USED_PERCENT", "0", "'0' is not a number from 1 to 99.999"),
        ("CLEANUP_DISK_PRESSURE_FREE_BYTES", "much", "'much' is not a size"),
        ("CLEANUP_DISK_PRESSURE_BACKUP_DIR", "/etc", "'/etc' lies in the system directory /etc"),
    ],
)
def test_a_malformed_variable_is_named_with_its_value(refused: Refused, variable: str, value: str, words: str) -> None:
    (problem,) = refused("targets: []", **{variable: value})
    assert problem.startswith(f"{variable}: {words}")


@pytest.mark.parametrize(
    "url", ["hooks.example.org/secret", "ftp://secret", "https://", "https://host:port/secret", "https://a b/secret"]
)
def test_a_malformed_webhook_is_refused_and_never_quoted(refused: Refused, url: str) -> None:
    (problem,) = refused("targets: []", CLEANUP_ALERT_WEBHOOK_URL=url)
    assert problem.startswith("CLEANUP_ALERT_WEBHOOK_URL: is not an http or https URL; write https://host/path")
    assert "secret" not in problem.replace("may hold a secret", "")


def test_the_webhook_has_no_place_in_the_file(refused: Refused) -> None:
    (problem,) = refused(f"alert_webhook: {SECRET}\ntargets: []")
    assert "is no key of this file; set it in the environment" in problem
    assert "CLEANUP_ALERT_WEBHOOK_URL" in problem
    assert SECRET not in problem


def test_everything_that_is_wrong_in_the_file_is_said_at_once(refused: Refused) -> None:
    problems = refused(
        "alerts: {silent_after: 10, webhook_attempts: 9, mail: me}\n"
        "disk_pressure: {used_percent: true, cooldown: 0, dry_run: 'no'}\n"
        "schedule: {started: 'yes', checks_cron: hourly, verify_cron: 0 4 * *}\n"
        "targets: []\n"
    )
    assert [problem.split(": ")[1] for problem in problems] == [
        "schedule.checks_cron",
        "schedule.verify_cron",
        "schedule.started",
        "alerts.silent_after",
        "alerts.webhook_attempts",
        "alerts.mail",
        "disk_pressure.used_percent",
        "disk_pressure.dry_run",
        "disk_pressure.cooldown",
    ]


def test_the_pressure_directory_may_not_lead_to_a_target(refused: Refused) -> None:
    (problem,) = refused(
        "disk_pressure: {backup_directory: /srv/logs}\n"
        "targets: [{name: logs, kind: files, data_type: system_logs, root: /srv/logs/app}]\n"
    )
    assert problem.startswith("cleanup.yaml: disk_pressure.backup_directory: '/srv/logs' is the root of target 'logs'")
