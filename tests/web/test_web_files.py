"""The lists of files agree with the scan that they come from, in every order, under every filter, on every page."""

import random
import uuid
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from web_helpers import API, DAY, OPERATOR, Platform, asking, bearer, eventually

from cleanup_dagster.backups.manifest import Header, Kind, write_manifest
from cleanup_dagster.bootstrap import open_service
from cleanup_dagster.handles import Request
from cleanup_dagster.retention.models import (
    NS_PER_DAY,
    Candidate,
    CleanupType,
    Identity,
    Outcome,
    Reason,
    State,
    Verdict,
)
from cleanup_dagster.web.index import FileIndex, Filter, Row
from cleanup_dagster.web.indexing import BLOCK, DamagedPlanError, Material, make_index

NOW = 1_800_000_000 * 10**9
FILES = 3 * BLOCK + 17
KEYS: dict[str, Callable[[Row], Any]] = {
    "path": lambda row: row.path,
    "age": lambda row: (-row.since_ns, row.path),
    "size": lambda row: (row.size, row.path),
    "pipeline": lambda row: (row.verdict.candidate.pipeline or "", row.path),
}


def verdicts() -> Generator[Verdict]:
    chance = random.Random(1)  # noqa: S311  reproducible
    for number in range(FILES):
        data_type, status, days = chance.choice(
            [("completed_operations", "completed", 90), ("failed_operations", "failed", 14), ("temp_files", None, 1)]
        )
        age = chance.randrange(200 * NS_PER_DAY)
        identity = Identity(1, number, chance.randrange(5_000), NOW - age, 0, 0, 0o644)
        pipeline = chance.choice([None, "orders", "users"])
        name = f"{chance.randrange(10**9):09}_{'100%' if number % 7 == 0 else 'a_b'}"
        candidate = Candidate(name, identity, data_type, NOW - age, status=status, pipeline=pipeline)
        goes = age > days * NS_PER_DAY
        yield Verdict(candidate, goes, Reason.EXPIRED if goes else Reason.NOT_EXPIRED, age, days)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Generator[FileIndex]:
    home = tmp_path_factory.mktemp("index")
    with write_manifest(home / "plan", Header(Kind.PLAN, "run", "ops", "/srv/ops", NOW)) as manifest:
        for verdict in verdicts():
            manifest.write(verdict)
        manifest.close()
    make_index(Material((str(home / "plan"),), (), {}, str(home / "index.db")))
    index = FileIndex(home / "index.db")
    yield index
    index.remove()


def everything() -> list[Row]:
    return [
        Row(f"/srv/ops/{v.candidate.path}", v.candidate.identity.size, v.candidate.since_ns, v.candidate.since_ns, v)
        for v in verdicts()
    ]


