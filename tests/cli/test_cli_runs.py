"""`plan`, `apply` and `run`, and the original options that mean the same: what they show, ask, delete and refuse."""

import json
import os
from pathlib import Path

import pytest
from cli_helpers import EXPIRED, Ended, Platform

NOT_EXPIRED = {"operation_new.json", "operation_running.json", "dbt.log.0", "dbt.log.1"}
NO_TERMINAL = (
    "Error: A live run of type {} asks for confirmation, and there is no terminal to ask on; "
    "use --yes or --type automatic in scripts. Nothing was changed.\n"
)


def _plan_id(platform: Platform) -> str:
    return platform.call("plan", "--json").document["run_id"]


@pytest.mark.parametrize("arguments", [(), ("--dry-run",), ("plan",)], ids=["nothing", "--dry-run", "plan"])
def test_a_plan_shows_what_would_go_and_touches_nothing(platform: Platform, arguments: tuple[str, ...]) -> None:
    before = platform.everything()
    ended = platform.call(*arguments)
    assert ended.code == 0
    assert platform.everything() == before
    lines = [line.split() for line in ended.out.splitlines()]
    assert ["completed_operations", "2", "94", "B", "130.0", "days"] in lines
    assert ["failed_operations", "1", "47", "B", "20.0", "days"] in lines
    assert ["dbt_logs", "1", "1000", "B", "9.0", "days"] in lines
    assert ended.err == f"Database: the embedded SQLite file {platform.state}/cleanup.db\n"
    ((run_id,),) = platform.ask("SELECT run_id FROM cleanup_runs")
    assert f"cleanup-operations apply {run_id[:8]}" in ended.out


def test_a_plan_lists_every_file_on_request(platform: Platform) -> None:
    ended = platform.call("plan", "--files")
    assert f"{platform.ops}/operation_crashed.json  (failed_operations: older than 14 days: it is 20.0" in ended.out
    document = platform.call("plan", "--files", "--json").document
    assert {Path(one["path"]).name for one in document["files"]} == EXPIRED
    assert document["to_delete"] == {"files": 4, "bytes": 1141}


@pytest.mark.parametrize(
    "arguments", [("--run", "--yes"), ("run", "--yes"), ("--run", "--type", "automatic")], ids=" ".join
)
def test_a_live_run_deletes_what_has_expired(platform: Platform, arguments: tuple[str, ...]) -> None:
    ended = platform.call(*arguments)
    assert ended.code == 0, ended
    assert platform.files() == NOT_EXPIRED
    assert "Deleted 4 files (1.1 KiB), each one backed up first." in ended.out
    run_id, asked = platform.ask("SELECT run_id, cleanup_type FROM cleanup_runs")[0]
    assert asked == ("automatic" if "automatic" in arguments else "manual")
    assert f"Undo: cleanup-operations restore {run_id[:8]}\n" in ended.out
    assert (platform.backups / "operation_old.json.backup").exists()


