"""A hold wins over everything, whenever it was placed."""

from pathlib import Path

import pytest
from service_helpers import EMERGENCY, MANUAL, Platform, files, left_behind, request, scan_all

from cleanup_dagster.collectors import deletion
from cleanup_dagster.retention.models import CleanupType, Reason

HOLDS = [
    pytest.param("{root}/a/keep.log", {}, {"a/keep.log"}, id="path"),
    pytest.param("{root}/**/*eep.log", {}, {"a/keep.log"}, id="glob"),
    pytest.param("{root}/a", {}, {"a/keep.log", "a/b/other.log"}, id="directory"),
    pytest.param("{root}/a/**", {}, {"a/keep.log", "a/b/other.log"}, id="everything-below"),
    pytest.param("**", {"data_type": "system_logs"}, {"a/keep.log", "a/b/other.log", "go.log"}, id="data-type"),
    pytest.param("**", {"data_type": "failed_operations"}, set[str](), id="other-data-type"),
    pytest.param("{root}/elsewhere", {}, set[str](), id="other-path"),
    pytest.param("{root}/a/keep.log", {"until": "2001-01-01 00:00:00+00"}, set[str](), id="past"),
    pytest.param("{root}/a/keep.log", {"until": "2999-01-01 00:00:00+00"}, {"a/keep.log"}, id="future"),
]


def logs(platform: Platform) -> None:
    for name in ("a/keep.log", "a/b/other.log", "go.log"):
        platform.log(name, 31)


@pytest.mark.parametrize("cleanup_type", [MANUAL, EMERGENCY])
@pytest.mark.parametrize(("pattern", "columns", "kept"), HOLDS)
def test_what_is_held_stays(
    platform: Platform, pattern: str, columns: dict[str, str], kept: set[str], cleanup_type: CleanupType
) -> None:
    logs(platform)
    platform.hold(pattern.format(root=platform.logs), **columns)
    ended = platform.run(cleanup_type=cleanup_type, skip_backup=cleanup_type is EMERGENCY)
    assert ended.report.status == "done"
    assert files(platform.logs) == kept
    held = ended.plans["logs"].kept.get(Reason.HELD)
    assert (held.files if held else 0) == len(kept)


@pytest.mark.parametrize(("pattern", "columns", "kept"), HOLDS)
def test_what_is_held_after_the_backup_but_before_the_deletion_stays(
    platform: Platform, pattern: str, columns: dict[str, str], kept: set[str]
) -> None:
    logs(platform)
    with platform.service() as service:
        checked = scan_all(service, service.begin(request(cleanup_type=EMERGENCY)))
        receipts = [service.back_up(plan) for plan in checked.plans]
        platform.hold(pattern.format(root=platform.logs), **columns)
        report = service.audit(checked, [service.delete(receipt) for receipt in receipts])
    assert files(platform.logs) == kept
    assert platform.ask(
        "SELECT records_deleted, records_skipped FROM cleanup_audit WHERE data_type = 'system_logs'"
    ) == [(3 - len(kept), len(kept))]
    assert report.status == "done"
    assert not left_behind(platform.home)


def test_a_hold_on_a_pipeline_keeps_its_operations(either: Platform) -> None:
    either.operation("sales", 91, pipeline_name="sales")
    either.operation("stock", 91, pipeline_name="stock")
    either.operation("nameless", 91)
    either.hold("**", pipeline="sales")
    either.run(cleanup_type=EMERGENCY)
    assert files(either.operations) == {"operation_sales.json"}


def test_a_hold_on_a_pipeline_placed_before_the_deletion_keeps_its_operations(platform: Platform) -> None:
    platform.operation("sales", 91, pipeline_name="sales")
    platform.operation("stock", 91, pipeline_name="stock")
    with platform.service() as service:
        checked = scan_all(service, service.begin(request()))
        receipts = [service.back_up(plan) for plan in checked.plans]
        platform.hold("**", pipeline="sales")
        service.audit(checked, [service.delete(receipt) for receipt in receipts])
    assert files(platform.operations) == {"operation_sales.json"}


def test_a_hold_placed_during_a_long_deletion_saves_what_comes_after_it(platform: Platform) -> None:
    for number in range(300):
        platform.log(f"{number}.log", 31)
    with platform.service() as service:
        checked = scan_all(service, service.begin(request()))
        receipts = {plan.target: service.back_up(plan) for plan in checked.plans}
        placed: list[int] = []

        def after_the_first_batch(count: int) -> None:
            if count and not placed:
                platform.hold("**")
                placed.append(count)

        service.delete(receipts["logs"], after_the_first_batch)
    assert len(files(platform.logs)) == 300 - placed[0]
    assert 0 < placed[0] < 300


def test_a_hold_under_a_root_with_a_strange_name_wins_in_recovery_too(platform: Platform) -> None:
    strange = platform.home / "back\\slash"
    platform.target("logs")["root"] = str(strange)
    path = platform.file(strange / "a.log", 31, "a")
    with platform.service() as service, pytest.MonkeyPatch.context() as patch:
        checked = scan_all(service, service.begin(request()))
        receipts = [service.back_up(plan) for plan in checked.plans]

        def die(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(deletion, "_remove", die)
        with pytest.raises(KeyboardInterrupt):
            service.delete(receipts[1])
    assert not path.exists()
    platform.hold(f"{platform.home}/back" + 2 * "\\" + "slash/a.log")  # as plans and logs show the name
    ended = platform.run()
    assert ended.run.recovered
    assert path.read_text() == "a"


def test_the_reason_of_a_hold_writes_no_other_line_of_the_log(platform: Platform) -> None:
    for name in ("a.log", "b.log"):
        platform.log(name, 40)
    with platform.service() as service:
        checked = scan_all(service, service.begin(request()))
        backed_up = [service.back_up(plan) for plan in checked.plans]
        service.records.hold(str(platform.logs / "a.log"), "why\ndeleted  /etc/passwd  no backup\x1b[2J", "bob")
        report = service.audit(checked, [service.delete(one) for one in backed_up])
    lines = Path(report.log).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in lines)
    assert len([line for line in lines if line.startswith("deleted ")]) == 1
    assert any(line.endswith(r": why\ndeleted  /etc/passwd  no backup\x1b[2J") for line in lines)
