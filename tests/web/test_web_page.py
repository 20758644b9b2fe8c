"""The page as people use it, in Chromium, on real processes that all tests share: what changes files stands later."""

import json
import os
import re
import signal
import time
import urllib.error
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from end_to_end_helpers import Platform, eventually, free_port, run
from page_site import (
    HOSTILE,
    OLD,
    OPERATOR,
    VIEWER,
    Site,
    Visitor,
    environment_of,
    serving,
    show,
)
from playwright.sync_api import Browser, Page, Route, expect
from sqlalchemy import URL, create_engine, text
from sqlalchemy.pool import NullPool

VIEWS = ("Overview", "Clean up", "History", "Files", "Holds", "Backups")
RUN = 60_000  # milliseconds that Dagster may take for a run, from its launch to its end


def test_names_of_files_are_shown_and_never_obeyed(visitor: Visitor) -> None:
    page = visitor.log_in()
    show(page, "Files")
    page.get_by_label("Search paths").last.fill("onerror")
    row = page.locator("#files tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text(HOSTILE.replace("\\", ""))
    expect(row).to_contain_text("<script>")
    expect(row).to_contain_text(r"\u202egnp")
    row.get_by_role("button").click()
    expect(page.locator("#drawer")).to_contain_text(HOSTILE)
    assert page.locator("img:not([src^='/static/'])").count() == 0
    assert page.locator("script:not([src])").count() == 0
    assert "owned" not in page.title()


@pytest.mark.parametrize(
    ("types", "said"),
    [
        ("['dbt_logs']", "1 file, 2,000 files deleted"),
        ("['dagster_runs']", "1 run, 2,000 runs deleted"),
        ("['dagster_runs', 'dbt_logs']", "1 files and runs, 2,000 files and runs deleted"),
    ],
)
def test_dagsters_runs_are_called_so(visitor: Visitor, types: str, said: str) -> None:
    words = f"""import("/static/js/format.js").then(({{ counted, runResult, things, went }}) => {{
        const audit = {types}.map((type) => ({{ data_type: type, records_deleted: 1 }}));
        const run = {{ status: "done", deleted_files: 2000, freed_bytes: 1 }};
        return `${{counted(1, things({types}))}}, ${{runResult(run, went({{ audit }}))}}`;
    }})"""
    assert visitor.log_in().evaluate(words).startswith(said)


@pytest.mark.parametrize(
    ("runs", "card", "column"),
    [
        ({}, "Files to clean", "Files"),
        ({"enabled": True, "targets": []}, "Files to clean", "Files"),
        ({"enabled": True, "targets": ["dagster_runs"]}, "Files and runs to clean", "Files and runs"),
        ({"total_cleaned": 7}, "Files and runs to clean", "Files and runs"),
    ],
)
def test_figures_that_count_dagsters_runs_say_so(
    visitor: Visitor, runs: dict[str, object], card: str, column: str
) -> None:
    """A platform that purges runs is only made believe: purging them is the business of other tests."""

    def answer(route: Route) -> None:
        response = route.fetch()
        document = response.json()
        (row,) = (one for one in document["stats"] if one["data_type"] == "dagster_runs")
        row |= {"enabled": False, "targets": ["dagster_runs"], "total_cleaned": 0, **runs}
        document["overview"] |= {"files_to_clean": 9, "things_to_clean": card.removesuffix(" to clean").lower()}
        route.fulfill(response=response, json=document)

    page = visitor.log_in()
    page.route("**/api/cleanup/stats", answer)
    page.reload()
    expect(page.locator("#card-files")).to_have_text("9")
    expect(page.locator(".card", has=page.locator("#card-files"))).to_contain_text(f"{card}9expired at the last scan")
    show(page, "History")
    heading = page.get_by_role("table", name="Runs", exact=True).get_by_role("columnheader")
    expect(heading.nth(3)).to_have_text(column)


def test_a_policy_is_changed_a_plan_reviewed_run_and_undone(site: Site, visitor: Visitor) -> None:
    page = visitor.log_in()
    expect(page.locator("#card-files")).to_have_text(re.compile(r"^\d+$"))
    before = {path: path.read_bytes() for path in site.platform.ops.iterdir()}

    days = page.get_by_label("Days that failed_operations are kept")
    days.fill("10")
    expect(page.get_by_text("14 days → 10 days. 1 file")).to_be_visible()
    assert site.ask("SELECT retention_days FROM cleanup_policies WHERE data_type = 'failed_operations'") == [(14,)]
    page.get_by_role("button", name="Save: 1 file more").click()
    expect(page.get_by_role("button", name="Save")).to_have_count(0)
    assert site.ask("SELECT retention_days FROM cleanup_policies WHERE data_type = 'failed_operations'") == [(10,)]

    _keep_the_newest(site, page)
    show(page, "Clean up")
    page.get_by_role("button", name="Dry run", exact=True).click()
    expected = OLD + 5  # with those of the platform itself, the hostile one, and the one of twelve days
    run_plan = page.get_by_role("button", name=f"Run this plan: {expected} files")
    expect(run_plan).to_be_enabled(timeout=RUN)
    plan = page.get_by_role("table", name="Files of the plan")
    expect(plan.locator("tbody tr")).to_have_count(25)
    page.get_by_role("button", name="Size").click()
    expect(plan.get_by_role("columnheader", name="Size")).to_have_attribute("aria-sort", "descending")
    expect(plan.locator("tbody tr").first).to_contain_text(f"operation_{OLD - 1:03}.json")
    page.get_by_label("Search paths").first.fill("twelve_days")
    expect(plan.locator("tbody tr")).to_have_count(1)
    expect(plan).to_contain_text("older than 10 days")

    run_plan.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("more than max_share = 50%")
    expect(dialog.get_by_role("row", name="failed_operations")).to_contain_text(str(OLD + 2))
    dialog.get_by_role("button", name="Cancel").click()
    assert set(site.platform.ops.iterdir()) == set(before)
    run_plan.click()
    dialog.get_by_role("button", name=f"Delete {expected} files").click()
    result = page.locator("#live-run")
    expect(result.get_by_role("progressbar")).to_be_visible()
    expect(result).to_contain_text(f"{expected} files deleted", timeout=RUN)
    left = set(site.platform.ops.iterdir())
    assert len(left) == len(before) - expected + 1  # one of the expired ones lies elsewhere

    result.get_by_role("button", name="Undo this run").click()
    page.get_by_role("dialog").filter(has_text="Undo this run?").get_by_role("button", name="Restore").click()
    expect(page.locator("#drawer")).to_contain_text("What was asked for is back in its place", timeout=RUN)
    assert {path: path.read_bytes() for path in site.platform.ops.iterdir()} == before

    page.get_by_role("button", name="Close").click()
    show(page, "History")
    runs = page.get_by_role("table", name="Runs")
    for title in ("Restore", "Cleanup of a reviewed plan", "Dry run"):
        expect(runs.get_by_role("button", name=title).first).to_be_visible()
    expect(page.get_by_role("img", name="Files deleted per day").locator("canvas")).to_be_visible()
    show(page, "Overview")
    page.get_by_role("button", name="Reset to defaults").click()
    page.get_by_role("dialog").get_by_role("button", name="Reset").click()
    expect(days).to_have_value("14")


def _keep_the_newest(site: Site, page: Page) -> None:
    """Let the newest of each pipeline stay, and then no more: both are told before they are saved."""
    newest = page.get_by_label("Newest failed_operations of each pipeline that always stay")
    newest.fill("-1")
    expect(page.get_by_text("Write a whole number of items that always stay from 0")).to_be_visible()
    for value, said in (("1", "4 files, 856 B that are expired now would stay"), ("0", "1 file, 20 B more would")):
        newest.fill(value)
        expect(page.locator("#policies .change-box")).to_have_text(re.compile(f"Newest that always stay: .*{said}"))
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("button", name="Save")).to_have_count(0)
        expect(newest).to_have_value(value)
        kept = site.ask("SELECT keep_last FROM cleanup_policies WHERE data_type = 'failed_operations'")
        assert kept == [(int(value),)]


