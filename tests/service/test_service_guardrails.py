"""What stops a live run before its first deletion, and what overrules it. Every one is met by driving the verbs."""

import itertools
from pathlib import Path

import pytest
from service_helpers import EMERGENCY, MANUAL, Platform, files, request, scan_all

from cleanup_dagster import planning
from cleanup_dagster.backups.manifest import read_manifest
from cleanup_dagster.installation import RunRefusedError
from cleanup_dagster.retention.models import Receipt

GIB = 1024**3


def limit(platform: Platform, **limits: object) -> None:
    platform.config["limits"].update(limits)


_rounds = itertools.count()


def expired(platform: Platform, number: int, size: int = 1) -> None:
    """Write expired logs, no two calls the same: bytes that equal an earlier backup would count as put back."""
    turn = next(_rounds)
    for index in range(number):
        platform.log(f"old_{turn}_{index}.log", 31, "x" * size)


def room_for(patch: pytest.MonkeyPatch, available: int) -> None:
    def free_bytes(_: Path) -> int:
        return available

    patch.setattr(planning, "free_bytes", free_bytes)


def in_memory(patch: pytest.MonkeyPatch, *directories: Path) -> None:
    def is_volatile(path: Path) -> bool:
        return path in directories

    patch.setattr(planning, "is_volatile", is_volatile)


def trips(platform: Platform, guardrail: str, said: str) -> None:
    """A dry run says that the guardrail would stop a live one, a live run is refused, and neither takes anything."""
    before = files(platform.logs) | files(platform.operations)
    dry = platform.dry()
    assert dry.tripped == [guardrail]
    assert dry.report.status == "done"
    live = platform.run()
    assert live.tripped == [guardrail]
    assert live.report.status == "refused"
    assert said in live.problems
    assert files(platform.logs) | files(platform.operations) == before
    assert not list(platform.backups.rglob("*.backup"))
    run_id = live.run.request.run_id
    assert platform.ask(f"SELECT status FROM cleanup_runs WHERE run_id = '{run_id}'") == [("refused",)]  # noqa: S608
    assert set(platform.ask("SELECT outcome, records_deleted FROM cleanup_audit")) == {("refused", 0)}
    assert not left_open(platform)


def left_open(platform: Platform) -> list[tuple[object, ...]]:
    return platform.ask("SELECT run_id FROM cleanup_runs WHERE status = 'running'")


def test_too_many_files(either: Platform) -> None:
    limit(either, max_files=2)
    expired(either, 3)
    trips(either, "files", "logs: 3 files would go, more than max_files = 2; review the dry run")


def test_too_many_bytes(platform: Platform) -> None:
    limit(platform, max_bytes=2048)
    expired(platform, 3, 1000)
    trips(platform, "bytes", "logs: 2.9 KiB would go, more than max_bytes = 2.0 KiB")


def test_too_large_a_share(platform: Platform) -> None:
    limit(platform, max_share=0.5)
    expired(platform, 60)
    for index in range(59):
        platform.log(f"new_{index}.log", 1)
    trips(platform, "share", "max_share")


def test_half_of_few_files_is_no_share(platform: Platform) -> None:
    limit(platform, max_share=0.5)
    expired(platform, 90)
    assert platform.run().report.status == "done"


def test_one_targets_guardrail_stops_all_targets(platform: Platform) -> None:
    limit(platform, max_files=2)
    expired(platform, 3)
    kept = platform.operation("done", 91)
    assert platform.run().report.status == "refused"
    assert kept.exists()


def test_growth_over_the_median_of_earlier_runs(either: Platform) -> None:
    limit(either, max_growth=10)
    for number in (9, 10, 50):
        expired(either, number)
        assert either.run().report.status == "done"
    expired(either, 101)
    ended = either.run()
    assert ended.tripped == ["growth"]
    assert "logs: 101 files would go, more than max_growth = 10 times the median of the last 3 runs (10)" in (
        ended.problems
    )
    assert len(files(either.logs)) == 101


def test_two_earlier_runs_say_nothing_about_growth(platform: Platform) -> None:
    for _ in range(2):
        expired(platform, 10)
        platform.run()
    expired(platform, 101)
    assert platform.run().report.status == "done"


def test_a_dry_run_between_says_nothing_about_growth(platform: Platform) -> None:
    for _ in range(2):
        expired(platform, 10)
        platform.run()
    platform.dry()
    expired(platform, 101)
    assert platform.run().report.status == "done"


def test_a_clock_ten_years_ahead_of_postgres_deletes_nothing(postgres: Platform) -> None:
    expired(postgres, 3)
    new = postgres.log("new.log", 1)
    postgres.clock.advance(days=3653)
    trips(postgres, "clock", "the host's clock and the database's are 315,6")
    assert new.exists()


