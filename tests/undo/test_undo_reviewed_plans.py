"""Plan and apply: a live run that names a dry run takes exactly what was reviewed, as far as it is still so."""

import os
import time
from pathlib import Path

import msgspec
import pytest
from service_helpers import EMERGENCY, MANUAL, Platform, files, left_behind, request, whole_run
from undo_helpers import apply, clean, copies, flip, undo

from cleanup_dagster import planning
from cleanup_dagster.handles import Request
from cleanup_dagster.installation import RunRefusedError
from cleanup_dagster.retention.models import CleanupType, Reason, State


def reviewed(platform: Platform) -> str:
    ended = platform.dry()
    assert ended.report.status == "done", ended.problems
    return ended.run.request.run_id


def logs(platform: Platform, *names: str) -> None:
    for name in names:
        platform.log(name, 31)


def test_exactly_the_reviewed_list_goes_and_what_expired_since_stays(each_format: Platform) -> None:
    logs(each_format, "a.log", "d/b.log")
    each_format.log("young.log", 29.9)
    each_format.operation("old", 91)
    plan = reviewed(each_format)
    each_format.clock.advance(days=0.5)
    logs(each_format, "new.log", "d/new.log")
    each_format.operation("new", 91)
    ended = apply(each_format, plan)
    assert ended.report.status == "done"
    assert files(each_format.logs) == {"young.log", "new.log", "d/new.log"}
    assert files(each_format.operations) == {"operation_new.json"}
    assert each_format.ask("SELECT plan_of, deleted_files FROM cleanup_runs WHERE dry_run = 0") == [(plan, 3)]
    assert len(copies(each_format)) == (2 if each_format.target("logs")["format"] == "archive" else 3)
    assert left_behind(each_format.home) == []


def test_what_changed_since_is_skipped_and_reported(platform: Platform) -> None:
    logs(platform, "written.log", "replaced.log", "gone.log", "moded.log", "same.log", "linked.log")
    plan = reviewed(platform)
    platform.log("written.log", 31, "other bytes")
    platform.log("new", 31, "replaced.log\n").replace(platform.logs / "replaced.log")
    (platform.logs / "gone.log").unlink()
    (platform.logs / "moded.log").chmod(0o600)
    os.link(platform.logs / "linked.log", platform.home / "link")
    ended = apply(platform, plan)
    assert ended.report.status == "done"
    assert files(platform.logs) == {"written.log", "replaced.log", "moded.log", "linked.log"}
    counts = ended.report.counts["system_logs"]
    assert {state: tally.files for state, tally in counts.states.items()} == {
        State.DELETED: 1,
        State.DRIFTED: 4,
        State.GONE: 1,
    }
    log = Path(ended.report.log).read_text()
    for name in ("written.log", "replaced.log", "moded.log", "linked.log"):
        assert f"drifted  {platform.logs}/{name}" in log
    assert platform.ask(
        "SELECT records_deleted, records_skipped FROM cleanup_audit WHERE data_type = 'system_logs'"
    ) == [(1, 5)]


def test_what_is_held_since_stays(platform: Platform) -> None:
    logs(platform, "a.log", "b.log")
    plan = reviewed(platform)
    platform.hold(f"{platform.logs}/a.log")
    ended = apply(platform, plan)
    assert files(platform.logs) == {"a.log"}
    assert ended.plans["logs"].kept[Reason.HELD].files == 1


def test_what_was_put_back_since_stays(platform: Platform) -> None:
    logs(platform, "a.log", "b.log")
    run_id = clean(platform)
    undo(platform, run_id)
    platform.sql("DELETE FROM cleanup_holds")
    before = files(platform.logs)
    plan = reviewed(platform)
    apply(platform, plan)
    assert files(platform.logs) == before == {"a.log", "b.log"}


def test_the_second_application_finds_nothing_left(platform: Platform) -> None:
    logs(platform, "a.log", "b.log")
    plan = reviewed(platform)
    apply(platform, plan)
    logs(platform, "a.log")  # another file of the name
    ended = apply(platform, plan)
    assert ended.report.status == "done"
    assert files(platform.logs) == {"a.log"}
    assert {state: tally.files for state, tally in ended.report.counts["system_logs"].states.items()} == {
        State.DRIFTED: 1,
        State.GONE: 1,
    }


def test_a_plan_that_keeps_the_last_is_applied_as_it_was(platform: Platform) -> None:
    platform.sql("UPDATE cleanup_policies SET keep_last = 1 WHERE data_type = 'completed_operations'")
    platform.operation("older", 95)
    platform.operation("newer", 91)
    plan = reviewed(platform)
    (platform.operations / "operation_newer.json").unlink()
    apply(platform, plan)
    assert files(platform.operations) == set()  # as reviewed: the older one was to go


