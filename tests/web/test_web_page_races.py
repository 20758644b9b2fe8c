"""Answers that are late, reordered or lost, and two who act on the same thing: in Chromium, on real processes."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from page_site import OPERATOR, Site, Visitor, show
from playwright.sync_api import Page, Route, expect

LOOK = "document.dispatchEvent(new Event('visibilitychange'))"  # as on coming back to the page


@pytest.fixture(autouse=True)
def _as_it_was(site: Site) -> None:
    """Each test changes this policy from the same."""
    site.api("policies", {"data_type": "temp_files", "retention_days": 1, "enabled": True})


class Held:
    """Answers of the API that wait: each says how things were when it was asked for, whenever it is handed over."""

    def __init__(
        self, page: Page, path: str, method: str = "GET", change: Callable[[Any], None] = lambda _document: None
    ) -> None:
        self._page = page
        self._method = method
        self._change = change
        self._url = f"**/api/cleanup/{path}"
        self._answers: list[tuple[Route, Any]] = []
        page.route(self._url, self._hold)

    def _hold(self, route: Route) -> None:
        if route.request.method == self._method:
            document = route.fetch().json()
            self._change(document)
            self._answers.append((route, document))
        else:
            route.fallback()

    def wait(self, count: int = 1) -> None:
        """Wait until so many answers are held."""
        for _ in range(500):
            if len(self._answers) >= count:
                return
            self._page.wait_for_timeout(20)
        raise AssertionError(f"{len(self._answers)} answers of {self._url} are held, not {count}")

    def give(self, index: int = 0) -> None:
        """Hand one over, and let the page draw it."""
        route, document = self._answers[index]
        route.fulfill(json=document)
        self._page.wait_for_timeout(200)

    def __len__(self) -> int:
        return len(self._answers)

    def leave(self) -> None:
        """Hold no further ones."""
        self._page.unroute(self._url)


def amend(page: Page, path: str, change: Callable[[Any], None]) -> None:
    """Let `change` alter what the API answers."""

    def alter(route: Route) -> None:
        document = route.fetch().json()
        change(document)
        route.fulfill(json=document)

    page.route(f"**/api/cleanup/{path}", alter)


def unanswered(page: Page, path: str) -> list[Route]:
    """Let the API leave requests without an answer, and return them."""
    asked: list[Route] = []

    def keep(route: Route) -> None:
        asked.append(route)

    page.route(f"**/api/cleanup/{path}", keep)
    return asked


def test_two_people_who_change_one_policy_hear_of_each_other(site: Site, visitor: Visitor) -> None:
    page = visitor.log_in()
    days = page.get_by_label("Days that temp_files are kept")
    expect(days).to_have_value("1")
    days.fill("5")
    expect(page.get_by_text("1 day → 5 days.")).to_be_visible()
    site.api("policies", {"data_type": "temp_files", "retention_days": 3, "enabled": False})

    page.get_by_role("button", name="Save").click()
    change = page.locator("#policies .change-box")
    expect(change).to_contain_text("was changed by somebody else meanwhile; now it is kept for 3 days, off")
    expect(change).to_contain_text("3 days → 5 days.")  # and the switch, which was not touched here, follows
    expect(page.get_by_label("Policy temp_files")).not_to_be_checked()
    policy = "SELECT retention_days, enabled FROM cleanup_policies WHERE data_type = 'temp_files'"
    assert site.ask(policy) == [(3, False)]

    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="Save")).to_have_count(0)
    assert site.ask(policy) == [(5, False)]


def test_a_policy_can_be_changed_again_before_the_table_is_drawn_anew(site: Site, visitor: Visitor) -> None:
    page = visitor.log_in()
    days = page.get_by_label("Days that temp_files are kept")
    expect(days).to_have_value("1")
    page.route("**/api/cleanup/stats", lambda _route: None)  # never answered, so the table stays as it was drawn
    for value in ("2", "1"):
        days.fill(value)
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("button", name="Save")).to_have_count(0)
        expect(days).to_have_value(value)
    assert site.ask("SELECT retention_days FROM cleanup_policies WHERE data_type = 'temp_files'") == [(1,)]


def test_an_older_look_at_the_policies_is_not_drawn_over_a_saved_change(site: Site, visitor: Visitor) -> None:
    page = visitor.log_in()
    days = page.get_by_label("Days that temp_files are kept")
    expect(days).to_have_value("1")
    looks = Held(page, "policies")
    page.evaluate(LOOK)
    looks.wait(1)
    days.fill("2")
    page.get_by_role("button", name="Save").click()
    looks.wait(2)
    looks.give(0)
    expect(days).to_have_value("2")
    looks.give(1)
    looks.leave()
    days.fill("1")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="Save")).to_have_count(0)
    assert site.ask("SELECT retention_days FROM cleanup_policies WHERE data_type = 'temp_files'") == [(1,)]


def test_an_older_list_is_not_drawn_over_a_newer_one(visitor: Visitor) -> None:
    page = visitor.log_in()
    show(page, "Holds")
    show(page, "Backups")
    lists = Held(page, "holds")
    page.get_by_role("navigation", name="Sections").get_by_role("link", name="Holds").click()
    lists.wait(1)
    page.get_by_role("button", name="Add a hold").click()
    page.get_by_label("Path or pattern").fill("/srv/held/**")
    page.get_by_label("Reason").fill("audit")
    page.get_by_role("button", name="Add the hold").click()
    lists.wait(2)
    lists.give(1)
    row = page.get_by_role("row", name="/srv/held/**")
    expect(row).to_be_visible()
    lists.give(0)
    expect(row).to_be_visible()


def test_the_chart_is_of_the_time_that_was_chosen_last(visitor: Visitor) -> None:
    page = visitor.log_in()
    show(page, "History")
    charts = Held(page, "charts?*", change=lambda found: found["days"].append(_day()))
    span = page.get_by_label("Charts of")
    for chosen in ("30 days", "a year"):
        span.select_option(chosen)
    charts.wait(2)
    charts.give(1)
    hover = page.locator(".chart-hover").first
    expect(hover).to_contain_text("in 365 days")
    charts.give(0)
    expect(hover).to_contain_text("in 365 days")


def _day() -> dict[str, object]:
    return {"date": "2026-01-31", "files": 3, "bytes": 9, "types": {"dbt_logs": {"files": 3, "bytes": 9}}}


def test_the_drawer_is_headed_by_what_it_shows(visitor: Visitor) -> None:
    page = visitor.log_in()
    show(page, "History")
    runs = Held(page, "runs/*")
    page.locator("#runs .link-button").first.click()
    runs.wait(1)
    page.get_by_role("button", name="Close").click()
    show(page, "Files")
    page.locator("#files .link-button").first.click()
    expect(page.locator("#drawer-title")).to_have_text("Why?")
    runs.give(0)
    expect(page.locator("#drawer-title")).to_have_text("Why?")


def test_a_drawer_that_was_closed_stays_closed_when_its_run_ends(visitor: Visitor) -> None:
    page = visitor.log_in()
    status = ["running"]
    amend(page, "runs/*", lambda found: found["run"].update(status=status[0]))
    show(page, "History")
    page.locator("#runs .link-button").first.click()
    expect(page.locator("#drawer progress")).to_be_visible()
    page.get_by_role("button", name="Close").click()
    status[0] = "done"
    expect(page.locator("#toasts")).to_contain_text("Dry run: done")
    expect(page.locator("#drawer")).to_be_hidden()


def test_a_run_that_nobody_knows_any_more_is_not_waited_for(visitor: Visitor) -> None:
    page = visitor.open()
    page.clock.install()
    visitor.enter(page)
    show(page, "Clean up")
    page.route("**/api/cleanup/run", lambda route: route.fulfill(json={"success": True, "run_id": "of_nobody"}))
    page.get_by_role("button", name="Dry run", exact=True).click()
    expect(page.locator("#dry-run-progress progress")).to_be_visible()
    for _ in range(20):
        page.clock.run_for(1_000)
        page.wait_for_timeout(50)
    expect(page.locator("#dry-run-progress")).to_contain_text("not known")
    expect(page.get_by_role("button", name="Dry run", exact=True)).to_be_enabled()
    visitor.complaints.clear()  # the browser reports the 404s, as it should


def test_a_question_is_not_left_before_its_answer(visitor: Visitor) -> None:
    page = visitor.log_in()
    show(page, "Holds")
    page.get_by_role("button", name="Add a hold").click()
    page.get_by_label("Path or pattern").fill("/srv/first/**")
    page.get_by_label("Reason").fill("audit")
    posts = Held(page, "holds", "POST")
    page.get_by_role("button", name="Add the hold").click()
    posts.wait(1)
    for _ in range(3):
        page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_visible()
    posts.give(0)
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("row", name="/srv/first/**")).to_be_visible()


def test_what_is_under_way_is_not_confirmed_again(visitor: Visitor) -> None:
    page = visitor.log_in()
    show(page, "Clean up")
    asked = unanswered(page, "run")
    page.get_by_text("The disk is full").click()
    page.get_by_role("button", name="Emergency run…").click()
    word = page.get_by_label("Type emergency to confirm")
    word.fill("emergency")
    page.keyboard.press("Enter")
    expect(page.locator("#confirm")).to_have_attribute("aria-busy", "true")
    word.fill("emergenc")
    word.fill("emergency")
    page.keyboard.press("Enter")
    word.fill("no")
    page.wait_for_timeout(200)
    assert len(asked) == 1
    asked[0].fulfill(status=503, json={"success": False, "error": "Dagster is away"})
    expect(page.locator("#confirm-error")).to_contain_text("Dagster is away")
    expect(page.get_by_role("button", name="Delete now")).to_be_disabled()
    visitor.complaints.clear()  # the browser reports the 503, as it should


def test_an_emergency_does_not_wait_for_figures(visitor: Visitor) -> None:
    page = visitor.log_in()
    show(page, "Clean up")
    stats = Held(page, "stats")
    page.evaluate(LOOK)
    stats.wait(1)
    page.get_by_text("The disk is full").click()
    page.get_by_role("button", name="Emergency run…").click()
    expect(page.get_by_role("dialog")).to_contain_text("By the last scan", timeout=2_000)


def test_what_is_typed_while_a_change_is_saved_is_a_draft_of_its_own(site: Site, visitor: Visitor) -> None:
    page = visitor.log_in()
    days = page.get_by_label("Days that temp_files are kept")
    expect(days).to_have_value("1")
    posts = Held(page, "policies", "POST")
    days.fill("2")
    save = page.get_by_role("button", name="Save")
    save.click()
    posts.wait(1)
    days.fill("3")
    page.wait_for_timeout(800)
    expect(save).to_be_disabled()
    posts.give(0)
    posts.leave()
    change = page.locator("#policies .change-box")
    expect(change).to_contain_text("2 days → 3 days.")
    expect(change).not_to_contain_text("somebody else")
    save.click()
    expect(save).to_have_count(0)
    assert site.ask("SELECT retention_days FROM cleanup_policies WHERE data_type = 'temp_files'") == [(3,)]


def test_a_change_that_is_being_saved_cannot_be_discarded(visitor: Visitor) -> None:
    page = visitor.log_in()
    days = page.get_by_label("Days that temp_files are kept")
    expect(days).to_have_value("1")
    posts = Held(page, "policies", "POST")
    days.fill("0")
    days.fill("2")
    page.get_by_role("button", name="Save").click()
    posts.wait(1)
    expect(page.get_by_role("button", name="Discard")).to_be_disabled()
    days.press("Escape")
    expect(days).to_have_value("2")
    expect(page.locator("#policies .change-box")).to_be_visible()
    posts.give(0)
    posts.leave()
    expect(page.locator("#policies .change-box")).to_have_count(0)
    days.fill("1")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="Save")).to_have_count(0)


def test_saving_does_not_take_the_focus_from_elsewhere(visitor: Visitor) -> None:
    page = visitor.log_in()
    days = page.get_by_label("Days that temp_files are kept")
    expect(days).to_have_value("1")
    posts = Held(page, "policies", "POST")
    days.fill("2")
    page.get_by_role("button", name="Save").click()
    posts.wait(1)
    other = page.get_by_label("Days that dbt_logs are kept")
    other.focus()
    posts.give(0)
    posts.leave()
    expect(page.locator("#policies .change-box")).to_have_count(0)
    expect(other).to_be_focused()
    days.fill("1")
    save = page.get_by_role("button", name="Save")
    expect(save).to_be_enabled()
    save.focus()
    page.keyboard.press("Enter")
    expect(save).to_have_count(0)
    expect(days).to_be_focused()


def test_a_reset_policy_can_be_changed_before_the_table_is_drawn_anew(site: Site, visitor: Visitor) -> None:
    site.api("policies", {"data_type": "temp_files", "retention_days": 4})
    page = visitor.log_in()
    days = page.get_by_label("Days that temp_files are kept")
    expect(days).to_have_value("4")
    Held(page, "stats")
    page.get_by_role("button", name="Reset to defaults").click()
    page.get_by_role("dialog").get_by_role("button", name="Reset").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(days).to_have_value("1")
    for value in ("2", "1"):
        days.fill(value)
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("button", name="Save")).to_have_count(0)
    assert site.ask("SELECT retention_days FROM cleanup_policies WHERE data_type = 'temp_files'") == [(1,)]


def test_the_end_of_a_dry_run_leaves_a_reader_where_he_is(visitor: Visitor) -> None:
    page = visitor.log_in()
    status = ["running"]
    show(page, "Clean up")
    plan = page.get_by_role("button", name="Its dry run")
    expect(plan).to_be_visible()
    run_id = page.evaluate("fetch('/api/cleanup/runs').then((one) => one.json()).then(({ runs }) => runs[0].run_id)")
    amend(page, "runs/*", lambda found: found["run"].update(status=status[0]))
    page.route("**/api/cleanup/run", lambda route: route.fulfill(json={"success": True, "run_id": run_id}))
    page.get_by_role("button", name="Dry run", exact=True).click()
    expect(page.locator("#dry-run-progress progress")).to_be_visible()
    show(page, "Holds")
    status[0] = "done"
    expect(page.locator("#toasts")).to_contain_text("Dry run: done")
    page.wait_for_timeout(200)
    expect(page.get_by_role("heading", name="Holds")).to_be_visible()
    show(page, "Clean up")
    expect(plan).to_be_visible()
    expect(page.get_by_role("button", name="Dry run", exact=True)).to_be_enabled()


def test_the_plan_under_review_is_not_exchanged(site: Site, visitor: Visitor) -> None:
    page = visitor.log_in()
    show(page, "Clean up")
    expect(page.get_by_role("button", name="Its dry run")).to_be_visible()
    mine = site.api("runs")["runs"][0]["run_id"]
    other = "newer-" + mine

    def add(found: dict[str, Any]) -> None:
        found["runs"].insert(0, {**found["runs"][0], "run_id": other})

    amend(page, "runs", add)
    plans: list[str] = []

    def plan(route: Route) -> None:
        plans.append(route.request.url)
        document = route.fetch(url=route.request.url.replace("newer-", "")).json()
        if "newer-" in route.request.url and "plan" in document:
            document["plan"] |= {"run_id": other, "files": 1}
        route.fulfill(json=document)

    page.route("**/api/cleanup/plans/**", plan)
    page.evaluate("document.dispatchEvent(new Event('cleanup:changed'))")  # somebody's run has ended
    newer = page.get_by_role("link", name="newer")
    expect(newer).to_be_visible()
    assert not [url for url in plans if "newer-" in url]
    newer.click()
    expect(page.get_by_role("button", name="Run this plan: 1 file…")).to_be_visible()
    expect(newer).to_have_count(0)
    expect(page.locator("#plan tbody tr")).not_to_have_count(0)
    expect(page.locator("[aria-busy='true']:visible")).to_have_count(0)  # else its list would be asked of the server


def test_a_list_that_has_become_shorter_is_shown_at_its_end(visitor: Visitor) -> None:
    page = visitor.log_in()
    show(page, "Files")
    rows = page.locator("#files tbody tr")
    expect(rows).to_have_count(25)
    page.locator("#files").get_by_role("button", name="Next").click()
    expect(page.locator("#files")).to_contain_text("Page 2 of")

    def shorten(route: Route) -> None:
        document = route.fetch().json()
        is_first = "page=1&" in route.request.url
        route.fulfill(json=document | {"matching": 3, "operations": document["operations"][:3] if is_first else []})

    page.route("**/api/cleanup/files?*", shorten)
    show(page, "Overview")
    show(page, "Files")
    expect(rows).to_have_count(3)
    expect(page.locator("#files")).not_to_contain_text("Nothing was scanned")


def test_the_end_of_a_run_is_told_once(visitor: Visitor) -> None:
    page = visitor.open()
    page.clock.install()
    visitor.enter(page)
    expect(page.locator("#card-files")).to_have_text(re.compile(r"\d"))
    status = ["running"]
    amend(page, "runs/*", lambda found: found["run"].update(status=status[0]))
    amend(page, "runs", lambda found: found["runs"][0].update(status=status[0]))
    page.clock.run_for(10_100)
    expect(page.get_by_role("region", name="Run in progress")).to_be_visible()
    lists = Held(page, "runs", change=lambda found: found["runs"][0].update(status=status[0]))
    page.clock.run_for(10_100)
    lists.wait(1)
    status[0] = "done"
    page.clock.run_for(1_100)
    toasts = page.locator("#toasts .toast")
    expect(toasts).to_have_count(1)
    lists.give(0)
    page.wait_for_timeout(500)
    page.clock.run_for(1_100)
    page.wait_for_timeout(300)
    expect(toasts).to_have_count(1)


def test_an_answer_that_breaks_off_is_no_success(visitor: Visitor) -> None:
    page = visitor.log_in()
    show(page, "Holds")
    page.get_by_role("button", name="Add a hold").click()
    page.get_by_label("Path or pattern").fill("/srv/torn/**")
    page.get_by_label("Reason").fill("audit")
    torn = "**/api/cleanup/holds"
    page.route(torn, lambda route: route.fulfill(status=200, content_type="application/json", body='{"success": tr'))
    page.get_by_role("button", name="Add the hold").click()
    expect(page.locator("#confirm-error")).to_contain_text("could not be read")
    assert page.locator("#toasts .toast").count() == 0
    page.unroute(torn)


def test_a_hold_that_somebody_else_removed_is_gone_here_too(site: Site, visitor: Visitor) -> None:
    hold = site.api("holds", {"pattern": "/srv/both/**", "reason": "audit"})["id"]
    page = visitor.log_in()
    show(page, "Holds")
    row = page.get_by_role("row", name="/srv/both/**")
    row.get_by_role("button", name="Remove").click()
    site.api(f"holds/{hold}", method="DELETE")
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(row).to_have_count(0)
    expect(page.locator("#toasts")).to_contain_text("already")
    visitor.complaints.clear()  # the browser reports the 404, as it should


def test_why_a_file_stays_is_told_anew_when_it_is_held(visitor: Visitor) -> None:
    page = visitor.log_in()
    show(page, "Files")
    page.locator("#files").get_by_label("Goes").check(force=True)
    page.locator("#files .link-button").first.click()
    drawer = page.locator("#drawer")
    expect(drawer).to_contain_text("A live run would delete it")
    page.get_by_role("button", name="Hold this file").click()
    page.get_by_role("textbox", name="Reason").fill("audit")
    page.get_by_role("button", name="Add the hold").click()
    expect(drawer).to_contain_text("It stays")


def test_a_refresh_leaves_the_focus_where_it_is(visitor: Visitor) -> None:
    page = visitor.log_in()
    last = {"at": "2026-01-31T09:00:00Z", "outcome": "done", "run_id": "of_nobody", "message": ""}
    amend(page, "stats", lambda found: found["overview"].update(last_cleanup=last))
    page.reload()
    details = page.locator("#card-last-more").get_by_role("button", name="Details")
    details.focus()
    with page.expect_response("**/api/cleanup/stats"):
        page.evaluate(LOOK)
    page.wait_for_timeout(300)
    expect(details).to_be_focused()


def test_a_slow_server_is_not_asked_ever_more_and_a_lost_look_does_not_stop_the_next(
    site: Site, visitor: Visitor
) -> None:
    page = visitor.open()
    page.add_init_script(
        "const after = AbortSignal.timeout.bind(AbortSignal); AbortSignal.timeout = (ms) => after(ms / 60)"
    )
    page.clock.install()
    visitor.enter(page)
    days = page.get_by_label("Days that temp_files are kept")
    expect(days).to_have_value("1")
    asked = unanswered(page, "policies")
    for _ in range(5):
        page.clock.run_for(15_100)
    page.wait_for_timeout(300)
    assert len(asked) == 1
    expect(page.get_by_role("alert").filter(has_text="does not answer")).to_be_visible()
    page.unroute("**/api/cleanup/policies")
    site.api("policies", {"data_type": "temp_files", "retention_days": 2})
    page.clock.run_for(15_100)
    expect(days).to_have_value("2")
    visitor.complaints.clear()


def test_a_run_that_ended_before_is_shown_with_its_plan_and_not_told_as_news(visitor: Visitor) -> None:
    page = visitor.log_in()
    show(page, "Clean up")
    expect(page.get_by_role("button", name="Its dry run")).to_be_visible()

    def applied(found: dict[str, Any]) -> None:
        dry = next(run for run in found["runs"] if run["dry_run"])
        found["runs"].insert(0, {**dry, "run_id": "earlier", "dry_run": False, "plan": dry["run_id"]})

    def earlier(route: Route) -> None:
        mine = next(run for run in site_runs["runs"] if run["dry_run"])
        document = route.fetch(url=route.request.url.replace("earlier", mine["run_id"])).json()
        document["run"] |= {"run_id": "earlier", "dry_run": False, "plan": mine["run_id"]}
        route.fulfill(json=document)

    site_runs = page.evaluate("fetch('/api/cleanup/runs').then((answer) => answer.json())")
    amend(page, "runs", applied)
    page.route("**/api/cleanup/runs/earlier", earlier)
    page.reload()
    expect(page.locator("#live-run")).to_contain_text("Cleanup of a reviewed plan: done.")
    expect(page.get_by_role("button", name="Run this plan…")).to_be_disabled()
    page.wait_for_timeout(500)
    assert page.locator("#toasts .toast").count() == 0


def test_a_run_is_not_taken_for_that_of_a_plan_that_came_meanwhile(site: Site, visitor: Visitor) -> None:
    page = visitor.log_in()
    show(page, "Clean up")
    plan = page.get_by_role("button", name=re.compile(r"Run this plan: \d+ files"))
    expect(plan).to_be_enabled()
    mine = site.api("runs")["runs"][0]["run_id"]

    def other(route: Route) -> None:
        document = route.fetch(url=route.request.url.replace("newer-", "")).json()
        if "plan" in document:
            document["plan"]["run_id"] = f"newer-{mine}"
        route.fulfill(json=document)

    page.route("**/api/cleanup/plans/newer-*", other)
    page.route("**/api/cleanup/plans/newer-*/items?*", other)
    started = {"success": True, "run_id": mine}
    applied: list[str] = []

    def apply(route: Route) -> None:
        applied.append(route.request.url)
        route.fulfill(json=started)

    page.route("**/api/cleanup/plans/*/apply", apply)
    plan.click()
    page.evaluate(f"location.hash = 'cleanup/newer-{mine}'")  # as at the end of a dry run
    expect(page.get_by_role("link", name="newer")).to_be_attached()
    page.get_by_role("dialog").get_by_role("button", name=re.compile("Delete")).click()
    expect(page.locator("#drawer")).to_contain_text(mine)
    page.get_by_role("button", name="Close").click()
    assert [url for url in applied if f"/plans/{mine}/apply" in url] == applied != []
    expect(page.locator("#live-run")).to_be_empty()
    expect(plan).to_be_enabled()
    expect(page.locator("[aria-busy='true']:visible")).to_have_count(0)


def test_the_button_to_try_again_keeps_the_focus(visitor: Visitor) -> None:
    page = visitor.log_in()
    expect(page.locator("#card-files")).to_have_text(re.compile(r"\d"))
    page.route("**/api/cleanup/stats", lambda route: route.fulfill(status=503, json={"error": "The database is away."}))
    page.evaluate(LOOK)
    again = page.get_by_role("button", name="Try again now")
    again.focus()
    with page.expect_response("**/api/cleanup/stats"):
        page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    expect(again).to_be_focused()
    page.unroute("**/api/cleanup/stats")
    page.keyboard.press("Enter")
    expect(again).to_have_count(0)
    visitor.complaints.clear()  # the browser reports the 503s, as it should


def test_the_focus_stays_in_the_view_when_what_had_it_is_gone(site: Site, visitor: Visitor) -> None:
    site.api("holds", {"pattern": "/srv/gone/**", "reason": "audit"})
    page = visitor.log_in()
    show(page, "Holds")
    page.get_by_role("row", name="/srv/gone/**").get_by_role("button", name="Remove").focus()
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Remove").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Nothing is held.")).to_be_visible()
    expect(page.get_by_role("heading", name="Holds")).to_be_focused()


def test_looking_again_and_again_leaves_nothing_behind(visitor: Visitor) -> None:
    page = visitor.open()
    page.clock.install()
    visitor.enter(page)
    devtools: Any = page.context.new_cdp_session(page)

    def after(looks: int) -> tuple[int, int]:
        for _ in range(looks):
            page.clock.run_for(15_000)
            page.wait_for_timeout(100)  # while one is not answered, there is no other
        devtools.send("HeapProfiler.collectGarbage")
        found = devtools.send("Memory.getDOMCounters")
        return found["nodes"], found["jsEventListeners"]

    few, many = after(10), after(50)
    assert many[0] <= few[0] * 1.2
    assert many[1] <= few[1] * 1.2


def test_an_ended_session_leads_to_the_login_from_the_middle_of_a_question(visitor: Visitor) -> None:
    page = visitor.log_in()
    show(page, "Holds")
    page.get_by_role("button", name="Add a hold").click()
    page.get_by_label("Path or pattern").fill("/srv/ended/**")
    page.get_by_label("Reason").fill("audit")
    page.context.clear_cookies()
    page.get_by_role("button", name="Add the hold").click()
    page.wait_for_url("**/login")
    expect(page.get_by_label("Access token")).to_be_focused()
    page.get_by_label("Access token").fill(OPERATOR)
    page.keyboard.press("Enter")
    page.wait_for_url("**/pipeline-management")
    page.go_back()
    page.wait_for_timeout(500)
    show(page, "Holds")
    page.get_by_role("button", name="Add a hold").click()
    page.get_by_label("Path or pattern").fill("/srv/ended/**")
    page.get_by_label("Reason").fill("audit")
    page.get_by_role("button", name="Add the hold").click()
    expect(page.get_by_role("row", name="/srv/ended/**")).to_be_visible()
    visitor.complaints.clear()  # the browser reports the 401, as it should
