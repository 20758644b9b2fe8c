"""The page on real processes: Postgres, Dagster's webserver and daemon, `cleanup-operations serve`, and a browser."""

import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from end_to_end_helpers import Platform, ask_to_end, eventually, free_port, run, started
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright
from sqlalchemy import URL, create_engine, text

OPERATOR = "operator-token-of-the-browser-tests-0123456789"
VIEWER = "viewer-token-of-the-browser-tests-9876543210"
#: A name that would do something if it were ever taken for markup.
HOSTILE = """operation_<img src=x onerror="document.title='owned'">.json"""
HOSTILE_PIPELINE = "<script>document.title='owned'</script>\u202egnp"
OLD = 60
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Site:
    """A platform, and where its page answers."""

    def __init__(self, platform: Platform, url: str, database: URL) -> None:
        self.platform = platform
        self.url = url
        self._database = database

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Return the answer of Postgres."""
        engine = create_engine(self._database)
        try:
            with engine.connect() as conn:
                return [tuple(row) for row in conn.execute(text(query))]
        finally:
            engine.dispose()

    def api(self, path: str, body: Mapping[str, object] | None = None, method: str | None = None) -> Any:
        """Call the API as a script would."""
        request = urllib.request.Request(  # noqa: S310 our own server
            f"{self.url}/api/cleanup/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {OPERATOR}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)

    def release(self) -> None:
        """Remove every hold: undoing a run holds all that there is where its files came from."""
        for hold in self.api("holds")["holds"]:
            self.api(f"holds/{hold['id']}", method="DELETE")

    def hold_all_but(self, initials: str) -> None:
        """Hold the operations whose names go on with other letters, so that a test takes no other one's files."""
        self.api("holds", {"pattern": f"{self.platform.ops}/operation_[!{initials}]*", "reason": "another test's"})

    def clean(self, *, dry_run: bool) -> str:
        """Start a cleanup, wait for it, and return how it ended."""
        return self.finish(self.start(cleanup_type="manual", dry_run=dry_run))

    def start(self, **wanted: object) -> str:
        """Start a cleanup as soon as Dagster has put the last run away, and return its id."""
        started: list[str] = []

        def start() -> bool:
            try:
                started.append(self.api("run", wanted)["run_id"])
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.CONFLICT:
                    raise
            return bool(started)

        eventually("a cleanup to start", start, 30, every=0.5)
        return started[0]

    def finish(self, run_id: str) -> str:
        """Wait for the end of a run, and return how it ended."""
        ended = {"done", "failed", "refused", "interrupted"}
        eventually(
            f"the end of run {run_id}", lambda: self.api(f"runs/{run_id}")["run"]["status"] in ended, 90, every=0.5
        )
        return self.api(f"runs/{run_id}")["run"]["status"]


def fill(platform: Platform) -> None:
    """Give a platform enough to page through, enough to trip a guardrail, and what must not be obeyed."""
    for number in range(OLD):
        content = json.dumps(
            {"status": "failed", "pipeline_name": f"orders_{number % 4}", "padding": "x" * 100 * number}
        )
        platform.put(platform.ops / f"operation_{number:03}.json", content, days=20 + number)
    for number in range(OLD, OLD + 40):
        platform.put(platform.ops / f"operation_{number:03}.json", '{"status": "completed"}', days=number - OLD + 0.1)
    platform.put(platform.ops / "operation_twelve_days.json", '{"status": "failed"}', days=12)
    platform.put(
        platform.ops / HOSTILE, json.dumps({"status": "completed", "pipeline_name": HOSTILE_PIPELINE}), days=150
    )


