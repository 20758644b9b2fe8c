"""`policies` and `holds`: what is changed counts, is recorded, and protects."""

import json

import pytest
from cli_helpers import Platform


def test_policies_are_listed_with_their_targets(platform: Platform) -> None:
    ended = platform.call("policies", "list")
    assert "dbt_logs                7 days  yes" in ended.out
    assert "No target is configured for: system_logs, temp_files, dagster_runs" in ended.out
    policies = {one["data_type"]: one for one in platform.call("policies", "list", "--json").document["policies"]}
    assert policies["dagster_runs"]["enabled"] is False
    assert policies["failed_operations"]["targets"] == ["operations"]
    assert {"retention_days", "description", "created_at", "updated_at"} <= policies["dbt_logs"].keys()


def test_a_change_counts_from_the_next_run_on_and_is_recorded(platform: Platform) -> None:
    ended = platform.call("policies", "set", "dbt_logs", "--days", "2", "--keep-last", "1")
    assert ended.code == 0
    assert platform.call("plan", "--json").document["to_delete"]["files"] == 5
    ((by, old, new),) = platform.ask("SELECT changed_by, old, new FROM cleanup_policy_changes")
    assert by
    assert (json.loads(old)["retention_days"], json.loads(new)["retention_days"]) == (7, 2)


def test_everything_can_be_stopped_at_once_and_one_started_again(platform: Platform) -> None:
    assert platform.call("policies", "disable", "--all").code == 0
    assert platform.call("run", "--yes", "--json").document["to_delete"]["files"] == 0
    assert platform.call("policies", "enable", "dbt_logs").code == 0
    assert platform.call("run", "--yes", "--json").document["deleted"]["files"] == 1


def test_several_are_changed_together_or_not_at_all(platform: Platform) -> None:
    assert platform.call("policies", "disable", "dbt_logs", "nonsense").code == 2
    assert platform.ask("SELECT enabled FROM cleanup_policies WHERE data_type = 'dbt_logs'") == [(1,)]


def test_a_policy_that_cannot_be_obeyed_is_shown_and_mended(platform: Platform) -> None:
    platform.call("policies", "list")
    platform.tell("UPDATE cleanup_policies SET retention_days = NULL WHERE data_type = 'dbt_logs'")
    assert "retention_days is NULL" in platform.call("policies", "list").words
    assert platform.call("plan").code == 1
    assert platform.call("policies", "set", "dbt_logs", "--days", "7").code == 0
    assert platform.call("plan").code == 0


@pytest.mark.parametrize(("arguments", "answer"), [(("--yes",), None), ((), "y\n")])
def test_defaults_come_back_when_that_is_confirmed(
    platform: Platform, arguments: tuple[str, ...], answer: str | None
) -> None:
    platform.call("policies", "set", "dbt_logs", "--days", "2")
    platform.call("policies", "disable", "temp_files")
    platform.call("policies", "reset", answer="no\n")
    assert platform.ask("SELECT retention_days FROM cleanup_policies WHERE data_type = 'dbt_logs'") == [(2,)]
    ended = platform.call("policies", "reset", *arguments, answer=answer)
    assert ended.code == 0
    assert "Reset: dbt_logs, temp_files" in ended.out
    assert platform.call("policies", "reset", "--yes", "--json").document["changed"] == []


def test_a_hold_wins_until_it_is_removed(platform: Platform) -> None:
    held = platform.ops / "operation_old.json"
    placed = platform.call("holds", "add", str(held), "--reason", "audit 2026")
    assert placed.out == f"Hold 1: {held} is kept for ever, whatever the policies say.\n"
    assert platform.call("run", "--type", "emergency", "--yes").code == 0
    assert held.exists()
    assert "held (hold 1: audit 2026)" in platform.call("explain", str(held)).out
    assert platform.call("holds", "remove", "1").code == 0
    assert platform.call("run", "--yes", "--json").document["deleted"]["files"] == 1
    assert not held.exists()


def test_holds_are_listed_with_who_why_and_until(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "anna")
    platform.call(
        "holds", "add", "**", "--reason", "incident 7", "--data-type", "dbt_logs", "--until", "2099-12-31T00:00Z"
    )
    platform.call("holds", "add", "/**", "--reason", "audit", "--pipeline", "sales", "--days", "3")
    listed = platform.call("holds", "list").words
    assert "1 ** 2099-12-31 00:00 UTC incident 7, only dbt_logs, by" in listed
    assert "(sudo by anna)" in listed
    assert "only pipeline sales" in listed
    first, second = platform.call("holds", "list", "--json").document["holds"]
    assert (first["until"], first["data_type"], first["active"]) == ("2099-12-31T00:00:00Z", "dbt_logs", True)
    assert (second["pattern"], second["pipeline"]) == ("/**", "sales")


def test_a_relative_path_is_held_where_it_is(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(platform.ops)
    document = platform.call("holds", "add", "operation_old.json", "--reason", "x", "--json").document
    assert document["pattern"] == f"{platform.ops}/operation_old.json"


def test_a_hold_in_no_target_is_placed_with_a_warning(platform: Platform) -> None:
    placed = platform.call("holds", "add", "/srv/planned/a.json", "--reason", "x")
    targets = f"targets: operations ({platform.ops}), dbt_logs ({platform.dbt})"
    warning = f"/srv/planned/a.json lies in no target; {targets}"
    assert (placed.code, f"Warning: the hold is placed, but keeps nothing: {warning}\n" in placed.err) == (0, True)
    assert placed.out == "Hold 1: /srv/planned/a.json would be kept for ever, whatever the policies say.\n"
    assert platform.call("holds", "add", "/srv/x", "--reason", "x", "--json").document["warning"].startswith("/srv/x")
    platform.call("holds", "add", str(platform.ops), "--reason", "x")
    listed = platform.call("holds", "list", "--json").document["holds"]
    assert [hold["warning"] and hold["warning"][:7] for hold in listed] == ["/srv/pl", "/srv/x ", None]
    assert platform.call("holds", "list").words.count("keeps nothing: no target is in its reach") == 2


def test_a_hold_that_leads_into_a_target_warns_of_nothing(platform: Platform) -> None:
    patterns = [f"{platform.ops}/*.json", f"{platform.home}/*/operation_old.json", str(platform.ops)[:-1] + "?/**"]
    for pattern in (*patterns, str(platform.home), "/", "**/never_seen.json", f"{platform.ops}/yet/to/come"):
        placed = platform.call("holds", "add", pattern, "--reason", "x", "--json")
        assert (placed.code, placed.document["warning"], "Warning" in placed.err) == (0, None, False), pattern


def test_no_holds_are_told_as_such(platform: Platform) -> None:
    assert platform.call("holds", "list").out == "There are no holds.\n"
    assert platform.call("holds", "list", "--json").document["holds"] == []


def test_a_reason_cannot_take_over_the_terminal(platform: Platform) -> None:
    reason = "\x1b[2J\u202ereversed\rover"
    assert platform.call("holds", "add", "**", "--reason", reason).code == 0
    ended = platform.call("holds", "list", answer="")
    assert "\\x1b[2J\\u202ereversed\\rover" in ended.out.replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert "\x1b[2J" not in ended.out
    assert platform.call("holds", "list", "--json").document["holds"][0]["reason"] == reason
