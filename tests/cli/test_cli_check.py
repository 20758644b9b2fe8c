"""`check`: each part by itself, with what to do about it, and an exit code that a monitor can read."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import Platform

from cleanup_dagster import health
from cleanup_dagster.health import Health, round_trip
from cleanup_dagster.service import CleanupService


def _checked(platform: Platform) -> tuple[int, dict[str, Any]]:
    ended = platform.call("check", "--json")
    assert ended.code == ended.document["exit_code"]
    return ended.code, {one["part"]: one for one in ended.document["checks"]}


def test_a_sound_installation_passes_and_is_left_as_it_was(platform: Platform) -> None:
    before = platform.everything()
    code, found = _checked(platform)
    assert code == 0
    assert {part: one["health"] for part, one in found.items()} == {
        "config": "ok",
        "state": "ok",
        "database": "ok",
        "tables": "ok",
        "installation": "ok",
        "policies": "ok",
        "clock": "ok",
        "runs": "ok",
        "target operations": "ok",
        "target dbt_logs": "ok",
        "backups": "ok",
        "free space": "ok",
        "round trip": "ok",
        "schedule": "not checked",
    }
    assert platform.everything() == before
    assert platform.ask("SELECT count(*) FROM cleanup_runs") == [(0,)]
    said = platform.call("check").out
    assert "not checked schedule: DAGSTER_HOME is not set, so there is no instance to ask\n" in said
    assert said.endswith("\nAll is well.\n")


def test_a_failure_comes_with_what_to_do(platform: Platform) -> None:
    platform.dbt.rename(platform.home / "away")
    ended = platform.call("check")
    assert ended.code == 1
    assert (
        f"failed      target dbt_logs: {platform.dbt} does not exist\n"
        "            create it, or correct its root in cleanup.yaml\n"
    ) in ended.out
    assert ended.out.endswith("\n1 of 14 checks failed.\n")


def test_nothing_can_run_without_the_database(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HOST", "127.0.0.1"), ("PORT", "1"), ("PASSWORD", "hush")):
        monkeypatch.setenv(f"CLEANUP_DB_{name}", value)
    ended = platform.call("check")
    assert ended.code == 4
    assert "failed      database: nothing answers for the Postgres database 'dagster' at 127.0.0.1:1;" in ended.out
    assert "ok          round trip" in ended.out
    assert "hush" not in ended.out + ended.err


def test_a_configuration_that_is_refused_is_said_line_by_line(platform: Platform) -> None:
    platform.configure(nonsense=1, clock_skew_seconds=0)
    code, _ = _checked(platform)
    assert code == 4
    said = platform.call("check").out
    assert said.count("failed      config: cleanup.yaml: ") == 2


@pytest.fixture
def open_home() -> Generator[Path]:
    """A directory that everybody can enter, unlike pytest's own."""
    home = Path(tempfile.mkdtemp()).resolve()
    home.chmod(0o755)
    yield home
    shutil.rmtree(home)


def test_a_configuration_that_everybody_can_write_fails(platform: Platform, open_home: Path) -> None:
    file = open_home / "cleanup.yaml"
    shutil.copyfile(platform.config, file)
    file.chmod(0o666)
    ended = platform.call("check", "--config", str(file), "--json")
    assert ended.code == 1
    config = ended.document["checks"][0]
    assert (config["part"], config["health"]) == ("config", "failed")
    assert config["said"] == (
        f"{file} names what is deleted, and others can change it: {file} can be written by everybody (mode 0666)"
    )
    assert config["advice"] == f"chmod o-w {file}; until then every live run is refused"
    assert platform.call("run", "--yes", "--config", str(file)).code == 3


@pytest.mark.needs_root
def test_a_configuration_of_another_user_is_warned_of(platform: Platform, open_home: Path) -> None:
    file = open_home / "cleanup.yaml"
    shutil.copyfile(platform.config, file)
    os.chown(file, 1000, 1000)
    ended = platform.call("check", "--config", str(file), "--json")
    assert ended.code == 0
    config = ended.document["checks"][0]
    assert (config["part"], config["health"]) == ("config", "warning")
    assert config["said"] == f"{file} names what is deleted, and others can change it: {file} belongs to uid 1000"
    assert config["advice"] == f"chown 0 {file}; or leave it, if they may decide what is deleted here"
    assert platform.call("run", "--yes", "--config", str(file)).code == 0


def test_policies_are_looked_at(platform: Platform) -> None:
    platform.call("policies", "disable", "--all")
    code, found = _checked(platform)
    assert (code, found["policies"]["health"]) == (0, "warning")
    assert found["policies"]["said"] == "all 7 are disabled, so nothing is deleted"
    assert "Nothing stands in the way; warnings: 1." in platform.call("check").out
    platform.tell("UPDATE cleanup_policies SET retention_days = 0 WHERE data_type = 'dbt_logs'")
    code, found = _checked(platform)
    assert (code, found["policies"]["health"]) == (1, "failed")
    platform.tell("DELETE FROM cleanup_policies WHERE data_type = 'dbt_logs'")
    code, found = _checked(platform)
    assert found["policies"]["said"] == "no policy governs dbt_logs, so all of it is kept"