# Plans that are refused


def test_a_plan_is_applied_within_its_hours_and_refused_after_them(platform: Platform) -> None:
    logs(platform, "a.log")
    platform.config["plan_retention_hours"] = 2
    plan = reviewed(platform)
    platform.clock.advance(seconds=2 * 3600 + 60)
    with pytest.raises(RunRefusedError, match=r"is kept for 2 hours; make a new dry run and review it"):
        apply(platform, plan)
    assert files(platform.logs) == {"a.log"}
    platform.clock.advance(seconds=-120)
    apply(platform, plan)
    assert files(platform.logs) == set()


CHANGES: list[tuple[list[str] | None, dict[str, object], str]] = [
    (["retention_days = 12"], {}, "system_logs was kept 30 days and is kept 12 days"),
    (["keep_last = 2"], {}, "system_logs was kept 30 days and is kept 30 days and the last 2"),
    (["enabled = false"], {}, "system_logs was kept 30 days and is disabled"),
    (["retention_days = NULL"], {}, "system_logs was kept 30 days and is invalid \\("),
    (None, {}, "system_logs was kept 30 days and is without a policy"),
    ([], {"patterns": ["*.log"]}, r"logs.patterns was \('.*',\) and is \('\*\.log',\)"),
    ([], {"excludes": ["a.log"]}, r"logs.excludes was \(\) and is \('a\.log',\)"),
    ([], {"min_age": "2d"}, "logs.min_age was 0.0 and is 172800"),
    ([], {"age_from": "newest"}, "logs.age_from was mtime and is newest"),
    ([], {"recursive": False}, "logs.recursive was True and is False"),
    ([], {"max_depth": 3}, "logs.max_depth was .* and is 3"),
    ([], {"data_type": "temp_files"}, "logs.data_type was system_logs and is temp_files"),
    ([], {"root": "{home}/other"}, r"logs.root was .*/logs and is .*/other"),
    ([], {"name": "renamed"}, "target logs is not configured any more; target renamed is new"),
]


@pytest.mark.parametrize(("policy", "target", "difference"), CHANGES)
def test_a_plan_of_other_rules_is_refused_with_the_difference(
    platform: Platform, policy: list[str] | None, target: dict[str, object], difference: str
) -> None:
    logs(platform, "a.log")
    plan = reviewed(platform)
    if policy is None:
        platform.sql("DELETE FROM cleanup_policies WHERE data_type = 'system_logs'")
    for change in policy or ():
        platform.sql(f"UPDATE cleanup_policies SET {change} WHERE data_type = 'system_logs'")  # noqa: S608
    (platform.home / "other").mkdir()
    changed = {k: v.format(home=platform.home) if isinstance(v, str) else v for k, v in target.items()}
    platform.target("logs").update(changed)
    with pytest.raises(RunRefusedError, match=f"was made under other rules: {difference}.*; make a new dry run"):
        apply(platform, plan)
    assert files(platform.logs) == {"a.log"}
    assert platform.ask("SELECT count(*) FROM cleanup_runs WHERE dry_run = 0") == [(0,)]


def test_other_limits_and_descriptions_are_no_other_rules(platform: Platform) -> None:
    logs(platform, "a.log")
    plan = reviewed(platform)
    platform.config["limits"]["max_files"] = 7
    platform.target("logs")["format"] = "archive"
    platform.sql("UPDATE cleanup_policies SET description = 'other words'")
    apply(platform, plan)
    assert files(platform.logs) == set()


def test_only_a_dry_run_that_ended_well_has_a_plan(platform: Platform) -> None:
    logs(platform, "a.log")
    live = clean(platform)
    logs(platform, "b.log")
    platform.sql("UPDATE cleanup_policies SET retention_days = NULL WHERE data_type = 'dbt_logs'")
    ended = platform.dry()
    assert ended.report.status == "failed"
    failed = ended.run.request.run_id
    platform.sql("UPDATE cleanup_policies SET retention_days = 30 WHERE data_type = 'dbt_logs'")
    with platform.service() as service:
        service.begin(request(dry=True, run_id="never-ended"))
    for wrong, why in {
        "no-such": "there is no run 'no-such' whose plan could be applied",
        "../../etc": "there is no run",
        live: "was live; only the plan of a dry run can be applied",
        failed: "ended failed, so its plan is not complete",
        "never-ended": "ended running, so its plan is not complete",
    }.items():
        with pytest.raises(RunRefusedError, match=why):
            apply(platform, wrong)
    assert files(platform.logs) == {"b.log"}