def test_the_run_is_dagsters_own_job_on_the_instance_of_dagster_home(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg

    home = platform.home / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    document = platform.call("run", "--yes", "--json").document
    with dg.DagsterInstance.get() as instance:
        run = instance.get_run_by_id(document["run_id"])
        assert run is not None
        assert (run.job_name, run.status.value, run.run_config["type"]) == ("cleanup", "SUCCESS", "manual")
        assert run.tags["cleanup/executed_by"] == platform.ask("SELECT executed_by FROM cleanup_runs")[0][0]


@pytest.mark.parametrize("kind", ["manual", "emergency"])
def test_without_a_terminal_a_run_that_asks_is_refused_before_anything_is_opened(platform: Platform, kind: str) -> None:
    before = platform.everything()
    ended = platform.call("run", "--type", kind)
    assert (ended.code, ended.err) == (2, NO_TERMINAL.format(kind))
    assert platform.everything() == before
    assert not platform.state.exists()


def test_a_person_sees_the_plan_and_gets_exactly_what_was_confirmed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cleanup_dagster.cli import cleaning

    asked: list[str] = []

    def answer(_: object, question: str) -> None:
        asked.append(question)
        platform.operation("expired_meanwhile", 200)

    monkeypatch.setattr(cleaning, "confirm", answer)
    ended = platform.call("run", answer="")
    assert ended.code == 0, ended
    assert asked == ["Delete 4 files? Each is backed up first"]
    assert "completed_operations      2" in ended.err
    assert platform.files() == NOT_EXPIRED | {"operation_expired_meanwhile.json"}
    assert platform.ask("SELECT count(*) FROM cleanup_runs WHERE plan_of IS NOT NULL") == [(1,)]


@pytest.mark.parametrize("typed", ["n\n", "\n", "", "yess\n"])
def test_anything_but_yes_changes_nothing(platform: Platform, typed: str) -> None:
    before = platform.everything()
    ended = platform.call("run", answer=typed)
    assert ended.code == 2
    assert "Delete 4 files? Each is backed up first [y/N]: " in ended.err
    assert ended.err.endswith("Error: Not confirmed; nothing was changed.\n")
    assert platform.everything() == before


def test_yes_at_the_terminal_deletes(platform: Platform) -> None:
    assert platform.call("run", answer="y\n").code == 0
    assert platform.files() == NOT_EXPIRED


def test_json_at_a_terminal_asks_beside_the_document(platform: Platform) -> None:
    ended = platform.call("run", "--json", answer="yes\n")
    assert ended.document["deleted"] == {"files": 4, "bytes": 1141}
    assert "[y/N]" in ended.err


def test_emergency_wants_the_word(platform: Platform) -> None:
    before = platform.everything()
    refused = platform.call("run", "--type", "emergency", answer="y\n")
    assert (refused.code, platform.everything()) == (2, before)
    assert "Type the word emergency to delete 4 files: " in refused.err
    assert platform.call("run", "--type", "emergency", answer="emergency\n").code == 0
    assert platform.files() == NOT_EXPIRED


def test_emergency_alone_may_skip_the_backup(platform: Platform) -> None:
    before = platform.everything()
    refused = platform.call("run", "--skip-backup", "--yes")
    assert refused.err == "Error: --skip-backup goes with --type emergency only, not with manual\n"
    assert (refused.code, platform.everything()) == (2, before)
    ended = platform.call("run", "--type", "emergency", "--skip-backup", answer="emergency\n")
    assert ended.code == 0, ended
    assert "delete 4 files without any backup: " in ended.err
    assert "Deleted 4 files (1.1 KiB), without any backup." in ended.out
    assert not list(platform.backups.glob("*.backup"))


def test_automatic_never_asks_at_a_terminal(platform: Platform) -> None:
    ended = platform.call("run", "--type", "automatic", answer="")
    assert (ended.code, platform.files()) == (0, NOT_EXPIRED)


def _too_many(platform: Platform, **limits: float) -> None:
    reserve = {"free_space_reserve": 0, "allow_volatile_backup": True}
    platform.configure(limits={**reserve, "max_files": 2, **limits})


def test_a_guardrail_refuses_with_its_own_code_and_nothing_goes(platform: Platform) -> None:
    _too_many(platform)
    before = platform.files()
    ended = platform.call("run", "--yes", "--json")
    assert ended.code == ended.document["exit_code"] == 3
    assert [one["guardrail"] for one in ended.document["guardrails"]] == ["files"]
    assert ended.document["status"] == "refused"
    assert platform.files() == before


def test_at_a_terminal_a_guardrail_is_shown_instead_of_a_question(platform: Platform) -> None:
    _too_many(platform)
    before = platform.everything()
    ended = platform.call("run", answer="y\n")
    assert ended.code == 3
    assert "Guardrails that would stop a live run:" in ended.err
    assert "[y/N]" not in ended.err
    assert "cleanup-operations apply " in ended.out
    assert platform.everything() == before


def test_a_plan_that_was_reviewed_passes_the_guardrail(platform: Platform) -> None:
    _too_many(platform)
    plan = _plan_id(platform)
    assert platform.call("plan").code == 0
    ended = platform.call("apply", plan[:6], answer="y\n")
    assert ended.code == 0, ended
    assert "Delete 4 files? Each is backed up first [y/N]: " in ended.err
    assert "Bypassed guardrail: operations: 3 files would go, more than max_files = 2;" in ended.words
    assert platform.files() == NOT_EXPIRED


def test_emergency_says_what_it_bypasses(platform: Platform) -> None:
    _too_many(platform)
    ended = platform.call("run", "--type", "emergency", answer="emergency\n")
    assert ended.code == 0
    assert "Bypassed guardrail: operations: 3 files would go" in ended.err


def test_applying_without_a_terminal_needs_yes(platform: Platform) -> None:
    plan = _plan_id(platform)
    before = platform.everything()
    refused = platform.call("apply", plan)
    assert (refused.code, platform.everything()) == (2, before)
    assert refused.err == (
        "Error: Applying a plan asks for confirmation, and there is no terminal to ask on; use --yes in scripts. "
        "Nothing was changed.\n"
    )
    assert platform.call("apply", plan, "--yes").code == 0
    assert platform.files() == NOT_EXPIRED


def test_a_plan_made_under_other_policies_is_refused(platform: Platform) -> None:
    plan = _plan_id(platform)
    platform.call("policies", "set", "dbt_logs", "--days", "8")
    before = platform.everything()
    ended = platform.call("apply", plan, "--yes")
    assert (ended.code, platform.everything()) == (3, before)
    assert "dbt_logs was kept 7 days and is kept 8 days; make a new dry run and review it\n" in ended.err


def test_a_missing_root_fails_its_target_and_the_other_goes_on(platform: Platform) -> None:
    platform.dbt.rename(platform.home / "away")
    ended = platform.call("run", "--yes", "--json")
    assert ended.code == 1
    assert ended.document["deleted"]["files"] == 3
    assert "dbt does not exist; create it" in ended.document["problems"][0]


def test_at_a_terminal_an_incomplete_plan_is_told_and_the_run_makes_its_own(platform: Platform) -> None:
    platform.dbt.rename(platform.home / "away")
    ended = platform.call("run", answer="y\n")
    assert ended.code == 1
    assert "dbt does not exist; create it" in ended.words
    assert platform.files() == NOT_EXPIRED - {"dbt.log.0", "dbt.log.1"}


def test_nothing_to_delete_is_not_asked_about(platform: Platform) -> None:
    platform.call("run", "--yes")
    ended = platform.call("run", answer="")
    assert ended.code == 0
    assert "There is nothing to delete" in ended.err
    assert "Nothing was deleted." in ended.out


def test_a_run_at_work_refuses_a_second_one(platform: Platform) -> None:
    from cleanup_dagster.state import open_state

    platform.call("policies", "list")
    before = platform.everything()
    with open_state(platform.state) as state, state.lock() as free:
        assert free
        ended = platform.call("run", "--yes")
    assert (ended.code, platform.everything()) == (3, before)
    assert (
        "another live run is just beginning; try again when it has ended. Nothing was judged or deleted." in ended.err
    )


def test_the_documents_say_what_happened(platform: Platform) -> None:
    document = platform.call("run", "--yes", "--json").document
    assert document["command"] == "run"
    assert document["deleted"] == document["backed_up"] == document["to_delete"] == {"files": 4, "bytes": 1141}
    assert {one["data_type"]: one["files"] for one in document["outcomes"]} == {
        "completed_operations": 2,
        "dbt_logs": 1,
        "failed_operations": 1,
    }
    assert {one["reason"]: one["files"] for one in document["kept"]} == {"not_expired": 3, "still_active": 1}
    assert Path(document["log"]).read_text().startswith("20")
    assert (document["problems"], document["guardrails"], document["exit_code"]) == ([], [], 0)


def test_who_asked_stands_in_the_audit(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "anna")
    monkeypatch.setenv("LOGNAME", "somebody else")
    platform.call("run", "--yes")
    (by,) = {row[0] for row in platform.ask("SELECT executed_by FROM cleanup_audit")}
    assert by.endswith(" (sudo by anna)")
    assert "somebody" not in by or os.geteuid() != 0


def test_dagster_stays_silent(platform: Platform) -> None:
    ended: Ended = platform.call("run", "--yes", "--json")
    assert json.loads(ended.out)
    assert ended.err == f"Database: the embedded SQLite file {platform.state}/cleanup.db\n"
