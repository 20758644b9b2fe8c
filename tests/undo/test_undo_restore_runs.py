"""Which runs can be undone, what of them is selected, and what an undo leaves in holds, runs and audit."""

from pathlib import Path

import pytest
from service_helpers import EMERGENCY, Platform, files, request, tree
from undo_helpers import clean, copies, counts, three_logs, undo

from cleanup_dagster.backups.manifest import read_manifest
from cleanup_dagster.installation import RunLockedError, RunRefusedError
from cleanup_dagster.retention.models import Restored, RestoreState

RESTORED = RestoreState.RESTORED
EXISTS = RestoreState.EXISTS


def test_runs_that_cannot_be_undone_say_why(platform: Platform) -> None:
    platform.log("a.log", 31)
    dry = platform.dry().run.request.run_id
    run_id = clean(platform)
    restored = undo(platform, run_id).request.run_id
    platform.sql("DELETE FROM cleanup_holds")
    platform.log("b.log", 31)
    unsaved = clean(platform, cleanup_type=EMERGENCY, skip_backup=True)
    nothing = clean(platform)
    for wrong, why in {
        "no-such-run": "there is no run 'no-such-run'",
        "": "there is no run ''",
        "../../etc": "there is no run",
        dry: "was a dry run: it deleted nothing",
        restored: "was a restore: it deleted nothing",
        unsaved: "has no backups: it was told to skip them",
        nothing: "deleted nothing",
    }.items():
        for is_dry in (True, False):
            with pytest.raises(RunRefusedError, match=why):
                undo(platform, wrong, dry=is_dry)


def test_a_run_whose_backups_were_pruned_says_so(platform: Platform) -> None:
    platform.log("a.log", 31)
    run_id = clean(platform)
    platform.clock.advance(days=8)
    platform.run()
    with pytest.raises(RunRefusedError, match="they were pruned after their retention"):
        undo(platform, run_id)


def test_a_run_of_another_state_directory_is_left_to_its_host(platform: Platform) -> None:
    platform.log("a.log", 31)
    run_id = clean(platform)
    platform.sql("UPDATE cleanup_runs SET state_id = 'theirs', host = 'elsewhere'")
    with pytest.raises(RunRefusedError, match="belongs to elsewhere, whose state directory has its manifests"):
        undo(platform, run_id)


def test_a_database_of_another_installation_is_refused_before_anything_is_settled_in_it(platform: Platform) -> None:
    platform.log("a.log", 31)
    run_id = clean(platform)
    (platform.state / "installation_id").write_text("another")
    (platform.state / "manifests" / run_id / "ended").unlink()
    for dry in (True, False):
        with pytest.raises(RunRefusedError, match="belongs to installation another"):
            undo(platform, run_id, dry=dry)


@pytest.mark.parametrize(
    ("paths", "data_types", "why"),
    [
        (["logs/a.log"], (), "matches no absolute path"),
        (["/x/../y"], (), "holds '..'"),
        (["/**/a/**/b/**/c/**"], (), "more than 3"),
        (["/x\n"], (), "as an escape"),
        ([], ("system_log",), "there is no data type 'system_log'"),
    ],
)
def test_a_selection_that_can_match_nothing_is_refused(
    platform: Platform, paths: list[str], data_types: tuple[str, ...], why: str
) -> None:
    platform.log("a.log", 31)
    run_id = clean(platform)
    with pytest.raises(RunRefusedError, match=why):
        undo(platform, run_id, *paths, data_types=data_types)
    assert files(platform.logs) == set()
    assert platform.ask("SELECT count(*) FROM cleanup_holds") == [(0,)]
    assert platform.ask("SELECT count(*) FROM cleanup_runs WHERE status = 'running'") == [(0,)]


def test_a_selection_that_matches_nothing_fails_and_holds_nothing(platform: Platform) -> None:
    platform.log("a.log", 31)
    run_id = clean(platform)
    report = undo(platform, run_id, platform.logs / "b.log")
    assert report.problems == ("nothing of the run is selected",)
    assert report.holds == ()
    assert platform.ask("SELECT count(*) FROM cleanup_holds") == [(0,)]


def test_a_restore_while_a_cleanup_is_at_work_is_refused(platform: Platform) -> None:
    platform.log("a.log", 31)
    run_id = clean(platform)
    with platform.service() as cleaning:
        cleaning.begin(request(run_id="at-work"))
        with pytest.raises(RunLockedError, match="run at-work is at work: process"):
            undo(platform, run_id)
        assert counts(undo(platform, run_id, dry=True)) == {RestoreState.WOULD_RESTORE: 1}
        assert files(platform.logs) == set()


def test_what_was_restored_is_held_until_hold_and_backup_are_over(platform: Platform) -> None:
    platform.config["backup"]["restore_hold_days"] = 2
    platform.log("a.log", 31)
    run_id = clean(platform)
    report = undo(platform, run_id)
    assert platform.ask("SELECT pattern, reason, placed_by FROM cleanup_holds") == [
        (str(platform.logs), f"restored from run {run_id}", "bob")
    ]
    assert len(report.holds) == 1
    for days, kept in ((0, {"a.log"}), (1.9, {"a.log"}), (2.1, {"a.log"}), (7.1, set[str]())):
        platform.clock.ahead_ns = int(days * 86_400 * 10**9)
        clean(platform)
        assert files(platform.logs) == kept, days


