"""What settings are by default, what their values may be, and what wins."""

import pickle
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import platformdirs
import pytest
from settings_helpers import LOGS, Write, one_target

from cleanup_dagster.retention.guardrails import GIB, Limits
from cleanup_dagster.settings import ConfigError, Settings, Target, load_settings
from cleanup_dagster.targets import DBT_LOADED, FOREIGN_TEMP


class TestDefaults:
    def test_without_file_and_environment(self) -> None:
        settings = load_settings({})
        assert settings.state_dir == platformdirs.user_state_path("cleanup_dagster")
        assert settings.backup.directory == Path("/tmp/cleanup_backups")  # noqa: S108
        assert settings.backup.retention_days == 7
        assert (settings.schedule.cron, settings.schedule.timezone) == ("0 2 * * *", "UTC")
        assert (settings.naive_timezone, settings.naive_zone) == (None, None)
        assert settings.executor == "in_process"
        assert settings.clock_skew_seconds == 300
        assert settings.plan_retention_hours == 24
        assert settings.manifest_retention_days == 365
        assert settings.limits == Limits()
        assert settings.database_url is settings.dagster_home is settings.config_file is None

    def test_the_default_target(self) -> None:
        (target,) = load_settings({}).targets
        assert (target.name, target.kind, target.root) == ("operations", "operations", Path("/tmp").resolve())  # noqa: S108
        assert target.patterns == ("operation_*.json",)
        assert (target.recursive, target.optional, target.excludes) == (False, False, ())
        assert target.data_types == ("pipeline_operations", "completed_operations", "failed_operations")
        assert load_settings({}).root_problem(target) is None

    def test_defaults_of_a_files_target(self, load: Callable[..., Settings]) -> None:
        (target,) = load(one_target("recursive: true")).targets
        assert target == Target.model_validate(
            {"name": "logs", "kind": "files", "data_type": "system_logs", "root": "/data/logs"}
        )
        assert (target.patterns, target.excludes, target.recursive) == (("*",), (), True)
        assert (target.max_depth, target.remove_empty_dirs, target.min_age, target.age_from) == (
            64,
            False,
            0.0,
            "mtime",
        )
        assert (target.retention_days_min, target.retention_days_max, target.optional) == (1, 36500, False)
        assert target.data_types == ("system_logs",)

    def test_dbt_targets_spare_what_others_load_unless_told(self, load: Callable[..., Settings]) -> None:
        dbt = LOGS.replace("system_logs", "dbt_logs")
        assert load(one_target("optional: false", dbt)).targets[0].excludes == DBT_LOADED
        assert load(one_target("excludes: []", dbt)).targets[0].excludes == ()

    def test_temporary_files_spare_what_services_and_desktops_have_there(self, load: Callable[..., Settings]) -> None:
        temp = LOGS.replace("system_logs", "temp_files")
        assert load(one_target("optional: false", temp)).targets[0].excludes == FOREIGN_TEMP
        assert load(one_target("excludes: []", temp)).targets[0].excludes == ()

    @pytest.mark.parametrize(
        ("environ", "expected"),
        [
            ({"DBT_PROJECT_DIR": "/d"}, [("dbt_logs", "/d/logs"), ("dbt_target", "/d/target")]),
            ({"DBT_PROJECT_DIR": "/d/"}, [("dbt_logs", "/d/logs"), ("dbt_target", "/d/target")]),
            ({"DBT_PROJECT_DIR": "/d", "DBT_LOG_PATH": "l"}, [("dbt_logs", "/d/l"), ("dbt_target", "/d/target")]),
            ({"DBT_PROJECT_DIR": "/d", "DBT_TARGET_PATH": "/t"}, [("dbt_logs", "/d/logs"), ("dbt_target", "/t")]),
            ({"DBT_LOG_PATH": "/l"}, [("dbt_logs", "/l")]),
            ({"CLEANUP_SYSTEM_LOGS_DIR": "/s/"}, [("system_logs", "/s")]),
            ({"CLEANUP_TEMP_FILES_DIR": "/t"}, [("temp_files", "/t")]),
            ({"DBT_PROJECT_DIR": "", "CLEANUP_SYSTEM_LOGS_DIR": "", "CLEANUP_CONFIG": ""}, []),
        ],
    )
    def test_targets_that_the_environment_asks_for(
        self, environ: dict[str, str], expected: list[tuple[str, str]]
    ) -> None:
        operations, *others = load_settings(environ).targets
        assert operations.name == "operations"
        assert [(target.name, str(target.root)) for target in others] == expected
        assert all(target.optional and target.recursive and target.kind == "files" for target in others)
        assert {target.data_type for target in others} == {name.replace("_target", "_logs") for name, _ in expected}

    def test_a_file_with_targets_replaces_them_all(self, load: Callable[..., Settings]) -> None:
        assert load("targets: []", DBT_PROJECT_DIR="/d").targets == ()
        assert [target.name for target in load("executor: multiprocess", DBT_PROJECT_DIR="/d").targets] == [
            "operations",
            "dbt_logs",
            "dbt_target",
        ]