def test_the_description_of_the_api_is_read_and_tried_out(visitor: Visitor) -> None:
    """A breach of the CSP or anything from elsewhere would be a complaint of the browser."""
    page = visitor.log_in()
    page.goto(f"{visitor.url}/docs")
    for operation, body in (
        ("GET /api/cleanup/policies", '"minimum": '),
        ("POST /api/cleanup/policies/preview", '"newly_expired": '),  # with the session's CSRF token
    ):
        method, path = operation.split()
        block = page.locator(f".opblock-{method.lower()}").filter(has=page.locator(f"[data-path='{path}']"))
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Try it out").click()
        block.get_by_role("button", name="Execute").click()
        answered = block.locator(".live-responses-table .response")
        expect(answered.locator(".response-col_status")).to_have_text(re.compile("^200"))
        expect(answered).to_contain_text(body)


def test_nothing_scrolls_sideways_on_a_phone(visitor: Visitor) -> None:
    page = visitor.log_in(width=375, height=812)
    for view in VIEWS:
        show(page, view)
        assert _too_wide(page) == [], view
    show(page, "History")
    page.locator("#runs .link-button").first.click()
    expect(page.locator("#drawer .facts")).to_be_visible()
    assert _too_wide(page) == []


def _too_wide(page: Page) -> list[str]:
    return page.evaluate(
        """() => [document.documentElement, ...document.querySelectorAll(".panel, .drawer-body, .dialog-body, .top")]
            .filter((part) => part.checkVisibility() && part.scrollWidth > part.clientWidth)
            .map((part) => `${part.tagName}.${part.className} ${part.scrollWidth} > ${part.clientWidth}`)"""
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(visitor: Visitor, theme: str) -> None:
    """Only colours differ between the themes, so that in the dark only they are examined again."""
    page = visitor.log_in(theme=theme)
    for view in VIEWS:
        show(page, view)
        _examine(page, view)
    show(page, "Overview")
    page.get_by_label("Days that completed_operations are kept").fill("3")
    expect(page.get_by_text("90 days → 3 days.")).to_be_visible()
    page.get_by_text("Examples").click()
    _examine(page, "a draft")
    for opener, closer in (("Settings", "Close"), ("Reset to defaults…", "Cancel")):
        page.get_by_role("button", name=opener).click()
        _examine(page, opener)
        page.get_by_role("dialog").get_by_role("button", name=closer).click()
    show(page, "History")
    page.locator("#runs .link-button").first.click()
    expect(page.locator("#drawer .facts")).to_be_visible()
    _examine(page, "a run")
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    _examine(page, "the login")


def _examine(page: Page, what: str) -> None:
    expect(page.locator("[aria-busy='true']:visible")).to_have_count(0)
    is_dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    options: dict[str, object] = {"runOnly": ["color-contrast"]} if is_dark else {"resultTypes": ["violations"]}
    results: Any = Axe().run(page, options=options)  # pyright: ignore[reportUnknownMemberType]
    found: list[dict[str, Any]] = results.response["violations"]
    assert [(what, one["id"], one["nodes"][0]["target"]) for one in found] == []


def test_the_theme_is_chosen_and_kept(visitor: Visitor) -> None:
    page = visitor.log_in(theme="light")
    assert _background(page) == "rgb(246, 247, 248)"
    theme = page.get_by_role("button", name="Theme")
    theme.click()
    theme.click()
    expect(theme).to_have_accessible_name("Theme: dark")
    assert _background(page) == "rgb(18, 21, 24)"
    page.reload()
    assert _background(page) == "rgb(18, 21, 24)"


def _background(page: Page) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_a_viewer_sees_everything_and_changes_nothing(site: Site, visitor: Visitor) -> None:
    page = visitor.log_in(VIEWER)
    expect(page.get_by_text("You are logged in as a viewer")).to_be_visible()
    expect(page.get_by_role("switch")).to_have_count(7)
    for view in VIEWS:
        show(page, view)
    controls = page.locator("[data-operator], #policies input, #holds button")
    assert controls.count() >= 19
    assert all(control.is_disabled() for control in controls.all())
    refused = page.evaluate(
        """() => fetch("/api/cleanup/policies", {
            method: "POST",
            headers: {
                "Content-Type": "application/json",
                "X-CSRF-Token": document.querySelector("meta[name=csrf-token]").content,
            },
            body: JSON.stringify({data_type: "temp_files", enabled: false}),
        }).then((answer) => answer.status)"""
    )
    assert refused == 403
    assert site.ask("SELECT enabled FROM cleanup_policies WHERE data_type = 'temp_files'") == [(True,)]
    visitor.complaints.clear()  # the browser reports the 403, as it should

    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    page.goto(f"{site.url}/pipeline-management")
    page.wait_for_url("**/login")


def test_chosen_files_are_put_back_and_a_hold_is_placed_and_removed(site: Site, visitor: Visitor) -> None:
    name = "operation_chosen.json"
    site.platform.put(site.platform.ops / name, '{"status": "completed", "what": "chosen"}', days=120)
    for number in range(2):
        site.platform.put(
            site.platform.ops / f"operation_left_{number}.json", f'{{"status": "error", "n": {number}}}', 20
        )
    site.hold_all_but("cl")
    assert site.clean(dry_run=False) == "done"
    assert not (site.platform.ops / name).exists()

    page = visitor.log_in()
    show(page, "History")
    page.get_by_role("button", name="Manual cleanup").first.click()
    page.get_by_role("button", name="Choose files").click()
    page.get_by_role("checkbox", name=f"Choose {site.platform.ops / name}").check()
    page.get_by_role("button", name="Restore 1 file").click()
    page.get_by_role("dialog").get_by_role("button", name="Restore", exact=True).click()
    expect(page.locator("#drawer")).to_contain_text("What was asked for is back in its place", timeout=RUN)
    assert (site.platform.ops / name).exists()
    assert not (site.platform.ops / "operation_left_0.json").exists()

    page.get_by_role("button", name="Close").click()
    show(page, "Holds")
    page.get_by_role("button", name="Add a hold").click()
    page.get_by_label("Path or pattern").fill("relative/path")
    page.get_by_label("Reason").fill("audit")
    page.get_by_role("button", name="Add the hold").click()
    expect(page.locator("#confirm-error")).to_contain_text("relative/path")
    visitor.complaints.clear()  # the browser reports the 422, as it should
    page.get_by_label("Path or pattern").fill(str(site.platform.ops / "operation_new.json"))
    page.get_by_role("button", name="Add the hold").click()
    row = page.get_by_role("row", name="operation_new.json")
    expect(row).to_contain_text("for ever")
    expect(row).not_to_contain_text("Keeps nothing")
    row.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(row).to_have_count(0)

    page.get_by_role("button", name="Add a hold").click()
    page.get_by_label("Path or pattern").fill("/srv/mistyped/operation_new.json")
    page.get_by_label("Reason").fill("audit")
    page.get_by_role("button", name="Add the hold").click()
    expect(page.locator("#toasts")).to_contain_text(
        "The hold is placed, but keeps nothing: /srv/mistyped/operation_new"
    )
    expect(page.get_by_role("row", name="mistyped")).to_contain_text("Keeps nothing: no target is in its reach.")


def test_a_run_at_work_shows_how_far_it_is(site: Site, visitor: Visitor) -> None:
    """Its process is stopped for a moment, so that there is one to look at it."""
    many = 1_300
    for number in range(many):
        site.platform.put(site.platform.ops / f"operation_m{number}.json", f'{{"status": "failed", "n": {number}}}', 30)
    site.hold_all_but("m")
    run_id = site.start(cleanup_type="emergency", dry_run=False)
    eventually("it works", lambda: site.api(f"runs/{run_id}")["run"]["status"] == "running", 60, every=0.05)
    ((pid,),) = site.ask("SELECT pid FROM cleanup_runs WHERE status = 'running'")
    try:
        eventually("figures", lambda: _stopped_with_figures(site, run_id, pid), 60, every=0.05)
        progress = site.api(f"runs/{run_id}")["progress"]
        assert (progress["target"], progress["of"]) == ("operations", many)
        assert 0 < progress["done"] <= many
        assert progress["rate"] > 0
        assert progress["remaining_s"] is not None
        page = visitor.log_in()
        strip = page.get_by_role("region", name="Run in progress")
        said = r"Emergency cleanup · (Backing up|Deleting) in operations *[1-9][\d,]* of 1,300 files · [\d,]+ a second"
        expect(strip).to_have_text(re.compile(said))
        expect(strip.get_by_role("progressbar")).to_be_visible()
        with pytest.raises(urllib.error.HTTPError) as second:
            site.api("run", {"cleanup_type": "manual", "dry_run": True})
        assert (second.value.code, json.load(second.value)["run_id"]) == (409, run_id)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert site.finish(run_id) == "done"
    expect(strip).to_be_hidden()
    assert not list(site.platform.ops.glob("operation_m*"))


def _stopped_with_figures(site: Site, run_id: str, pid: int) -> bool:
    """Once the run knows how many files there are, stop it for longer than it lets pass between two notes."""
    progress = site.api(f"runs/{run_id}")["progress"]
    if not progress or not progress["of"]:
        return False
    os.kill(pid, signal.SIGSTOP)
    if progress["done"]:
        return True
    time.sleep(2.1)
    os.kill(pid, signal.SIGCONT)
    return False


def test_a_keyboard_is_enough(site: Site, visitor: Visitor) -> None:
    site.hold_all_but("t")
    typed = site.platform.ops / "operation_typed.json"
    site.platform.put(typed, '{"status": "failed", "of": "keys"}', days=30)
    page = visitor.open()
    page.goto(f"{site.url}/login")
    expect(page.get_by_label("Access token")).to_be_focused()
    page.keyboard.type("not the token")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).not_to_be_empty()
    expect(page.get_by_label("Access token")).to_be_focused()
    visitor.complaints.clear()  # the browser reports the 401, as it should
    page.keyboard.press("Control+A")
    page.keyboard.type(OPERATOR)
    page.keyboard.press("Enter")
    page.wait_for_url("**/pipeline-management")

    _tab_to(page, "Clean up")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Manual cleanup")).to_be_focused()
    _tab_to(page, "Dry run")
    page.keyboard.press("Enter")
    expect(page.locator("#dry-run-progress progress")).to_be_visible()
    expect(page.locator("#dry-run-progress progress")).to_have_count(0, timeout=RUN)
    run_plan = page.get_by_role("button", name=re.compile(r"Run this plan: \d+ file"))
    expect(run_plan).to_be_enabled(timeout=RUN)
    run_plan.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Enter")  # on the heading: nothing is confirmed
    expect(page.get_by_role("dialog")).to_be_visible()
    _tab_to(page, "Cancel")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(run_plan).to_be_focused()
    assert typed.exists()
    page.keyboard.press("Enter")
    _tab_to(page, re.compile(r"Delete \d+ files?"))
    page.keyboard.press("Enter")
    expect(page.locator("#live-run")).to_contain_text("deleted", timeout=RUN)
    assert not typed.exists()


