"""`explain`, `stats`, `history`: why, how much, and when."""

import os

import pytest
from cli_helpers import Platform


def _explained(platform: Platform, path: object) -> dict[str, object]:
    return platform.call("explain", str(path), "--json").document


def test_a_file_that_goes_is_explained(platform: Platform) -> None:
    ended = platform.call("explain", str(platform.ops / "operation_old.json"))
    assert ended.out.splitlines() == [
        f"{platform.ops}/operation_old.json",
        "  Goes      older than 90 days: it is 120.0 days old by its mtime",
        "  Target    operations",
        "  Policy    completed_operations: kept for 90 days",
        "  Age       120.0 days by its mtime",
        "  When      the next live run deletes it, after a backup",
    ]


def test_a_file_that_stays_says_until_when(platform: Platform) -> None:
    found = _explained(platform, platform.ops / "operation_new.json")
    assert (found["would_delete"], found["rule"]) == (False, "not_expired")
    assert (found["data_type"], found["retention_days"]) == ("completed_operations", 90)
    said = platform.call("explain", str(platform.ops / "operation_new.json")).out
    assert "Kept      kept for 90 days; it is 5.0 days old by its mtime" in said
    assert f"When      the first live run after {str(found['due_at'])[:10]}" in said


def test_an_explanation_agrees_with_the_plan_about_every_file(platform: Platform) -> None:
    platform.put(platform.dbt / "target" / "manifest.json", "{}", 50)
    platform.put(platform.dbt / "target" / "a[1]*.log", "x", 50)
    platform.call("policies", "set", "completed_operations", "--keep-last", "1")
    platform.call("policies", "disable", "failed_operations")
    planned = {one["path"] for one in platform.call("plan", "--files", "--json").document["files"]}
    assert planned == {f"{platform.dbt}/dbt.log.2", f"{platform.dbt}/target/a[1]*.log"} | {
        f"{platform.ops}/operation_{name}.json" for name in ("old", "older")
    }
    everything = [path for root in (platform.ops, platform.dbt) for path in root.rglob("*") if path.is_file()]
    assert {str(path) for path in everything if _explained(platform, path)["would_delete"]} == planned


def test_the_newest_of_a_pipeline_are_found_by_looking_at_all_of_them(platform: Platform) -> None:
    (platform.ops / "operation_new.json").unlink()
    platform.call("policies", "set", "completed_operations", "--keep-last", "1")
    assert _explained(platform, platform.ops / "operation_old.json")["rule"] == "keep_last"
    assert _explained(platform, platform.ops / "operation_older.json")["rule"] == "expired"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ops/notes.txt", "the patterns of target operations do not name it (operation_*.json)"),
        ("ops/below/operation_1.json", "target operations does not look below its root"),
        ("dbt/target/manifest.json", "target dbt_logs excludes it (manifest.json, "),
    ],
)
def test_what_no_target_takes_says_why(platform: Platform, name: str, reason: str) -> None:
    path = platform.put(platform.home / name, "x", 400)
    ended = platform.call("explain", str(path))
    assert f"  Kept      {reason}" in ended.out
    assert "  Policy    none: no target takes this file" in ended.out


def test_a_link_is_explained_as_a_link(platform: Platform) -> None:
    link = platform.ops / "operation_link.json"
    link.symlink_to("operation_old.json")
    assert _explained(platform, link)["rule"] == "symlink"


def test_a_hostile_name_is_shown_as_text(platform: Platform) -> None:
    name = "operation_\x1b[31m\n.json"
    platform.put(platform.ops / name, "{}", 400)
    said = platform.call("explain", str(platform.ops / name)).out
    assert said.startswith(f"{platform.ops}/operation_\\u001b[31m\\u000a.json\n")
    assert "\x1b" not in said


def test_a_deleted_file_says_which_run_took_it_and_how_to_get_it_back(platform: Platform) -> None:
    run_id = platform.call("run", "--yes", "--json").document["run_id"]
    path = platform.ops / "operation_old.json"
    ended = platform.call("explain", str(path))
    assert f"  Restore   cleanup-operations restore {run_id[:8]} '{path}'" in ended.out
    assert f"            {platform.backups}/operation_old.json.backup" in ended.out
    assert _explained(platform, platform.ops / "operation_never.json")["backups"] == []


def test_a_file_that_was_put_back_by_hand_says_so(platform: Platform) -> None:
    path = platform.ops / "operation_old.json"
    content, status = path.read_bytes(), path.stat()
    platform.call("run", "--yes")
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    found = _explained(platform, path)
    assert found["rule"] == "put_back"
    assert found["due_at"] == found["backups"][0]["expires_at"]  # pyright: ignore[reportIndexIssue, reportUnknownVariableType]


def test_explaining_leaves_nothing_behind(platform: Platform) -> None:
    platform.call("explain", str(platform.ops / "operation_old.json"))
    assert list((platform.state / "plans").iterdir()) == []
    assert platform.ask("SELECT count(*) FROM cleanup_runs") == [(0,)]


def test_statistics_keep_the_names_their_readers_know(platform: Platform) -> None:
    platform.call("run", "--yes")
    document = platform.call("--stats", "--json").document
    stats = {one["data_type"]: one for one in document["stats"]}
    assert stats["dbt_logs"].keys() == {
        "data_type",
        "retention_days",
        "enabled",
        "last_cleanup",
        "total_cleaned",
        "space_saved",
    }
    assert (stats["dbt_logs"]["total_cleaned"], stats["dbt_logs"]["space_saved"]) == (1, 1000)
    assert {"data_type", "cleanup_type", "records_deleted", "space_freed", "executed_at", "executed_by"} <= (
        document["history"][0].keys()
    )
    assert document["held_by_backups"] == 1141
    said = platform.call("stats").out
    assert "Held by backups: 1.1 KiB. Free where the backups go: " in said
    assert "temp_files               1 day  never" in said


def test_history_groups_the_audit_by_run(platform: Platform) -> None:
    assert platform.call("history").out.startswith("No live run yet.")
    platform.call("plan")
    run_id = platform.call("run", "--yes", "--json").document["run_id"]
    platform.call("restore", run_id)
    lines = platform.call("history").out.splitlines()
    assert f"run {run_id[:8]}  manual, by" in "\n".join(lines)
    assert "    dbt_logs              done              1 deleted     1000 B" in lines
    assert sum("  restore, by " in line for line in lines) == 1
    runs = platform.call("history", "--runs", "--json", "--limit", "9").document["runs"]
    assert [(one["cleanup_type"], one["dry_run"]) for one in runs] == [
        ("restore", False),
        ("manual", False),
        ("manual", True),
    ]
    assert len(platform.call("history", "--runs", "--limit", "1").out.splitlines()) == 3
