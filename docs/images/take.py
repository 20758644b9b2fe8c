# ruff: noqa: INP001, S603, T201 - a script, which starts our own commands and says how far it is
"""Take the pictures of Dagster's UI that the README shows, from real runs: `.venv/bin/python docs/images/take.py`.

It makes the demo's scratch platform, starts webserver and daemon on a home of its own, launches dry and live runs, one
of which is refused, and the checks, and photographs the pages with Chromium. Takes a few minutes.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError
from playwright.sync_api import Page, sync_playwright

from cleanup_dagster.demo_platform import Platform, make_platform

BIN = Path(sys.executable).parent
PROJECT = Path(__file__).parents[2]
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
DAY = 86_400
ENDED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}


@contextmanager
def process(environment: dict[str, str], *command: str) -> Generator[None]:
    """Run a command as the head of a process group of its own, which is gone at the end."""
    log = Path(environment["DAGSTER_HOME"], f"{command[0]}.log")
    with log.open("wb") as output:
        head = subprocess.Popen(
            [BIN / command[0], *command[1:]],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGTERM)
            head.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)


def connect(port: int) -> DagsterGraphQLClient:
    """Wait until the webserver has loaded the code location."""
    for _ in range(240):
        with contextlib.suppress(DagsterGraphQLClientError):
            client = DagsterGraphQLClient("127.0.0.1", port_number=port)
            asked: Callable[[str], dict[str, Any]] = getattr(client, "_execute")  # noqa: B009  it has no public way
            answer = asked("{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }")
            if answer["repositoriesOrError"].get("nodes"):
                return client
        time.sleep(0.5)
    raise TimeoutError("the webserver did not load the code location")


def finish(client: DagsterGraphQLClient, job: str, config: dict[str, Any]) -> str:
    """Launch a run, wait for its end, and return its id."""
    run_id = client.submit_job_execution(job, run_config=config)
    while client.get_run_status(run_id) not in ENDED:
        time.sleep(0.5)
    print(f"{job} {config}: {client.get_run_status(run_id).value}")
    return run_id


def leave_rubbish(platform: Platform, files: int, day: int) -> None:
    """Leave operation files that expired lately, as a platform does every day."""
    for number in range(files):
        path = platform.operations / f"operation_day{day}_{number}.json"
        path.write_text(f'{{"status": "completed", "day": {day}, "rows": "{"x" * 400 * (1 + number % 7)}"}}')
        moment = time.time() - (91 + number % 3) * DAY
        os.utime(path, (moment, moment))


def live_through(client: DagsterGraphQLClient, platform: Platform) -> None:
    """Run for some days, be refused once, and ask the checks."""
    live = {"dry_run": False, "type": "automatic"}
    finish(client, "cleanup", {})
    for day, files in enumerate((18, 31, 24, 46, 12)):
        finish(client, "cleanup", live)
        leave_rubbish(platform, files, day)
    finish(client, "cleanup", {})
    original = platform.config.read_text()
    platform.config.write_text(original.replace("limits: {", "limits: {max_files: 5, "))
    finish(client, "cleanup", live)
    platform.config.write_text(original)
    finish(client, "cleanup", live)
    finish(client, "cleanup_checks", {})
    finish(client, "verify_backups", {})


def photograph(page: Page, name: str, ready: str) -> None:
    """Save what the page shows once a text is there."""
    page.get_by_text(ready).first.wait_for(timeout=60_000)
    page.wait_for_timeout(3_000)  # for what is drawn after it
    page.screenshot(path=Path(os.environ.get("IMAGES", PROJECT / "docs" / "images"), name))
    print(f"saved {name}")


def main() -> None:
    """Take every picture."""
    with tempfile.TemporaryDirectory(prefix="cleanup-pictures-") as place:
        platform = make_platform(Path(place).resolve())
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CLEANUP_", "DAGSTER_", "DBT_"))}
        environment = kept | {"DAGSTER_HOME": str(platform.home), "CLEANUP_CONFIG": str(platform.config)}
        environment["CLEANUP_SCHEDULE_STARTED"] = "true"
        (platform.home / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
        subprocess.run([BIN / "dagster", "instance", "migrate"], env=environment, cwd=PROJECT, check=True)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        web = ("dagster-webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port))
        with process(environment, *web), process(environment, "dagster-daemon", "run", "-w", "workspace.yaml"):
            live_through(connect(port), platform)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                assets = f"http://127.0.0.1:{port}/assets/cleanup"
                page.goto(f"{assets}/completed_operations")
                page.get_by_text("Plots", exact=True).first.click(timeout=60_000)
                page.get_by_text("bytes_deleted").first.scroll_into_view_if_needed(timeout=60_000)
                photograph(page, "dagster-asset.png", "files_deleted")
                page.goto(f"{assets}/system/runs?view=checks")
                photograph(page, "dagster-checks.png", "hours_since_success")
                browser.close()


if __name__ == "__main__":
    main()