@pytest.mark.parametrize("sort", KEYS)
@pytest.mark.parametrize(
    "wanted",
    [
        Filter(),
        Filter(data_type="failed_operations"),
        Filter(goes=True, data_type="temp_files"),
        Filter(reason="not_expired", status="completed"),
        Filter(text="A_B", goes=False),
        Filter(text="100%"),
        Filter(text="12"),
        Filter(data_type="nothing"),
        Filter(text="no such text"),
    ],
)
def test_pages_are_slices_of_the_sorted_whole(index: FileIndex, sort: str, wanted: Filter) -> None:
    def is_wanted(row: Row) -> bool:
        v = row.verdict
        return (
            wanted.text.lower() in row.path.lower()
            and wanted.data_type in {None, v.candidate.data_type}
            and wanted.goes in {None, v.delete}
            and wanted.reason in {None, v.reason.value}
            and wanted.status in {None, v.candidate.status}
        )

    expected = sorted(filter(is_wanted, everything()), key=KEYS[sort])
    for descending in (False, True):
        whole = expected[::-1] if descending else expected
        for start in {0, 1, BLOCK - 3, BLOCK, len(whole) // 2, max(0, len(whole) - 5), len(whole), 10**9}:
            found = index.page(wanted, sort, start, 50, descending=descending)
            assert [row.path for row in found.rows] == [row.path for row in whole[start : start + 50]]
            assert (found.matching.files, found.matching.bytes) == (len(whole), sum(row.size for row in whole))
            assert all(row.verdict.candidate.data_type for row in found.rows)


def test_what_a_number_of_days_would_let_go_is_counted_to_the_file(index: FileIndex) -> None:
    for days in (0, 1, 13, 100.5, 199, 300):
        cutoff = NOW - int(days * NS_PER_DAY)
        old = [row for row in everything() if row.since_ns < cutoff and row.verdict.reason is Reason.NOT_EXPIRED]
        tally = index.older_than(cutoff, lambda facet: facet.reason == "not_expired")
        assert (tally.files, tally.bytes) == (len(old), sum(row.size for row in old))
        examples = index.oldest(cutoff, lambda facet: facet.reason == "not_expired", 5)
        assert [row.path for row in examples] == [r.path for r in sorted(old, key=lambda r: r.since_ns)[:5]]


@pytest.mark.parametrize("keep", [1, 7, 2_000])
def test_the_newest_of_each_pipeline_are_not_among_what_a_change_would_let_go(index: FileIndex, keep: int) -> None:
    cutoff = NOW - 50 * NS_PER_DAY
    done = [row for row in everything() if row.verdict.candidate.data_type == "completed_operations"]
    places: dict[str | None, int] = {}
    old: list[Row] = []
    for row in sorted(done, key=lambda row: (row.since_ns, row.path), reverse=True):
        pipeline = row.verdict.candidate.pipeline
        places[pipeline] = places.get(pipeline, 0) + 1
        if places[pipeline] > keep and row.since_ns < cutoff and row.verdict.reason is Reason.NOT_EXPIRED:
            old.insert(0, row)
    assert len(places) == 3
    tally, examples = index.older_beyond_newest(
        cutoff,
        lambda facet: facet.data_type == "completed_operations" and facet.reason == "not_expired",
        lambda facet: facet.data_type == "completed_operations",
        keep,
        5,
    )
    assert (tally.files, tally.bytes) == (len(old), sum(row.size for row in old))
    assert [row.path for row in examples] == [row.path for row in old[:5]]


def test_the_newest_are_counted_in_each_target_for_itself(tmp_path: Path) -> None:
    some = [v for v, _ in zip(verdicts(), range(60), strict=False) if v.candidate.pipeline == "orders"]
    for target in ("one", "two"):
        with write_manifest(tmp_path / target, Header(Kind.PLAN, "run", target, f"/srv/{target}", NOW)) as manifest:
            for verdict in some:
                manifest.write(verdict)
            manifest.close()
    make_index(Material((str(tmp_path / "one"), str(tmp_path / "two")), (), {}, str(tmp_path / "i.db")))
    index = FileIndex(tmp_path / "i.db")
    tally, examples = index.older_beyond_newest(NOW, lambda _: True, lambda _: True, len(some) - 1, 9)
    assert tally.files == 2
    assert [Path(row.path).parent.name for row in examples] == ["one", "two"]
    index.remove()


def test_searches_that_wait_leave_threads_for_others(index: FileIndex) -> None:
    """The forty threads of the page answer everybody; a search of a million files takes one of them for a while."""
    with ThreadPoolExecutor(12) as threads:
        with index._searching:  # pyright: ignore[reportPrivateUsage]  as a long search would hold it
            asked = [
                threads.submit(index.page, Filter(text=f"never{n}"), "path", 0, 1, descending=False) for n in range(12)
            ]
            eventually("four are refused", lambda: sum(one.done() for one in asked) == 4)
            assert index.page(Filter(), "path", 0, 1, descending=False).matching.files == FILES
        refused = [error for one in asked if (error := one.exception(30))]
    assert {(str(error), getattr(error, "status", None)) for error in refused} == {
        ("too many searches at once; try again in a few seconds", 503)
    }


def test_what_was_deleted_since_is_left_out_and_a_torn_manifest_counts_up_to_its_tear(tmp_path: Path) -> None:
    some = [v for v, _ in zip(verdicts(), range(10), strict=False)]
    with write_manifest(tmp_path / "plan", Header(Kind.PLAN, "run", "ops", "/srv/ops", NOW)) as manifest:
        for verdict in some:
            manifest.write(verdict)
        manifest.close()
    with write_manifest(tmp_path / "out", Header(Kind.OUTCOMES, "live", "ops", "/srv/ops", NOW)) as manifest:
        for number, state in enumerate((State.DELETED, State.BUSY, State.DELETED)):
            path = some[number].candidate.path
            manifest.write(Outcome(number, path, some[number].candidate.data_type, state, 1))
        manifest.sync()  # and then the power goes
    make_index(Material((str(tmp_path / "plan"),), (str(tmp_path / "out"),), {}, str(tmp_path / "i.db")))
    index = FileIndex(tmp_path / "i.db")
    left = {row.path.rsplit("/", 1)[1] for row in index.page(Filter(), "path", 0, 50, descending=False).rows}
    assert left == {v.candidate.path for v in some} - {some[0].candidate.path, some[2].candidate.path}
    index.remove()
    assert list(tmp_path.glob("i.*")) == []


def test_a_damaged_plan_makes_no_index(tmp_path: Path) -> None:
    with write_manifest(tmp_path / "plan", Header(Kind.PLAN, "run", "ops", "/srv/ops", NOW)) as manifest:
        manifest.sync()
    with pytest.raises(DamagedPlanError, match="cut off"):
        make_index(Material((str(tmp_path / "plan"),), (), {}, str(tmp_path / "i.db")))
    assert list(tmp_path.glob("i.*")) == []


def scan(platform: Platform) -> str:
    """Make a dry run, as somebody else would, and return its id."""
    run_id = str(uuid.uuid4())
    with open_service(platform.settings()) as service:
        run = service.begin(Request(run_id, CleanupType.MANUAL, dry_run=True, executed_by="alice"))
        service.audit(service.check(run, [service.scan(run, target) for target in run.targets]), [])
    return run_id


def test_a_damaged_scan_is_passed_over_for_the_one_before_it_and_said(platform: Platform) -> None:
    platform.operation("old", 120)
    first = scan(platform)
    platform.operation("older", 121)
    second = scan(platform)
    (plan,) = (platform.home / "state" / "plans" / second).glob("operations.jsonl.zst")
    plan.write_bytes(plan.read_bytes()[:-20])

    with asking(platform.app(), headers=bearer(OPERATOR)) as client:

        def shown() -> tuple[int, str | None]:
            files = client.get(f"{API}/files").json()["total_files"]
            return files, client.get(f"{API}/stats").json()["overview"]["scan_problem"]

        files, problem = eventually("what is wrong", lambda: shown() if shown()[1] else None)
        assert (files, problem.startswith(f"the plan of run {second} cannot be read: ")) == (1, True)
        assert client.get(f"{API}/plans/{first}").status_code == 200
        assert client.get(f"{API}/plans/{second}").status_code == 503
        scan(platform)
        eventually("the new scan, and nothing more to say", lambda: shown() == (2, None))


def test_deep_pages_read_as_little_as_the_first(index: FileIndex) -> None:
    """Counted in steps of SQLite's machine, which do not depend on how busy this one is."""

    def steps(start: int) -> int:
        counted = 0

        def count() -> None:
            nonlocal counted
            counted += 1

        for conn in index._connections:  # pyright: ignore[reportPrivateUsage]
            conn.set_progress_handler(count, 100)
        index.page(Filter(data_type="temp_files"), "age", start, 20, descending=False)
        for conn in index._connections:  # pyright: ignore[reportPrivateUsage]
            conn.set_progress_handler(None, 0)
        return counted

    total = index.page(Filter(data_type="temp_files"), "age", 0, 1, descending=False).matching.files
    assert max(steps(start) for start in range(0, total - 20, total // 9)) < 4 * BLOCK * 10 / 100


def test_the_page_scans_by_itself_and_shows_what_it_found(
    operator: Client, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**platform.environ, "CLEANUP_CONFIG": str(platform.config)}.items():
        monkeypatch.setenv(name, value)
    empty = operator.get(f"{API}/files").json()
    assert (empty["total_files"], empty["scanned_at"], empty["operations"]) == (0, None, [])
    preview = {"data_type": "completed_operations", "retention_days": 30}
    assert operator.post(f"{API}/policies/preview", json=preview).status_code == 503
    for number in range(12):
        platform.operation(f"done_{number}", days=number * 10 + 0.5)
    platform.operation("failed", 100, "failed")

    started = operator.post(f"{API}/files/refresh")
    assert started.status_code == 202
    run_id = started.json()["run_id"]
    eventually("the scan is indexed", lambda: operator.get(f"{API}/files").json()["total_files"])

    found = operator.get(f"{API}/files", params={"verdict": "delete", "sort": "-age"}).json()
    assert [Path(row["file_path"]).name for row in found["operations"]] == [
        "operation_done_11.json",
        "operation_done_10.json",
        "operation_failed.json",
        "operation_done_9.json",
    ]
    oldest = found["operations"][0]
    assert (oldest["status"], oldest["reason"], oldest["data_type"]) == ("completed", "expired", "completed_operations")
    assert oldest["sentence"] == "older than 90 days: it is 110.5 days old by its mtime"
    assert abs(oldest["age_days"] - 110.5) < 0.05
    assert found["matching"] == 4
    overview = operator.get(f"{API}/stats").json()["overview"]
    assert (overview["files_to_clean"], overview["dagster_reachable"]) == (4, False)

    seen = operator.post(f"{API}/policies/preview", json=preview).json()
    assert (seen["newly_expired"]["files"], seen["no_longer_expired"]["files"]) == (6, 0)
    assert Path(seen["examples"][0]["file_path"]).name == "operation_done_8.json"
    seen = operator.post(f"{API}/policies/preview", json={**preview, "enabled": False}).json()
    assert (seen["newly_expired"]["files"], seen["no_longer_expired"]["files"]) == (0, 3)
    for keep, newly, fewer in ((3, 6, 2), (7, 2, 2), (10, 0, 3)):  # two pipelines: of ten, and of the two oldest
        seen = operator.post(f"{API}/policies/preview", json={**preview, "keep_last": keep}).json()
        assert (seen["newly_expired"]["files"], seen["no_longer_expired"]["files"]) == (newly, fewer), keep
    too_few = operator.post(f"{API}/policies/preview", json={**preview, "retention_days": 1})
    assert (too_few.status_code, "allows 2 to 36500" in too_few.json()["error"]) == (422, True)

    plan = operator.get(f"{API}/plans/{run_id}").json()["plan"]
    assert (plan["applicable"], plan["files"], {t["data_type"] for t in plan["types"]}) == (
        True,
        4,
        {"completed_operations", "failed_operations"},
    )
    items = operator.get(f"{API}/plans/{run_id}/items", params={"per_page": 3, "page": 2, "sort": "path"}).json()
    assert (items["matching"], [Path(row["file_path"]).name for row in items["items"]]) == (
        4,
        ["operation_failed.json"],
    )
    operator.post(f"{API}/policies", json={"data_type": "completed_operations", "retention_days": 30})
    plan = operator.get(f"{API}/plans/{run_id}").json()["plan"]
    assert (plan["applicable"], "was kept 90 days and is kept 30 days" in plan["why_not"]) == (False, True)
    assert operator.post(f"{API}/plans/{run_id}/apply", json={}).status_code == 409
    assert not list((platform.home).glob("backups/*"))
    assert len(list(platform.ops.iterdir())) == 13
    metrics = operator.get("/metrics").text
    assert 'cleanup_expired_files{data_type="completed_operations"} 3.0' in metrics
    assert 'cleanup_runs_total{mode="dry",status="done",type="manual"} 1.0' in metrics
    oldest_line = next(
        line
        for line in metrics.splitlines()
        if line.startswith('cleanup_oldest_expired_age_seconds{data_type="completed')
    )
    assert abs(float(oldest_line.rsplit(" ", 1)[1]) - 110.5 * DAY) < 600


@pytest.mark.parametrize(
    "asked",
    ["sort=nothing", "page=0", "page=x", "per_page=501", "verdict=perhaps", "reason=because", "page=99999999999"],
)
def test_a_question_that_makes_no_sense_is_refused(viewer: Client, asked: str) -> None:
    answered = viewer.get(f"{API}/files?{asked}")
    assert answered.status_code == 422
    assert asked.split("=", maxsplit=1)[0] in answered.json()["error"]


def test_ages_sort_by_the_moment_they_are_measured_from(index: FileIndex) -> None:
    rows = index.page(Filter(), "age", 0, 200, descending=True).rows
    assert all(one.since_ns <= other.since_ns for one, other in pairwise(rows))