def _held(platform: Platform) -> set[tuple[str, str | None]]:
    return set(platform.ask("SELECT pattern, data_type FROM cleanup_holds"))


def test_a_data_type_is_held_where_it_came_back_and_nowhere_else(platform: Platform) -> None:
    platform.operation("failed", 31, "failed")
    platform.operation("old", 91)
    three_logs(platform)
    run_id = clean(platform)
    report = undo(platform, run_id, data_types=("failed_operations", "temp_files"))
    assert counts(report) == {RESTORED: 1}
    assert _held(platform) == {(str(platform.operations), "failed_operations")}
    platform.log("since.log", 31)
    platform.operation("since", 91)
    platform.operation("failed", 31, "failed", other="bytes than its backup")
    clean(platform)
    assert files(platform.operations) == {"operation_failed.json"}
    assert files(platform.logs) == set()


def test_of_paths_and_data_types_the_pairs_that_came_back_are_held(platform: Platform) -> None:
    platform.operation("failed", 31, "failed")
    three_logs(platform)
    run_id = clean(platform)
    paths = [platform.logs / "d", platform.logs / "not_there", platform.operations]
    report = undo(platform, run_id, *paths, data_types=("failed_operations", "system_logs", "dbt_logs"))
    assert counts(report) == {RESTORED: 3}
    assert _held(platform) == {
        (str(platform.logs / "d"), "system_logs"),
        (str(platform.operations), "failed_operations"),
    }


def test_a_root_whose_name_reads_as_a_glob_is_held(platform: Platform) -> None:
    root = platform.home / "logs of [prod]"
    platform.target("logs")["root"] = str(root)
    platform.file(root / "a.log", 31, "a")
    run_id = clean(platform)
    undo(platform, run_id)
    platform.file(root / "a.log", 31, "other bytes than its backup")
    clean(platform)
    assert files(root) == {"a.log"}


def test_a_restore_that_breaks_off_before_its_first_file_holds_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.log("a.log", 31)
    run_id = clean(platform)

    def fail(*_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr("cleanup_dagster.restoring.open_file_backups", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        undo(platform, run_id)
    assert _held(platform) == set()


def test_the_hold_alone_keeps_what_was_restored_and_then_changed_its_mtime(platform: Platform) -> None:
    path = platform.log("a.log", 31)
    platform.log("b.log", 31)
    run_id = clean(platform)
    undo(platform, run_id, path)
    platform.log("a.log", 40, "written since, and dated back")
    platform.log("b.log", 31, "other bytes than its backup")
    clean(platform, cleanup_type=EMERGENCY)
    assert files(platform.logs) == {"a.log"}


def test_a_restore_is_in_runs_and_audit_with_what_it_did(platform: Platform) -> None:
    three_logs(platform)
    platform.operation("old", 91)
    run_id = clean(platform)
    platform.log("a.log", 0, "newer")
    report = undo(platform, run_id)
    size = platform.operations.joinpath("operation_old.json").stat().st_size
    ended = ("restore", "failed", "bob", 0, 1)
    assert platform.ask(
        "SELECT data_type, cleanup_type, outcome, executed_by, records_deleted, records_failed, manifest, message "
        "FROM cleanup_audit WHERE cleanup_type = 'restore' ORDER BY data_type"
    ) == [
        ("completed_operations", *ended[:-1], 0, report.manifests, f"restored 1 files ({size} bytes) of run {run_id}"),
        ("system_logs", *ended, report.manifests, f"restored 2 files (18 bytes) of run {run_id}"),
    ]
    assert platform.ask("SELECT run_id, dry_run, status FROM cleanup_runs WHERE cleanup_type = 'restore'") == [
        (report.request.run_id, 0, "failed")
    ]
    restored = list(read_manifest(Path(report.manifests) / "logs.restored.jsonl.zst", Restored))
    assert {(row.path, row.state) for row in restored} == {
        ("a.log", EXISTS),
        ("d/e/b.log", RESTORED),
        ("d/c.txt", RESTORED),
    }


def test_a_dry_restore_verifies_and_writes_nothing_but_its_row(each_format: Platform) -> None:
    three_logs(each_format)
    run_id = clean(each_format)
    (each_format.logs / "d/e").rmdir()
    before = tree(each_format.logs, each_format.backups)
    report = undo(each_format, run_id, dry=True)
    assert counts(report) == {RestoreState.WOULD_RESTORE: 3}
    assert tree(each_format.logs, each_format.backups) == before
    assert each_format.ask("SELECT count(*) FROM cleanup_holds") == [(0,)]
    assert each_format.ask("SELECT count(*) FROM cleanup_audit WHERE cleanup_type = 'restore'") == [(0,)]
    assert each_format.ask("SELECT dry_run, status FROM cleanup_runs WHERE cleanup_type = 'restore'") == [(1, "done")]
    for copy in copies(each_format):
        copy.write_bytes(bytes(copy.stat().st_size))
    assert RestoreState.DAMAGED in counts(undo(each_format, run_id, dry=True))