def test_a_clock_ten_years_ahead_prunes_neither_backups_nor_manifests_nor_logs(postgres: Platform) -> None:
    expired(postgres, 3)
    postgres.run()
    kept = files(postgres.backups), files(postgres.state / "manifests")
    assert len(list(postgres.backups.glob("*.backup"))) == 3
    postgres.clock.advance(days=3653)
    ended = postgres.run()
    assert files(postgres.backups) >= kept[0]
    assert files(postgres.state / "manifests") >= kept[1]
    assert "expired backups were not pruned: the host's clock and the database's are 315,6" in ended.problems
    assert ended.pruned.copies.files == 0


def test_a_clock_that_went_wrong_once_does_not_stop_the_runs_after_it(postgres: Platform) -> None:
    expired(postgres, 3)
    postgres.clock.advance(days=3653)
    assert postgres.dry().tripped == ["clock"]
    assert postgres.run().report.status == "refused"
    postgres.clock.ahead_ns = 0
    assert postgres.run().report.status == "done"
    assert files(postgres.logs) == set()


def test_a_clock_far_behind_postgres(postgres: Platform) -> None:
    expired(postgres, 3)
    postgres.clock.advance(seconds=-400)
    trips(postgres, "clock", "correct the clock (timedatectl status) before anything is judged by age")


def test_a_clock_within_five_minutes_is_good_enough(postgres: Platform) -> None:
    expired(postgres, 3)
    postgres.clock.advance(seconds=200)
    assert postgres.run().report.status == "done"


def test_a_clock_before_the_last_run(platform: Platform) -> None:
    platform.clock.advance(days=2)
    platform.dry()
    expired(platform, 3)
    platform.clock.advance(days=-1)
    ended = platform.run()
    assert ended.tripped == ["clock"]
    assert "the host's clock is 86," in ended.problems
    assert " seconds before the start of the last run" in ended.problems
    assert len(files(platform.logs)) == 3


def test_a_run_with_a_clock_in_the_future_stops_the_later_ones_until_somebody_says_that_it_was_wrong(
    platform: Platform,
) -> None:
    """SQLite has no clock that would tell which of the two was; the refusal names the statement that does."""
    platform.clock.advance(days=3_650)
    platform.dry()
    platform.clock.advance(days=-3_650)
    expired(platform, 3)
    refused = platform.run()
    assert refused.tripped == ["clock"]
    assert len(files(platform.logs)) == 3
    platform.sql(refused.problems.split("say so: ")[1].split("\n")[0])
    ended = platform.run()
    assert ended.report.status == "done", ended.problems
    assert files(platform.logs) == set()


def test_a_clock_before_the_last_run_prunes_nothing(platform: Platform) -> None:
    expired(platform, 3)
    platform.run()
    before = files(platform.backups)
    platform.clock.advance(days=20)
    platform.dry()
    platform.clock.advance(days=-10)
    ended = platform.run()
    assert ended.tripped == ["clock"]
    assert files(platform.backups) >= before


