"""The commands that people type, each as a process of its own."""

import contextlib
import json
import sys
import urllib.request
from typing import Any

import pytest
from end_to_end_helpers import EXPIRED, KEPT, PROJECT, Platform, eventually, free_port, run, started
from ruamel.yaml import YAML

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXECUTE = ("dagster", "job", "execute", "-m", "cleanup_dagster.definitions", "-j", "cleanup")


@pytest.mark.parametrize(
    "command",
    [
        ("dagster", "definitions", "validate"),
        ("dagster", "definitions", "validate", "-w", "workspace.yaml"),
        ("dg", "check", "defs"),
        ("dg", "check", "toml"),
    ],
    ids=" ".join,
)
def test_the_code_location_is_found_and_valid(platform: Platform, command: tuple[str, ...]) -> None:
    done = run(platform, *command)
    assert done.returncode == 0, done.output


def test_dg_lists_what_there_is(platform: Platform) -> None:
    done = run(platform, "dg", "list", "defs", "--json")
    assert done.returncode == 0, done.output
    listed = json.loads(done.output[done.output.index("\n{") if "\n{" in done.output else done.output.index("{") :])
    assert {job["name"] for job in listed["jobs"]} >= {"cleanup", "restore", "cleanup_checks", "verify_backups"}
    assert {schedule["name"]: schedule["cron_schedule"] for schedule in listed["schedules"]} == {
        "cleanup_daily": "0 2 * * *",
        "cleanup_checks_hourly": "30 * * * *",
        "verify_backups_weekly": "0 4 * * 0",
    }
    assert {sensor["name"] for sensor in listed["sensors"]} == {"disk_pressure", "run_failed"}
    assert ["cleanup", "completed_operations"] in [asset["asset_key_parts"] for asset in listed["assets"]]


def test_dg_dev_serves_a_clone(platform: Platform) -> None:
    port = free_port()
    with started(platform, "dg", "dev", "--port", str(port)) as (process, log):

        def answers() -> bool:
            assert process.poll() is None, log.read_text(encoding="utf-8")
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info") as answer:
                return answer.status == 200
            return False

        eventually(f"an answer, see {log}", answers, seconds=120)


def test_workspace_and_project_name_the_same_location() -> None:
    """Without -w the project wins, so they had better agree."""
    workspace: Any = YAML(typ="safe").load(PROJECT / "workspace.yaml")  # pyright: ignore[reportUnknownMemberType]
    module = workspace["load_from"][0]["python_module"]
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert module["module_name"] == project["dagster"]["module_name"]
    assert module["location_name"] == project["dagster"]["code_location_name"]
    assert module["module_name"] == project["dg"]["project"]["code_location_target_module"]


def test_a_broken_configuration_is_named_when_the_location_loads(platform: Platform) -> None:
    platform.configure(retention=30)
    done = run(platform, "dagster", "definitions", "validate")
    assert done.returncode == 1
    assert "ConfigError: cleanup.yaml: retention: is no known key" in done.output


def test_execute_is_dry_until_told_otherwise(platform: Platform) -> None:
    dry = run(platform, *EXECUTE)
    assert dry.returncode == 0, dry.output
    assert "a live run would delete 3 of 5 files" in dry.output
    assert platform.files == EXPIRED | KEPT

    live = run(platform, *EXECUTE, "-c", platform.run_config(dry_run=False, type="manual"))
    assert live.returncode == 0, live.output
    assert platform.files == KEPT
    assert {path.name for path in platform.backups.glob("*.backup")} == {f"{name}.backup" for name in EXPIRED}
    assert platform.ask("SELECT sum(records_deleted), executed_by FROM cleanup_audit") == [(3, "platform")]


def test_execute_fails_when_the_run_is_refused(platform: Platform) -> None:
    platform.configure(limits={"max_files": 1})
    done = run(platform, *EXECUTE, "-c", platform.run_config(dry_run=False))
    assert done.returncode == 1
    assert "operations: 2 files would go, more than max_files = 1" in done.output
    assert platform.files == EXPIRED | KEPT
    assert platform.ask("SELECT DISTINCT outcome FROM cleanup_audit") == [("refused",)]


def test_dg_launch_runs_it_live(platform: Platform) -> None:
    done = run(platform, "dg", "launch", "--job", "cleanup", "--config", platform.run_config(dry_run=False))
    assert done.returncode == 0, done.output
    assert platform.files == KEPT


def test_several_processes_do_what_one_does(platform: Platform) -> None:
    platform.configure(executor="multiprocess")
    done = run(platform, *EXECUTE, "-c", platform.run_config(dry_run=False))
    assert done.returncode == 0, done.output
    assert platform.files == KEPT
    assert platform.ask("SELECT status, deleted_files FROM cleanup_runs") == [("done", 3)]