@contextmanager
def serving(platform: Platform, dagster_port: int) -> Generator[str]:
    """Serve the page until the block ends, and yield its URL."""
    port = free_port()
    platform.extra |= {
        "CLEANUP_WEB_PORT": str(port),
        "CLEANUP_WEB_OPERATOR_TOKEN": OPERATOR,
        "CLEANUP_WEB_VIEWER_TOKEN": VIEWER,
        "DAGSTER_WEBSERVER_URL": f"http://127.0.0.1:{dagster_port}",
    }
    with started(platform, "cleanup-operations", "serve") as (process, log):

        def answers() -> bool:
            assert process.poll() is None, log.read_text(encoding="utf-8")
            return _answers(f"http://127.0.0.1:{port}/login")

        eventually(f"an answer of the page, see {log}", answers, 60)
        yield f"http://127.0.0.1:{port}"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 our own server
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def environment_of(database: URL) -> dict[str, str]:
    """Return what a platform on Postgres knows of it, for our tables and for Dagster's."""
    return {
        "CLEANUP_DATABASE_URL": database.render_as_string(hide_password=False),
        "PGHOST": str(database.query["host"]),  # a socket's directory, which the host of a URL cannot be
        "DAGSTER_POSTGRES_HOST": "",
        "DAGSTER_POSTGRES_PORT": "5432",
        "DAGSTER_POSTGRES_USER": database.username or "",
        "DAGSTER_POSTGRES_PASSWORD": "",
        "DAGSTER_POSTGRES_DB": database.database or "",
    }


@contextmanager
def site_of(home: Path, database: URL, furnish: Callable[[Platform], None] = fill) -> Generator[Site]:
    """Start everything there is on a platform of its own."""
    platform = Platform(home)
    furnish(platform)
    platform.take_dagster_yaml()
    platform.extra = environment_of(database)
    for command in (("cleanup-operations", "db", "upgrade"), ("dagster", "instance", "migrate")):
        prepared = run(platform, *command)
        assert prepared.returncode == 0, prepared.output
    port = free_port()
    web = ("dagster-webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port))
    with (
        started(platform, *web) as (webserver, log),
        started(platform, "dagster-daemon", "run", "-w", "workspace.yaml") as (daemon, _),
        serving(platform, port) as url,
    ):
        eventually(f"an answer of Dagster, see {log}", lambda: _answers(f"http://127.0.0.1:{port}/server_info"), 120)
        site = Site(platform, url, database)
        eventually("Dagster to know the job", lambda: _scanned(site), 60, every=1)
        eventually("the list of files", lambda: site.api("stats")["overview"]["scanned_at"], 30)
        yield site
        ask_to_end(webserver, daemon)


def _scanned(site: Site) -> bool:
    try:
        scan = site.api("files/refresh", {})
    except urllib.error.HTTPError as error:
        if error.code == 503:
            return False
        raise
    assert site.finish(scan["run_id"]) == "done"
    return True


@contextmanager
def chromium() -> Generator[Browser]:
    """Start the browser. Raises FileNotFoundError when there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise FileNotFoundError("chromium is not installed; apt-get install chromium")
    expect.set_options(timeout=15_000)  # other tests may have the processors
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """Opens pages, and remembers what the browser complained about."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self.url = url
        self.complaints: list[str] = []
        self._contexts: list[Any] = []

    def open(self, theme: str = "light", width: int = 1280, height: int = 900) -> Page:
        """Return a page of a browser that nobody has logged in with."""
        context = self._browser.new_context(
            viewport=ViewportSize(width=width, height=height),
            color_scheme="dark" if theme == "dark" else "light",
            reduced_motion="reduce",
            locale="en-GB",
            timezone_id="UTC",
        )
        self._contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self._hear(said.text) if said.type == "error" else None)
        return page

    def _hear(self, said: str) -> None:
        # 409: Dagster may still be putting a run away; then the page asks again. 412: somebody else was quicker.
        if "status of 409" not in said and "status of 412" not in said:
            self.complaints.append(said)

    def log_in(self, token: str = OPERATOR, **looks: Any) -> Page:
        """Return a page that the printed link has led to."""
        page = self.open(**looks)
        self.enter(page, token)
        return page

    def enter(self, page: Page, token: str = OPERATOR) -> None:
        """Follow the printed link."""
        page.goto(f"{self.url}/login#token={token}")
        page.wait_for_url("**/pipeline-management*")

    def close(self) -> None:
        """Close every page."""
        for context in self._contexts:
            for page in context.pages:
                page.unroute_all(behavior="ignoreErrors")  # an answer that a test altered may be under way
            context.close()


def show(page: Page, view: str) -> None:
    """Go to a view by the navigation, and wait until it has loaded."""
    page.get_by_role("navigation", name="Sections").get_by_role("link", name=view).click()
    expect(page.locator("[aria-busy='true']:visible")).to_have_count(0)


def in_ci() -> bool:
    """Tell whether this is a machine where nothing may skip."""
    return os.environ.get("CI", "").lower() == "true"