def test_too_little_free_space_for_the_copies_of_all_targets_together(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired(platform, 2, 1000)
    for index in range(2):
        platform.operation(str(index), 91)
    ended = platform.dry()
    needed = sum(plan.deletable.bytes + 4096 * plan.deletable.files for plan in ended.plans.values())
    room_for(monkeypatch, GIB + needed)
    assert platform.dry().tripped == []
    room_for(monkeypatch, GIB + needed - 1)
    assert set(platform.dry().tripped) == {"free_space"}
    live = platform.run()
    assert live.report.status == "refused"
    assert "and a reserve of 1.0 GiB, but 1.0 GiB are free where backups go" in live.problems
    assert len(files(platform.logs)) == 2


def test_archives_need_room_for_their_bytes_and_headers_alone(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.target("logs")["format"] = "archive"
    expired(platform, 5, 1000)
    platform.operation("old", 91)
    copies, packed = (platform.dry().plans[name].deletable for name in ("operations", "logs"))
    needed = copies.bytes + 4096 * copies.files + packed.bytes + 1024 * packed.files + 4096
    room_for(monkeypatch, GIB + needed)
    assert platform.dry().tripped == []
    room_for(monkeypatch, GIB + needed - 1)
    assert set(platform.dry().tripped) == {"free_space"}


def test_a_backup_in_memory_of_files_on_disk(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    expired(platform, 1)
    in_memory(monkeypatch, platform.backups)
    trips(platform, "volatile_backup", "logs: the backup directory lies in memory (tmpfs) and the files do not")
    limit(platform, allow_volatile_backup=True)
    assert platform.run().report.status == "done"


def test_a_backup_in_memory_of_files_in_memory(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    expired(platform, 1)
    in_memory(monkeypatch, platform.backups, platform.logs)
    assert platform.run().report.status == "done"


def test_an_emergency_bypasses_number_bytes_share_and_growth_and_says_so(platform: Platform) -> None:
    for _ in range(3):
        expired(platform, 1)
        platform.run()
    limit(platform, max_files=2, max_bytes=2, max_share=0.5, max_growth=2)
    expired(platform, 101)
    assert platform.run().tripped == ["bytes", "files", "growth", "share"]
    ended = platform.run(cleanup_type=EMERGENCY)
    assert ended.report.status == "done"
    assert sorted(refusal.guardrail.value for refusal in ended.checked.bypassed) == [
        "bytes",
        "files",
        "growth",
        "share",
    ]
    assert files(platform.logs) == set()
    assert len(files(platform.backups)) >= 104
    log = (platform.backups / ended.report.log).read_text()
    assert log.count("bypassed guardrail: logs: ") == 4


@pytest.mark.parametrize("guardrail", ["free_space", "volatile_backup", "clock"])
def test_an_emergency_bypasses_nothing_else(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, guardrail: str
) -> None:
    if guardrail == "free_space":
        room_for(monkeypatch, GIB)
    elif guardrail == "volatile_backup":
        in_memory(monkeypatch, platform.backups)
    else:
        platform.clock.advance(days=2)
        platform.dry()
        platform.clock.advance(days=-2)
    expired(platform, 3)
    ended = platform.run(cleanup_type=EMERGENCY)
    assert ended.tripped == [guardrail]
    assert ended.checked.bypassed == ()
    assert ended.report.status == "refused"
    assert len(files(platform.logs)) == 3


def test_an_emergency_does_not_shorten_retention(platform: Platform) -> None:
    platform.log("new.log", 29)
    platform.run(cleanup_type=EMERGENCY)
    assert files(platform.logs) == {"new.log"}


def test_an_emergency_may_skip_backups_and_every_receipt_says_so(
    either: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired(either, 3, 1000)
    room_for(monkeypatch, 0)  # the full disk it is for
    ended = either.run(cleanup_type=EMERGENCY, skip_backup=True)
    assert ended.report.status == "done"
    assert files(either.logs) == set()
    assert not list(either.backups.rglob("*.backup"))
    manifest = next(either.state.glob("manifests/*/logs.receipts.jsonl.zst"))
    receipts = list(read_manifest(manifest, Receipt))
    assert [(receipt.backup, receipt.sha256) for receipt in receipts] == [("", "")] * 3
    assert either.ask(
        "SELECT records_deleted, space_freed_bytes, backup_bytes FROM cleanup_audit WHERE data_type = 'system_logs'"
    ) == [(3, 3000, 0)]
    assert either.ask("SELECT backup_directory, backup_files FROM cleanup_run_targets WHERE target = 'logs'") == [
        (None, 0)
    ]
    assert "no backup" in (either.backups / ended.report.log).read_text()


@pytest.mark.parametrize("dry", [True, False])
def test_skipping_backups_is_an_error_with_any_other_type(platform: Platform, dry: bool) -> None:
    expired(platform, 1)
    with pytest.raises(RunRefusedError, match="skip_backup goes with type emergency only, not manual"):
        platform.run(cleanup_type=MANUAL, skip_backup=True, dry=dry)
    assert len(files(platform.logs)) == 1
    assert platform.ask("SELECT count(*) FROM cleanup_runs") == [(0,)]


def test_a_refused_run_settles_first_what_an_interrupted_one_left(platform: Platform) -> None:
    expired(platform, 3)
    with platform.service() as service:
        checked = scan_all(service, service.begin(request(run_id="died")))
        for plan in checked.plans:
            service.back_up(plan)
    limit(platform, max_files=1)
    ended = platform.run()
    assert ended.report.status == "refused"
    assert [sentence[:32] for sentence in ended.run.recovered] == ["run died had been interrupted; i"]
    assert platform.ask("SELECT status FROM cleanup_runs WHERE run_id = 'died'") == [("interrupted",)]
    assert not left_open(platform)


def test_a_run_that_died_after_it_was_refused_is_settled_by_the_next(platform: Platform) -> None:
    expired(platform, 3)
    limit(platform, max_files=1)
    with platform.service() as service:
        scan_all(service, service.begin(request(run_id="died")))
    assert left_open(platform) == [("died",)]
    limit(platform, max_files=10)
    assert platform.run().report.status == "done"
    assert not left_open(platform)
    assert files(platform.logs) == set()