class TestValues:
    def test_every_key(self, load: Callable[..., Settings], write: Write) -> None:
        settings = load("""
state_dir: /srv/state
backup: {directory: /srv/backups, retention_days: 30}
schedule: {cron: "*/15 1-5,23 1 jan-mar mon,fri", timezone: Europe/Berlin}
naive_timezone: America/New_York
executor: multiprocess
clock_skew_seconds: 60
plan_retention_hours: 48
manifest_retention_days: 400
limits:
  {max_files: 5, max_bytes: 10 GiB, max_share: 1, max_growth: 3, free_space_reserve: 0, allow_volatile_backup: true}
targets:
  - {name: ops, kind: operations, root: /data/ops, max_json_bytes: 2 MiB, delete_unreadable: true, min_age: 2h}
  - name: cache
    kind: files
    data_type: my_cache
    root: /data/cache
    patterns: ["*.bin", "a/**/*.x"]
    excludes: [keep]
    recursive: false
    max_depth: 200
    remove_empty_dirs: true
    min_age: 90
    age_from: newest
    retention_days_min: 2
    retention_days_max: 9
    optional: true
    limits: {max_files: 7, max_bytes: 1.5 kB}
""")
        assert settings.state_dir == Path("/srv/state")
        assert (settings.backup.directory, settings.backup.retention_days) == (Path("/srv/backups"), 30)
        assert settings.schedule.timezone == "Europe/Berlin"
        assert settings.naive_zone == ZoneInfo("America/New_York")
        assert settings.limits == Limits(5, 10 * GIB, 1.0, 3.0, 0, True)
        operations, cache = settings.targets
        assert (operations.max_json_bytes, operations.delete_unreadable) == (2 * 1024**2, True)
        assert (operations.min_age, operations.min_age_ns) == (7200.0, 7_200_000_000_000)
        assert operations.limits == settings.limits
        assert (cache.patterns, cache.excludes) == (("*.bin", "a/**/*.x"), ("keep",))
        assert cache.limits == Limits(7, 1500, 1.0, 3.0, 0, True)
        assert (cache.age_from, cache.retention_days_max, cache.min_age_ns) == ("newest", 9, 90_000_000_000)
        assert settings.config_file == write("a: 1")

    def test_settings_are_frozen_and_travel_to_other_processes(self, load: Callable[..., Settings]) -> None:
        settings = load("executor: multiprocess", CLEANUP_DB_PASSWORD="s3cret")  # noqa: S106
        with pytest.raises(ValueError, match="frozen"):
            settings.executor = "in_process"  # pyright: ignore[reportAttributeAccessIssue]
        assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301

    def test_a_refusal_travels_too(self) -> None:
        assert pickle.loads(pickle.dumps(ConfigError(["a", "b"]))).problems == ("a", "b")  # noqa: S301

    @pytest.mark.parametrize(
        ("text", "size"),
        [("10 GiB", 10 * GIB), ("500 MB", 500_000_000), ("1.5KiB", 1536), ("7 b", 7), ("1 tib", 1024**4)],
    )
    def test_sizes(self, load: Callable[..., Settings], text: str, size: int) -> None:
        assert load(f"limits: {{max_bytes: {text}}}").limits.max_bytes == size

    @pytest.mark.parametrize(
        ("text", "seconds"), [("2h", 7200), ("30m", 1800), ("1d", 86400), ("1.5 h", 5400), ("1w", 604800), ("0.5", 0.5)]
    )
    def test_durations(self, load: Callable[..., Settings], text: str, seconds: float) -> None:
        assert load(one_target(f"min_age: {text}")).targets[0].min_age == seconds

    def test_minimum_age_never_rounds_down(self) -> None:
        target = load_settings({}).targets[0].model_copy(update={"min_age": 1e-10})
        assert target.min_age_ns == 1

    def test_an_explicit_limit_beats_a_default_and_the_target_beats_both(self, load: Callable[..., Settings]) -> None:
        temporary = LOGS.replace("system_logs", "temp_files")
        assert load(one_target("optional: false", temporary)).targets[0].limits.max_share == 1.0
        assert load("limits: {max_share: 0.3}\n" + one_target("optional: false", temporary)).targets[
            0
        ].limits == Limits(max_share=0.3)
        assert load("limits: {max_share: 0.3}\n" + one_target("limits: {max_share: 0.4}")).targets[0].limits == Limits(
            max_share=0.4
        )
        assert load_settings({"CLEANUP_TEMP_FILES_DIR": "/t"}).targets[1].limits == Limits(max_share=1.0)