def test_an_emergency_run_wants_its_word_typed(site: Site, visitor: Visitor) -> None:
    def emergencies() -> set[str]:
        return {run["run_id"] for run in site.api("runs")["runs"] if run["cleanup_type"] == "emergency"}

    before = emergencies()
    page = visitor.log_in()
    show(page, "Clean up")
    page.get_by_text("The disk is full").focus()
    page.keyboard.press("Enter")
    _tab_to(page, "Emergency run…")
    page.keyboard.press("Enter")
    confirm = page.get_by_role("button", name="Delete now")
    page.keyboard.type("emergenc")
    page.keyboard.press("Enter")
    expect(confirm).to_be_disabled()
    page.keyboard.type("y")
    expect(confirm).to_be_enabled()
    page.keyboard.press("Escape")
    assert emergencies() == before


def _tab_to(page: Page, name: str | re.Pattern[str]) -> None:
    """Press the tabulator until something of this name has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.evaluate("document.activeElement.innerText?.replace(/\\u00a0/g, ' ').trim() ?? ''")
        if focused == name or (isinstance(name, re.Pattern) and name.fullmatch(focused)):
            return
    raise AssertionError(f"{name} is not reached by the keyboard")


def test_the_database_goes_away_and_comes_back_without_a_reload(
    browser: Browser, postgres_server_url: URL, postgres_url: URL, tmp_path: Path
) -> None:
    home = tmp_path / "away"
    home.mkdir()
    platform = Platform(home)
    platform.extra = environment_of(postgres_url)
    assert run(platform, "cleanup-operations", "db", "upgrade").returncode == 0
    engine = create_engine(postgres_server_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with serving(platform, dagster_port=free_port()) as url, engine.connect() as conn:
        someone = Visitor(browser, url)
        page = someone.log_in()
        expect(page.get_by_role("switch")).to_have_count(7)
        conn.execute(text(f"ALTER DATABASE {postgres_url.database} ALLOW_CONNECTIONS false"))
        away = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
        conn.execute(text(away), {"name": postgres_url.database})
        show(page, "Holds")
        page.reload()
        alert = page.get_by_role("alert").filter(has_text="nothing to show")
        expect(alert).to_contain_text("database")
        assert "Traceback" not in page.content()
        _examine(page, "without a database")
        conn.execute(text(f"ALTER DATABASE {postgres_url.database} ALLOW_CONNECTIONS true"))
        alert.get_by_role("button", name="Try again now").click()
        expect(alert).to_have_count(0)
        expect(page.locator("section.view:visible")).to_contain_text("Nothing is held.")
        someone.close()


def test_with_no_target_and_no_run_yet_each_view_says_what_to_do(browser: Browser, tmp_path: Path) -> None:
    home = tmp_path / "empty"
    home.mkdir()
    platform = Platform(home)
    platform.configure(targets=[])
    with serving(platform, dagster_port=free_port()) as url:
        someone = Visitor(browser, url)
        page = someone.log_in()
        expect(page.get_by_text("No target is configured.")).to_be_visible()
        expect(page.get_by_text("Dagster does not answer.")).to_be_visible()
        expect(page.locator("#card-last")).to_have_text("Never")
        for view, said in (
            ("Clean up", "Nothing to review yet."),
            ("History", "There was no run yet."),
            ("Files", "Nothing was scanned yet."),
            ("Holds", "Nothing is held."),
            ("Backups", "There are no backups."),
        ):
            show(page, view)
            expect(page.locator("section.view:visible")).to_contain_text(said)
            _examine(page, view)
        show(page, "Clean up")
        page.get_by_role("button", name="Dry run", exact=True).click()
        expect(page.locator("#dry-run-progress")).to_contain_text("Dagster")
        someone.close()
