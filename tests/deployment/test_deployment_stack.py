"""The compose deployment from its first start to a restore: every service as it is written, but for the engine."""

import json
import os
import stat
import time
from collections.abc import Callable, Generator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import deployment_compose as compose
import pytest
from deployment_stack import GID, UID, Refused, Stack
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts, which needs root"),
]

_DAY = 86_400
#: Path below the platform's directory, content, and age in days.
_EXPIRED = {
    "operations/operation_old.json": ('{"status": "completed", "pipeline": "orders"}', 120),
    "operations/operation_crashed.json": ('{"status": "failed"}', 20),
    "dbt/target/run/model.sql": ("select 1\n", 9),
    "logs/app.log.3": ("last month\n", 45),
}
_FRESH = {
    "operations/operation_new.json": ('{"status": "completed"}', 5),
    "dbt/target/manifest.json": ("{}", 400),
    "logs/app.log": ("today\n", 0),
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directories of a platform whose user is not root."""
    top = tmp_path_factory.mktemp("platform")
    for name, (content, days) in {**_EXPIRED, **_FRESH}.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        path.chmod(0o640)
        moment = time.time() - days * _DAY
        os.utime(path, (moment, moment))
    for path in (top, *top.rglob("*")):
        os.chown(path, UID, GID)
    return top


@pytest.fixture(scope="module")
def stack(platform: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """The stack, with a schedule that fires every minute instead of every night."""
    home = tmp_path_factory.mktemp("stack")
    content = compose.load_yaml(compose.PROJECT / "deployment" / "cleanup.yaml")
    content["schedule"] = {"cron": "* * * * *"}
    config = home / "cleanup.yaml"
    config.write_text(json.dumps(content), encoding="utf-8")
    stack = Stack(
        home,
        {
            **compose.assignments(compose.PROJECT / ".env.example"),
            "POSTGRES_PASSWORD": "p@ss/w0rd: %41",
            "CLEANUP_WEB_OPERATOR_TOKEN": "operator-" + "0" * 24,
            "CLEANUP_WEB_VIEWER_TOKEN": "viewer-" + "1" * 24,
            "OPERATIONS_DIR": str(platform / "operations"),
            "DBT_DIR": str(platform / "dbt"),
            "LOGS_DIR": str(platform / "logs"),
            "CLEANUP_YAML": str(config),
            "CLEANUP_TIMEZONE": "Europe/Berlin",
            "CLEANUP_UID": str(UID),
            "CLEANUP_GID": str(GID),
        },
    )
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
    slow = {name: took for name, (took, grace) in stack.stopped.items() if took >= grace}
    assert slow == {}, "these had to be killed"


def _eventually(what: str, condition: Callable[[], Any], seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} seconds: {what}"
        time.sleep(0.5)
    return found


def test_a_day_of_the_stack(stack: Stack, platform: Path) -> None:
    """The schedule fires, files go, the audit has them, the page shows them, and a restore brings them back."""

    def present() -> set[str]:
        return {name for name in {**_EXPIRED, **_FRESH} if (platform / name).exists()}

    _eventually("the schedule's run", lambda: present() == set(_FRESH))
    engine = create_engine(stack.database, poolclass=NullPool)

    def audit() -> list[tuple[Any, ...]]:
        with engine.connect() as conn:
            rows = conn.execute(
                text(
                    "SELECT cleanup_type, executed_by, outcome, open_check, sum(records_deleted)::int"
                    " FROM cleanup_audit GROUP BY 1, 2, 3, 4 HAVING sum(records_deleted) > 0"
                )
            )
            return [tuple(row) for row in rows]

    found = _eventually("its audit", audit, 30)
    assert [(row[0], row[1], row[2], row[4]) for row in found] == [
        ("automatic", "schedule cleanup_daily", "done", len(_EXPIRED))
    ]

    history = stack.api("GET", "/api/cleanup/stats", token="CLEANUP_WEB_VIEWER_TOKEN")["history"]  # noqa: S106 a variable
    deleted = [row for row in history if row["records_deleted"]]
    assert sum(row["records_deleted"] for row in deleted) == len(_EXPIRED)
    (run_id,) = {row["run_id"] for row in deleted}

    def restoring() -> bool:
        try:
            return bool(stack.api("POST", "/api/cleanup/restore", {"run_id": run_id, "dry_run": False})["success"])
        except Refused as refused:
            if refused.code != HTTPStatus.CONFLICT:  # the schedule's next run is at work, each minute
                raise
            return False

    _eventually("nothing else at work", restoring)
    _eventually("the restore", lambda: present() == {**_EXPIRED, **_FRESH}.keys())
    for name, (content, _) in _EXPIRED.items():
        status = (platform / name).stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (UID, GID, 0o640)
        assert (platform / name).read_text(encoding="utf-8") == content


def test_no_service_has_more_rights_than_it_needs(stack: Stack) -> None:
    for name, container in stack.containers.items():
        if name in {"postgres", "migrations"}:
            continue
        status = Path(f"/proc/{container.process.pid}/status").read_text(encoding="ascii")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == [str(UID)] * 4
        assert {fields[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert fields["NoNewPrivs"] == "1"
        for place in ("/srv/x", "/var/x", "/srv/config/cleanup.yaml"):
            assert container.execute("sh", "-c", f": > {place}").returncode != 0
    for place in ("/srv/cleanup/backups", "/srv/platform/operations"):
        assert stack.containers["page"].execute("touch", f"{place}/x").returncode != 0


def test_every_service_is_healthy_and_published_on_loopback_only(stack: Stack) -> None:
    published = {port: place for service in stack.services.values() for port, place in compose.ports(service).items()}
    assert published == {5432: ("127.0.0.1", 5433), 3000: ("127.0.0.1", 3000), 3001: ("127.0.0.1", 3001)}
    checked = [name for name, service in stack.services.items() if "healthcheck" in service]
    assert checked == [name for name in stack.services if name != "migrations"]


def test_no_secret_is_written_to_a_log_or_shown_by_the_configuration(stack: Stack) -> None:
    secrets = [stack.environ["POSTGRES_PASSWORD"], stack.environ["CLEANUP_WEB_OPERATOR_TOKEN"]]
    for name, container in stack.containers.items():
        assert not any(secret in container.output for secret in secrets), name
    shown = json.dumps(stack.api("GET", "/api/cleanup/settings"))
    assert not any(secret in shown for secret in secrets)
