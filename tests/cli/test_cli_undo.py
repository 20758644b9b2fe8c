"""`restore` and `backups`: what was deleted comes back as it was, by run, by path and by data type."""

from pathlib import Path

import pytest
from cli_helpers import EXPIRED, Platform


@pytest.fixture
def run_id(platform: Platform) -> str:
    """The id of a live run that deleted four files."""
    return platform.call("run", "--yes", "--json").document["run_id"]


def test_a_whole_run_comes_back_with_its_bytes_and_times(platform: Platform) -> None:
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in platform.home.rglob("*") if p.name in EXPIRED}
    run_id = platform.call("run", "--yes", "--json").document["run_id"]
    ended = platform.call("restore", run_id[:7])
    assert ended.code == 0, ended
    assert "restored      4" in ended.out
    assert "Held for 7 days, so that the next run does not delete them again" in ended.out
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in before} == before
    assert platform.call("run", "--yes", "--json").document["deleted"]["files"] == 0


def test_a_dry_restore_writes_nothing(platform: Platform, run_id: str) -> None:
    before = platform.everything()
    ended = platform.call("restore", run_id, "--dry-run")
    assert ended.code == 0
    assert "would_restore      4" in ended.out
    assert "Dry run: nothing was written. Leave out --dry-run to restore." in ended.out
    assert platform.everything() == before


@pytest.mark.parametrize(
    ("selection", "back"),
    [
        (["{ops}/operation_old.json"], {"operation_old.json"}),
        (["{ops}"], EXPIRED - {"dbt.log.2"}),
        (["{ops}/*old*.json"], {"operation_old.json", "operation_older.json"}),
        (["--data-type", "dbt_logs", "--data-type", "failed_operations"], {"dbt.log.2", "operation_crashed.json"}),
        (["{ops}", "--data-type", "failed_operations"], {"operation_crashed.json"}),
    ],
)
def test_a_selection_comes_back(platform: Platform, run_id: str, selection: list[str], back: set[str]) -> None:
    left = platform.files()
    assert platform.call("restore", run_id, *(part.format(ops=platform.ops) for part in selection)).code == 0
    assert platform.files() - left == back


def test_a_path_may_be_relative(platform: Platform, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(platform.home)
    assert platform.call("restore", run_id, "ops/operation_old.json", "--json").document["states"] == {
        "restored": {"files": 1, "bytes": 46}
    }


def test_what_has_the_name_now_is_not_replaced(platform: Platform, run_id: str) -> None:
    newer = platform.operation("old", 0, "running")
    content = newer.read_bytes()
    ended = platform.call("restore", run_id)
    assert ended.code == 1
    assert "a newer file has the name; move it away to restore the old one" in ended.words
    assert newer.read_bytes() == content
    assert (platform.ops / "operation_crashed.json").exists()


def test_nothing_selected_is_a_failure(platform: Platform, run_id: str) -> None:
    ended = platform.call("restore", run_id, f"{platform.ops}/operation_never.json")
    assert ended.code == 1
    assert "nothing of the run is selected" in ended.words


def test_backups_are_listed_by_run_and_target(platform: Platform, run_id: str) -> None:
    assert [line.split()[:3] for line in platform.call("backups", "list").out.splitlines()[2:]] == [
        [run_id[:8], "dbt_logs", "1"],
        [run_id[:8], "operations", "3"],
    ]
    (one, _) = platform.call("backups", "list", "--json").document["backups"]
    assert (one["run_id"], one["files"], one["directory"]) == (run_id, 1, str(platform.backups))


def test_the_copies_of_a_run_are_shown_with_their_files(platform: Platform, run_id: str) -> None:
    shown = platform.call("backups", "show", run_id[:5])
    assert f"{platform.ops}/operation_old.json  (completed_operations, 46 B)" in shown.out
    assert f"  copy: {platform.backups}/operation_old.json.backup" in shown.out
    short = platform.call("backups", "show", run_id, "--limit", "1").out
    assert short.count("copy:") == 1
    assert "--limit 0 lists all of them" in short
    files = platform.call("backups", "show", run_id, "--json").document["files"]
    assert {Path(one["path"]).name for one in files} == EXPIRED
    assert all(Path(one["copy"]).is_file() for one in files if one["target"] == "operations")


def test_a_run_without_backups_says_so(platform: Platform) -> None:
    document = platform.call("run", "--type", "emergency", "--skip-backup", "--yes", "--json").document
    for command in (("backups", "show"), ("backups", "verify"), ("restore",)):
        ended = platform.call(*command, document["run_id"])
        assert ended.code == 3
        assert f"run {document['run_id']} has no backups: it " in ended.err


def test_damage_is_found_and_named(platform: Platform, run_id: str) -> None:
    sound = platform.call("backups", "verify")
    assert (sound.code, sound.out) == (0, "4 files (1.1 KiB) are what was written.\n")
    (platform.backups / "operation_old.json.backup").write_bytes(b"rot")
    ended = platform.call("backups", "verify", run_id[:4], "--json")
    assert ended.code == 1
    assert [one["path"] for one in ended.document["damaged"]] == ["operation_old.json"]
    said = platform.call("backups", "verify").out
    assert f"damaged: operation_old.json of run {run_id[:8]}" in said
    assert "1 file cannot be restored" in said


def _age(platform: Platform) -> None:
    """Make every run eight days old."""
    platform.tell("UPDATE cleanup_runs SET started_at = datetime('now', '-8 days')")


def test_only_what_is_over_is_pruned(platform: Platform, run_id: str) -> None:
    before = platform.everything()
    kept = platform.call("backups", "prune", "--yes")
    assert (kept.code, kept.out) == (0, "Removed 0 files of expired backups.\n")
    assert platform.everything() == before
    _age(platform)
    dry = platform.call("backups", "prune", "--dry-run")
    assert "These are over. Nothing was removed." in dry.out
    assert run_id[:8] in dry.out
    assert platform.everything() == before
    refused = platform.call("backups", "prune", answer="n\n")
    assert (refused.code, platform.everything()) == (2, before)
    assert platform.call("backups", "prune", answer="y\n").out == "Removed 4 files of expired backups.\n"
    assert not list(platform.backups.glob("*.backup"))
    assert platform.call("backups", "list").out.startswith("There are no backups")
