"""What nobody does on purpose, and somebody does all the same: moved directories, leaping clocks, rows of garbage."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from service_helpers import Platform, files, request, scan_all
from undo_helpers import apply, counts, undo, undo_request

from cleanup_dagster.collectors import deletion
from cleanup_dagster.database.holds import InvalidHold
from cleanup_dagster.installation import RunRefusedError
from cleanup_dagster.retention.models import RestoreState

LOGS = {f"{number}.log" for number in range(5)}


@pytest.fixture
def full(platform: Platform) -> Platform:
    for name in LOGS:
        platform.log(name, 40)
    return platform


def swap(path: Path) -> None:
    """Put a symlink where a directory was, as somebody does who makes room on a disk."""
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


@pytest.mark.parametrize("before", ["back_up", "delete"])
def test_a_root_that_becomes_a_link_loses_nothing_and_is_cleaned_when_it_is_back(full: Platform, before: str) -> None:
    with full.service() as service:
        checked = scan_all(service, service.begin(request()))
        if before == "back_up":
            swap(full.logs)
        backed_up = [service.back_up(plan) for plan in checked.plans]
        if before == "delete":
            swap(full.logs)
        report = service.audit(checked, [service.delete(one) for one in backed_up])
    assert report.status == "failed"
    assert "leads through the symbolic link 'logs'" in "".join(report.problems)
    assert files(full.home / "moved") == LOGS
    full.logs.unlink()
    (full.home / "moved").rename(full.logs)
    assert full.run().report.status == "done"
    assert files(full.logs) == set()


@pytest.mark.parametrize("store", ["files", "archive"])
def test_copies_that_vanish_in_mid_run_stop_the_deletion(
    full: Platform, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    """Their disk was unmounted, say: what is not deleted yet stays."""
    monkeypatch.setattr(deletion, "BATCH", 2)
    full.target("logs")["format"] = store

    def vanish(count: int) -> None:
        if count and full.backups.exists():
            full.backups.rename(full.home / "elsewhere")

    with full.service() as service:
        checked = scan_all(service, service.begin(request(run_id="vanished")))
        backed_up = [service.back_up(plan) for plan in checked.plans]
        results = [service.delete(backed_up[0]), service.delete(backed_up[1], vanish)]
        report = service.audit(checked, results)
    assert "are not there any more, so no further deletion is started" in "".join(report.problems)
    left = {name for name in files(full.logs) if name.endswith(".log")}
    assert 0 < len(left) < len(LOGS)
    for path in full.backups.iterdir():
        path.unlink()  # the run's log
    full.backups.rmdir()
    (full.home / "elsewhere").rename(full.backups)
    assert counts(undo(full, "vanished"))[RestoreState.RESTORED] == len(LOGS - left)
    assert files(full.logs) == LOGS


def test_a_clock_that_leaps_in_mid_run_takes_no_backup(full: Platform) -> None:
    """Above all not those that the very run has just made."""
    with full.service() as service:
        checked = scan_all(service, service.begin(request(run_id="leapt")))
        backed_up = [service.back_up(plan) for plan in checked.plans]
        full.clock.advance(days=3_650)
        service.audit(checked, [service.delete(one) for one in backed_up])
        assert service.prune(checked.run).copies.files == 0
    full.clock.advance(days=-3_650)
    assert counts(undo(full, "leapt"))[RestoreState.RESTORED] == len(LOGS)


def test_a_clock_that_leaps_in_mid_run_ends_no_hold(full: Platform) -> None:
    with full.service() as service:
        checked = scan_all(service, service.begin(request()))
        service.records.hold(str(full.logs), "audit", "bob", until_ns=full.clock() + 86_400 * 10**9)
        backed_up = [service.back_up(plan) for plan in checked.plans]
        full.clock.advance(days=3_650)
        service.audit(checked, [service.delete(one) for one in backed_up])
    assert files(full.logs) == LOGS


@pytest.mark.parametrize("until_ns", [2**63 * 1_000, 253_402_300_800 * 10**9, 10**30])
def test_a_hold_that_would_outlive_every_calendar_is_refused(platform: Platform, until_ns: int) -> None:
    with platform.service() as service, pytest.raises(InvalidHold, match="after the year 9999; leave its end out"):
        service.records.hold("/srv", "audit", "bob", until_ns=until_ns)


@pytest.mark.parametrize(
    "values",
    [
        "x'00ff', 'a pattern that is no text', NULL, NULL, NULL",
        "'**', x'ff', NULL, NULL, NULL",
        "'**', 'reason', x'ff', x'00', x'01'",
        "'**', 'reason', 'never', '', ''",
        "'/**/*/**/**/*/**/*/**/*', 'too many stars', NULL, NULL, NULL",
        "'', '', '', '', ''",
    ],
)
def test_a_hold_of_garbage_holds_rather_too_much(full: Platform, values: str) -> None:
    full.sql(f"INSERT INTO cleanup_holds (pattern, reason, until, data_type, pipeline) VALUES ({values})")  # noqa: S608
    assert full.run().report.status == "done"
    assert files(full.logs) == LOGS


@pytest.mark.parametrize("values", ["'/[', 'r'", "'relative/*', 'r'", "'~bob', 'r'", "'/a/../b', 'r'"])
def test_a_hold_that_holds_nothing_stops_nothing(full: Platform, values: str) -> None:
    full.sql(f"INSERT INTO cleanup_holds (pattern, reason) VALUES ({values})")  # noqa: S608
    assert full.run().report.status == "done"
    assert files(full.logs) == set()


Tamper = Callable[[dict[str, Any]], object]


def other_manifest(plan: dict[str, Any]) -> object:
    plan["manifests"]["logs"]["path"] = "/etc/passwd"
    return plan


def other_targets(plan: dict[str, Any]) -> object:
    plan["targets"]["logs"]["root"] = "/etc"
    return plan


def other_policies(plan: dict[str, Any]) -> object:
    plan["policies"]["system_logs"]["retention_days"] = 1
    return plan


def no_object(_: dict[str, Any]) -> object:
    return []


@pytest.mark.parametrize("tamper", [other_manifest, other_targets, other_policies, no_object])
def test_a_saved_plan_that_was_tampered_with_takes_nothing(full: Platform, tamper: Tamper) -> None:
    run_id = full.dry().run.request.run_id
    saved = full.state / "plans" / run_id / "plan.json"
    saved.write_bytes(json.dumps(tamper(json.loads(saved.read_bytes()))).encode())
    if tamper is other_manifest:
        assert "is not the recorded one (its sha256 differs); nothing is done by it" in apply(full, run_id).problems
    else:
        with pytest.raises(RunRefusedError, match="make a new dry run and review it"):
            apply(full, run_id)
    assert files(full.logs) == LOGS


@pytest.mark.needs_root
@pytest.mark.parametrize(("mode", "owner"), [(0o1777, 65_534), (0o1777, 0), (0o755, 0), (0o700, 65_534)])
def test_a_quarantine_that_somebody_made_first_is_left_alone(full: Platform, mode: int, owner: int) -> None:
    occupied = full.logs / f".cleanup-q-{os.geteuid()}"
    occupied.mkdir()
    occupied.chmod(mode)
    os.chown(occupied, owner, owner)
    (occupied / "bait").write_text("his")
    assert full.run().report.status == "done"
    assert files(full.logs) == {f"{occupied.name}/bait"}


def link_to_null(path: Path) -> None:
    path.symlink_to(os.devnull)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, link_to_null])
def test_something_else_under_the_locks_name_lets_no_two_runs_in(full: Platform, make: Callable[[Path], None]) -> None:
    full.dry()
    lock = full.state / "live.lock"
    lock.unlink(missing_ok=True)
    make(lock)
    with full.service() as first, full.service() as second:
        try:
            first.begin(request())
        except OSError:
            assert files(full.logs) == LOGS
        else:
            with pytest.raises(RunRefusedError, match="is at work"):
                second.begin(request())


#: Postgres counts further than Python does.
STRANGE_MOMENTS = ["294276-12-31 00:00:00+00", "12026-01-01", "0044-03-15 00:00:00+00 BC", "infinity", "-infinity"]


@pytest.mark.parametrize("moment", STRANGE_MOMENTS)
def test_a_moment_beyond_the_calendar_by_sql_stops_no_run(postgres: Platform, moment: str) -> None:
    """Wherever a person may write one; a hold of the far future holds."""
    for name in LOGS:
        postgres.log(name, 40)
    postgres.run(dry=True)
    postgres.hold(f"{postgres.logs}/0.log", until=moment)
    postgres.hold(f"{postgres.logs}/1.log", placed_at=moment)
    postgres.sql(
        f"UPDATE cleanup_policies SET created_at = '{moment}', updated_at = '{moment}'",  # noqa: S608
        f"UPDATE cleanup_runs SET finished_at = '{moment}'",  # noqa: S608
        f"INSERT INTO cleanup_audit (data_type, cleanup_type, executed_at) VALUES ('x', 'manual', '{moment}')",  # noqa: S608
    )
    ended = postgres.run()
    assert (ended.report.status, ended.problems) == ("done", "")
    past = moment.startswith("-") or moment.endswith("BC")
    assert files(postgres.logs) == ({"1.log"} if past else {"0.log", "1.log"})
    with postgres.service() as service:
        assert len(service.records.holds()) == 2
        assert service.records.history(None)
        assert service.records.policies()


def test_two_platforms_that_share_a_backup_directory_take_none_of_each_others_copies(tmp_path: Path) -> None:
    """Another host with a database of its own, say, and files of the same names."""
    platforms: list[Platform] = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        platforms.append(Platform(tmp_path / name))
        platforms[-1].config["backup"]["directory"] = str(tmp_path / "backups")
        for log in LOGS:
            platforms[-1].log(log, 40, f"{log} of {name}")
    one, other = platforms
    one.run(run_id="of-one")
    other.run(run_id="of-other")
    one.clock.advance(days=8)
    assert one.run().pruned.copies.files == len(LOGS)
    assert counts(undo(other, "of-other")) == {RestoreState.RESTORED: len(LOGS)}
    assert {path.read_text() for path in other.logs.iterdir()} == {f"{log} of other" for log in LOGS}
    with one.service() as service, pytest.raises(RunRefusedError, match="there is no run"):
        service.restore(undo_request("of-other"))