class TestPrecedence:
    def test_environment_over_file_over_default(self, load: Callable[..., Settings], tmp_path: Path) -> None:
        content = (
            "state_dir: /f/state\nbackup: {directory: /f/backups, retention_days: 9}\nschedule: {timezone: Asia/Tokyo}"
        )
        settings = load(content, DAGSTER_HOME="/h")
        assert settings.state_dir == Path("/f/state")
        assert settings.backup.directory == Path("/f/backups")
        assert settings.schedule.timezone == "Asia/Tokyo"
        settings = load(
            content,
            DAGSTER_HOME="/h",
            CLEANUP_STATE_DIR="/e/state",
            CLEANUP_BACKUP_DIR="/e/backups",
            CLEANUP_TIMEZONE="Europe/Paris",
        )
        assert settings.state_dir == Path("/e/state")
        assert (settings.backup.directory, settings.backup.retention_days) == (Path("/e/backups"), 9)
        assert (settings.schedule.timezone, settings.schedule.cron) == ("Europe/Paris", "0 2 * * *")
        assert load_settings({"DAGSTER_HOME": "/h"}).state_dir == Path("/h/cleanup")
        assert load_settings({"CLEANUP_CONFIG": str(tmp_path / "cleanup.yaml")}).backup.retention_days == 9

    def test_the_environment_of_the_process_is_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CLEANUP_TIMEZONE", "Europe/Rome")
        monkeypatch.delenv("CLEANUP_CONFIG", raising=False)
        assert load_settings().schedule.timezone == "Europe/Rome"
        assert load_settings({}).schedule.timezone == "UTC"

    def test_a_refused_value_of_the_environment_is_named_after_its_variable(
        self, refused: Callable[..., tuple[str, ...]]
    ) -> None:
        assert refused(
            "backup: 5",
            CLEANUP_TIMEZONE="Europe/Berln",
            CLEANUP_BACKUP_DIR="/usr/x",
            CLEANUP_STATE_DIR="x",
            DAGSTER_HOME="rel",
            DBT_LOG_PATH="y",
            DBT_TARGET_PATH="/opt",
        ) == (
            "DAGSTER_HOME: 'rel' is not an absolute path; write it in full, from / on",
            "DBT_LOG_PATH: 'y' is not an absolute path; write it in full, or set DBT_PROJECT_DIR",
            "DBT_TARGET_PATH: '/opt' is shared by the whole system; name a directory of your own below /opt",
            "CLEANUP_STATE_DIR: 'x' is not an absolute path; write it in full, from / on",
            "cleanup.yaml: backup: 5 is not a mapping with directory, retention_days and restore_hold_days",
            "CLEANUP_TIMEZONE: 'Europe/Berln' is not the IANA name of a time zone; did you mean 'Europe/Berlin'?",
        )

    def test_a_store_named_by_the_environment(self, refused: Callable[..., tuple[str, ...]]) -> None:
        assert refused("targets: []", CLEANUP_BACKUP_DIR="/dev/shm/b") == (  # noqa: S108
            "CLEANUP_BACKUP_DIR: '/dev/shm/b' lies in the system directory /dev; name a directory of your own",
        )