def test_a_dry_run_applies_no_plan(platform: Platform) -> None:
    logs(platform, "a.log")
    plan = reviewed(platform)
    with pytest.raises(RunRefusedError, match="is applied by a live run; leave out plan, or set dry_run: false"):
        apply(platform, plan, dry=True)


def test_a_plan_manifest_that_was_changed_deletes_nothing_in_its_target(platform: Platform) -> None:
    logs(platform, "a.log")
    platform.operation("old", 91)
    plan = reviewed(platform)
    flip(platform.state / "plans" / plan / "logs.jsonl.zst", -1)
    ended = apply(platform, plan)
    assert ended.report.status == "failed"
    assert "is not the recorded one" in ended.problems
    assert files(platform.logs) == {"a.log"}
    assert files(platform.operations) == set()


@pytest.mark.parametrize("content", ["", "{}", "nonsense", '{"run_id": 1}'])
def test_a_damaged_plan_is_refused(platform: Platform, content: str) -> None:
    logs(platform, "a.log")
    plan = reviewed(platform)
    (platform.state / "plans" / plan / "plan.json").write_text(content)
    with pytest.raises(RunRefusedError, match="is damaged"):
        apply(platform, plan)
    assert files(platform.logs) == {"a.log"}


def test_a_reviewed_item_outside_the_root_is_not_taken(platform: Platform) -> None:
    """Even one who can write into the state directory gains no path by it."""
    logs(platform, "d/a.log")
    secret = platform.file(platform.home / "outside" / "a.log", 31, "secret")
    plan = reviewed(platform)
    (platform.logs / "d/a.log").unlink()
    (platform.logs / "d").rmdir()
    (platform.logs / "d").symlink_to(secret.parent)
    apply(platform, plan)
    assert secret.read_text() == "secret"


# What a reviewed plan overrules, and what not


@pytest.mark.parametrize("limit", [{"max_files": 1}, {"max_bytes": 1}, {"max_share": 0.01}, {"max_growth": 1.5}])
def test_number_bytes_share_and_growth_are_overruled(platform: Platform, limit: dict[str, float]) -> None:
    if "max_growth" in limit:
        for turn in range(3):
            platform.log(f"{turn}.log", 31)
            clean(platform)
    logs(platform, *(f"{number}_.log" for number in range(120)))
    platform.config["limits"].update(limit)
    assert platform.run().report.status == "refused"
    plan = reviewed(platform)
    ended = apply(platform, plan)
    assert ended.report.status == "done"
    assert ended.checked.bypassed
    assert files(platform.logs) == set()


@pytest.mark.parametrize("cleanup_type", [MANUAL, EMERGENCY])
def test_clock_room_and_memory_are_not(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, cleanup_type: CleanupType
) -> None:
    logs(platform, "a.log")
    plan = reviewed(platform)
    with monkeypatch.context() as patch:
        patch.setattr(planning, "free_bytes", {platform.backups: 10}.get)
        assert apply(platform, plan, cleanup_type=cleanup_type).tripped == ["free_space"]
    with monkeypatch.context() as patch:
        patch.setattr(planning, "is_volatile", platform.backups.__eq__)
        assert apply(platform, plan, cleanup_type=cleanup_type).tripped == ["volatile_backup"]
    assert files(platform.logs) == {"a.log"}
    platform.clock.advance(seconds=-1200)
    assert apply(platform, plan, cleanup_type=cleanup_type).tripped == ["clock"]
    assert files(platform.logs) == {"a.log"}
    platform.clock.advance(seconds=1200)
    assert apply(platform, plan, cleanup_type=cleanup_type).report.status == "done"
    assert files(platform.logs) == set()


def test_a_reviewed_plan_does_not_make_skipping_backups_possible(platform: Platform) -> None:
    logs(platform, "a.log")
    plan = reviewed(platform)
    with platform.service() as service, pytest.raises(RunRefusedError, match="skip_backup goes with type emergency"):
        whole_run(service, Request(f"r{time.time_ns()}", MANUAL, False, "bob", skip_backup=True, plan=plan))
    assert files(platform.logs) == {"a.log"}


def test_a_saved_plan_is_ours_alone_and_says_what_it_was_made_under(platform: Platform) -> None:
    plan = reviewed(platform)
    saved = platform.state / "plans" / plan / "plan.json"
    assert saved.stat().st_mode & 0o777 == 0o600
    content = msgspec.json.decode(saved.read_bytes())
    assert content["policies"]["system_logs"]["retention_days"] == 30
    assert content["targets"]["logs"]["root"] == str(platform.logs)