def test_a_backup_directory_open_to_others_fails(platform: Platform) -> None:
    platform.backups.mkdir()
    platform.backups.chmod(0o755)
    code, found = _checked(platform)
    assert (code, found["backups"]["health"]) == (1, "failed")
    assert "has mode 0755, open to others; chmod 700 it or name another" in found["backups"]["said"]


def test_too_little_space_fails(platform: Platform) -> None:
    platform.configure(limits={"free_space_reserve": "100000 TiB", "allow_volatile_backup": True})
    code, found = _checked(platform)
    assert (code, found["free space"]["health"]) == (1, "failed")
    assert "the reserve is 100000.0 TiB" in found["free space"]["said"]


def test_a_clock_before_the_last_run_fails(platform: Platform) -> None:
    platform.call("plan")
    platform.tell("UPDATE cleanup_runs SET started_at = '2099-01-01 00:00:00'")
    code, found = _checked(platform)
    assert (code, found["clock"]["health"]) == (1, "failed")
    assert "seconds before the start of the last run" in found["clock"]["said"]


def test_a_run_that_died_is_mentioned(platform: Platform) -> None:
    platform.call("run", "--yes")
    platform.tell("UPDATE cleanup_runs SET status = 'running'")
    code, found = _checked(platform)
    assert (code, found["runs"]["health"]) == (0, "warning")
    assert found["runs"]["advice"] == "the next live run there settles it"


def test_a_lost_table_is_named(platform: Platform) -> None:
    platform.call("policies", "list")
    platform.tell("DROP TABLE cleanup_holds")
    code, found = _checked(platform)
    assert (code, found["tables"]["health"]) == (4, "failed")
    assert "has lost its table cleanup_holds" in found["tables"]["said"]


def test_a_state_directory_of_somebody_elses_is_refused(platform: Platform) -> None:
    platform.state.mkdir(mode=0o777)
    platform.state.chmod(0o777)
    code, found = _checked(platform)
    assert (code, found["state"]["health"]) == (4, "failed")


@pytest.mark.needs_root
def test_a_state_directory_on_a_read_only_mount_is_no_good_one(platform: Platform) -> None:
    assert _checked(platform)[0] == 0
    subprocess.run(["mount", "--bind", platform.state, platform.state], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", platform.state], check=True)
        code, found = _checked(platform)
    finally:
        subprocess.run(["umount", platform.state], check=True)
    assert (code, found["state"]["health"], found["state"]["said"]) == (
        4,
        "failed",
        f"{platform.state} cannot be written",
    )


def test_the_schedule_is_asked_of_the_instance(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    home = platform.home / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    code, found = _checked(platform)
    assert (code, found["schedule"]["health"]) == (0, "warning")
    assert found["schedule"]["advice"].startswith("start it: dagster schedule start cleanup_daily")
    (home / "dagster.yaml").write_text("nonsense: 1\n")
    code, found = _checked(platform)
    assert (code, found["schedule"]["health"]) == (1, "failed")
    said = found["schedule"]["said"]
    assert said.startswith(f"Dagster's instance in {home}: ")
    assert "nonsense" in said, "the key that is wrong"


@pytest.mark.parametrize(("running", "daemon", "health"), [(True, True, "ok"), (True, False, "failed")])
def test_a_schedule_without_a_daemon_fires_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, *, running: bool, daemon: bool, health: str
) -> None:
    from cleanup_dagster.orchestration import launching

    home = platform.home / "dagster"
    home.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setattr(launching, "schedule_state", lambda: launching.ScheduleState(running, daemon))
    assert _checked(platform)[1]["schedule"]["health"] == health


def test_the_round_trip_names_the_step_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(health.tempfile, "tempdir", str(tmp_path))
    assert round_trip().health is Health.OK
    assert list(tmp_path.iterdir()) == []

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for verb, step in (
        ("scan", "scanning"),
        ("back_up", "backing up"),
        ("delete", "deleting"),
        ("restore", "restoring"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(CleanupService, verb, broken)
            found = round_trip()
        assert (found.health, found.said) == (Health.FAILED, f"{step} failed: [Errno 28] No space left on device")
        assert list(tmp_path.iterdir()) == []


def test_the_round_trip_notices_a_file_that_comes_back_different(monkeypatch: pytest.MonkeyPatch) -> None:
    restore = CleanupService.restore

    def careless(self: CleanupService, *arguments: Any) -> object:
        report = restore(self, *arguments)
        (root,) = {target.root for target in self._installation.settings.targets}  # pyright: ignore[reportPrivateUsage]
        (root / "operation_check.json").write_text("{}")
        return report

    monkeypatch.setattr(CleanupService, "restore", careless)
    assert round_trip().said == "restoring failed: the file is not what it was"
