"""What a configuration may say, what wins, and the exact words in which the rest is refused."""

import pickle
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import platformdirs
import pytest

from cleanup_dagster.retention.guardrails import GIB, Limits
from cleanup_dagster.settings import ConfigError, Settings, Target, load_settings
from cleanup_dagster.targets import DBT_LOADED, FOREIGN_TEMP

Write = Callable[[str | bytes], Path]

LOGS = "name: logs, kind: files, data_type: system_logs, root: /data/logs"
OPERATIONS = "name: ops, kind: operations, root: /data/ops"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(content: str | bytes) -> Path:
        path = tmp_path / "cleanup.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return written


@pytest.fixture
def load(write: Write) -> Callable[..., Settings]:
    def loaded(content: str | bytes, **environ: str) -> Settings:
        return load_settings(environ, write(content))

    return loaded


@pytest.fixture
def refused(write: Write) -> Callable[..., tuple[str, ...]]:
    def problems(content: str | bytes, **environ: str) -> tuple[str, ...]:
        with pytest.raises(ConfigError) as caught:
            load_settings(environ, write(content))
        assert str(caught.value) == "\n".join(caught.value.problems)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None, "a traceback would show what the message leaves out"
        return caught.value.problems

    return problems


def one_target(extra: str, base: str = LOGS) -> str:
    keys = {part.split(":")[0].strip() for part in extra.split(", ") if not part.startswith(" ")}
    kept = [part for part in base.split(", ") if part.split(":")[0].strip() not in keys]
    return f"targets: [{{{', '.join([*kept, extra])}}}]"


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


class TestTheFile:
    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ("", "is empty; write the settings that differ, or name no file to use the defaults"),
            ("# nothing\n", "is empty; write the settings that differ, or name no file to use the defaults"),
            ("- 1", "[1] is not a mapping of keys to values; begin with a key such as targets:"),
            ("text", "'text' is not a mapping of keys to values; begin with a key such as targets:"),
            (b"a: 1\nb: \xff", "line 2: is not UTF-8; save the file as UTF-8"),
            ("a: [", "line 1: is not YAML (expected the node content, but found '<stream end>')"),
            ("a: 1\n\tb: 2", "line 2: is not YAML (found character '\\t' that cannot start any token)"),
            ("executor: in_process\nexecutor: x", "line 2: the key 'executor' stands there twice; keep one of them"),
            ("backup:\n  a: 1\n  a: s3cret", "line 3: the key 'a' stands there twice; keep one of them"),
            ("a: 1\n---\nb: 2", "line 2: is not YAML (but found another document)"),
            ("a: 2026-13-45", "is not YAML; check it for control characters, dates and numbers that do not exist"),
            ("a: \x01", "is not YAML; check it for control characters, dates and numbers that do not exist"),
            ("a: " + "9" * 5000, "is not YAML; check it for control characters, dates and numbers that do not exist"),
            ("[" * 1500, "is nested far too deeply; a configuration needs four levels"),
            ("#" * (1024 * 1024 + 1), "is longer than 1 MiB; that is no configuration"),
        ],
    )
    def test_what_cannot_be_used(
        self, refused: Callable[..., tuple[str, ...]], tmp_path: Path, content: str | bytes, problem: str
    ) -> None:
        assert refused(content) == (f"{tmp_path / 'cleanup.yaml'}: {problem}",)

    def test_code_in_yaml_is_refused(self, refused: Callable[..., tuple[str, ...]]) -> None:
        (problem,) = refused("a: !!python/object/apply:os.system [true]")
        assert "is not YAML (could not determine a constructor for the tag" in problem

    def test_a_byte_order_mark_is_no_matter(self, load: Callable[..., Settings]) -> None:
        assert load(b"\xef\xbb\xbfexecutor: multiprocess").executor == "multiprocess"

    def test_a_named_file_must_exist(self, tmp_path: Path) -> None:
        path = tmp_path / "absent.yaml"
        for load in (lambda: load_settings({}, path), lambda: load_settings({"CLEANUP_CONFIG": str(path)})):
            with pytest.raises(ConfigError) as caught:
                load()
            assert caught.value.problems == (f"{path}: does not exist; create it, or name no file to use the defaults",)

    @pytest.mark.parametrize(
        ("path", "problem"),
        [
            ("/dev/null", "/dev/null: is not a regular file; name the YAML file itself"),
            ("/etc", "/etc: is not a regular file; name the YAML file itself"),
            (
                "/etc/passwd/x",
                "/etc/passwd/x: cannot be read (Not a directory); make it readable for the user who runs this",
            ),
        ],
    )
    def test_a_named_file_must_be_a_readable_file(self, path: str, problem: str) -> None:
        with pytest.raises(ConfigError) as caught:
            load_settings({"CLEANUP_CONFIG": path})
        assert caught.value.problems == (problem,)

    def test_an_unreadable_file(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write("executor: multiprocess")

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(ConfigError, match=r"cannot be read \(Permission denied\); make it readable"):
            load_settings({}, path)

    def test_what_the_parser_quotes_is_not_shown(self, refused: Callable[..., tuple[str, ...]]) -> None:
        for content in ('password: "s3cret', "password: s3cret\npassword: s3cret", "s3cret: [", "x: s3cret: y"):
            assert "s3cret" not in refused(content)[0].replace("the key 's3cret'", "")


T0 = "cleanup.yaml: targets[0]"
LIMITS = "cleanup.yaml: limits"
CRON = "cleanup.yaml: schedule.cron"
ZONE = "is not the IANA name of a time zone"
SIZE = "is not a size: a whole number of bytes, or text such as '10 GiB' or '500 MB'"
LIMIT_KEYS = "allow_volatile_backup, free_space_reserve, max_bytes, max_files, max_growth, max_share"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        # keys
        ("bakup: {}", "cleanup.yaml: bakup: is no known key; did you mean backup?"),
        ("backup: {retention: 3}", "cleanup.yaml: backup.retention: is no known key; did you mean retention_days?"),
        ("limits: {max_size: 3}", f"{LIMITS}.max_size: is no known key; did you mean max_share?"),
        ("limits: {zzz: 3}", f"{LIMITS}.zzz: is no known key; known here are {LIMIT_KEYS}"),
        (one_target("excluded: []"), f"{T0}.excluded: is no known key; did you mean excludes?"),
        (one_target("limits: {share: 1}"), f"{T0}.limits.share: is no known key; did you mean max_share?"),
        (
            "schedule: {1: 2}",
            (
                "cleanup.yaml: schedule[1]: is no known key; known here are checks_cron, cron, started, timezone, "
                "verify_cron"
            ),
        ),
        ('"a\\nb": 1', "cleanup.yaml: 'a\\nb': is no known key; known here are "),
        (
            "database: {password: s3cret}",
            (
                "cleanup.yaml: database: is no known key; the database is set in the environment only: "
                "CLEANUP_DATABASE_URL or CLEANUP_DB_HOST and its kin"
            ),
        ),
        (
            "database_url: postgresql://u:s3cret@h/d",
            (
                "cleanup.yaml: database_url: is no key of this file; set it in the environment "
                "(CLEANUP_DATABASE_URL, CLEANUP_ALERT_WEBHOOK_URL, DAGSTER_HOME, CLEANUP_CONFIG, "
                "CLEANUP_WEB_OPERATOR_TOKEN and _VIEWER_TOKEN)"
            ),
        ),
        # strict types
        ("clock_skew_seconds: '7'", "cleanup.yaml: clock_skew_seconds: '7' is not a whole number from 1 to 86400"),
        ("clock_skew_seconds: true", "cleanup.yaml: clock_skew_seconds: true is not a whole number from 1 to 86400"),
        ("clock_skew_seconds: 7.0", "cleanup.yaml: clock_skew_seconds: 7.0 is not a whole number from 1 to 86400"),
        ("clock_skew_seconds: 0", "cleanup.yaml: clock_skew_seconds: 0 is not a whole number from 1 to 86400"),
        ("clock_skew_seconds:", "cleanup.yaml: clock_skew_seconds: null is not a whole number from 1 to 86400"),
        (
            f"clock_skew_seconds: 0x{'f' * 5000}",
            "cleanup.yaml: clock_skew_seconds: a number of thousands of digits is not a whole number from 1 to 86400",
        ),
        ("plan_retention_hours: 9000", "cleanup.yaml: plan_retention_hours: 9000 is not a whole number from 1 to 8760"),
        ("executor: celery", "cleanup.yaml: executor: 'celery' is not in_process or multiprocess"),
        (
            "limits: {max_share: .nan}",
            f"{LIMITS}.max_share: nan is not a fraction above 0 and up to 1, such as 0.5",
        ),
        (
            "limits: {max_share: 0}",
            f"{LIMITS}.max_share: 0 is not a fraction above 0 and up to 1, such as 0.5",
        ),
        (
            "limits: {max_share: 50}",
            f"{LIMITS}.max_share: 50 is not a fraction above 0 and up to 1, such as 0.5",
        ),
        (
            "limits: {max_share: true}",
            f"{LIMITS}.max_share: true is not a fraction above 0 and up to 1, such as 0.5",
        ),
        (
            "limits: {max_growth: .inf}",
            f"{LIMITS}.max_growth: inf is not a factor from 1 to 1000000, such as 10",
        ),
        ("limits: {max_files: 0}", f"{LIMITS}.max_files: 0 is not a whole number from 1 to 1000000000000"),
        (
            "limits: {max_files: null}",
            f"{LIMITS}.max_files: null is not a whole number from 1 to 1000000000000",
        ),
        ("limits: {max_bytes: 1,000 GB}", f"{LIMITS}.'000 GB': is no known key; known here are {LIMIT_KEYS}"),
        ("limits: {max_bytes: '1,000 GB'}", f"{LIMITS}.max_bytes: '1,000 GB' {SIZE}"),
        ("limits: {max_bytes: '7'}", f"{LIMITS}.max_bytes: '7' {SIZE}"),
        ("limits: {max_bytes: 10 Gbit}", f"{LIMITS}.max_bytes: '10 Gbit' {SIZE}"),
        ("limits: {max_bytes: -1}", f"{LIMITS}.max_bytes: -1 {SIZE}"),
        ("limits: {max_bytes: true}", f"{LIMITS}.max_bytes: true {SIZE}"),
        (
            "limits: {allow_volatile_backup: yes}",
            f"{LIMITS}.allow_volatile_backup: 'yes' is not true or false",
        ),
        ("limits: {allow_volatile_backup: 1}", f"{LIMITS}.allow_volatile_backup: 1 is not true or false"),
        ("limits:", "cleanup.yaml: limits: null is not a mapping of keys to values"),
        ("schedule: daily", "cleanup.yaml: schedule: 'daily' is not a mapping with cron and timezone"),
        # times
        (
            "schedule: {timezone: Europe/Berln}",
            f"cleanup.yaml: schedule.timezone: 'Europe/Berln' {ZONE}; did you mean 'Europe/Berlin'?",
        ),
        (
            "naive_timezone: ''",
            f"cleanup.yaml: naive_timezone: '' {ZONE}; write one such as 'Europe/Berlin' or 'UTC'",
        ),
        (
            "naive_timezone: ../../etc/passwd",
            f"cleanup.yaml: naive_timezone: '../../etc/passwd' {ZONE}; write one such as",
        ),
        ("naive_timezone: America", f"cleanup.yaml: naive_timezone: 'America' {ZONE}; "),
        (
            "naive_timezone: 1",
            f"cleanup.yaml: naive_timezone: 1 {ZONE}, such as 'Europe/Berlin', or null",
        ),
        (
            "schedule: {cron: 0 2 * *}",
            (
                "cleanup.yaml: schedule.cron: '0 2 * *' is not a cron expression; "
                "write five fields (minute, hour, day, month, weekday), such as '0 2 * * *'"
            ),
        ),
        *(
            (f"schedule: {{cron: '{cron}'}}", f"cleanup.yaml: schedule.cron: '{cron}' is not a cron expression; ")
            for cron in (
                "60 2 * * *",
                "* * 0 * *",
                "*/0 * * * *",
                "5-1 * * * *",
                "a * * * *",
                "1-2-3 * * * *",
                "1, * * * *",
            )
        ),
        # stores
        ("state_dir: data", "cleanup.yaml: state_dir: 'data' is not an absolute path; write it in full, from / on"),
        ("state_dir: 5", "cleanup.yaml: state_dir: 5 is not an absolute path; write it as text"),
        (
            "state_dir: /etc",
            "cleanup.yaml: state_dir: '/etc' lies in the system directory /etc; name a directory of your own",
        ),
        ("workers: 2026-01-31", "cleanup.yaml: workers: 2026-01-31 is not a whole number from 1 to 64"),
        ("state_dir: /", "cleanup.yaml: state_dir: '/' is the root of the file system; name a directory of your own"),
        ("backup: {directory: ''}", "cleanup.yaml: backup.directory: '' is empty; write an absolute path"),
        (
            "backup: {directory: /a//b}",
            "cleanup.yaml: backup.directory: '/a//b' is not written in its normal form; write '/a/b'",
        ),
        (
            "backup: {directory: /}",
            "cleanup.yaml: backup.directory: '/' is the root of the file system; name a directory of your own",
        ),
        (
            "backup: {directory: /usr/x}",
            "cleanup.yaml: backup.directory: '/usr/x' lies in the system directory /usr; name a directory of your own",
        ),
        (
            "backup: {retention_days: 0}",
            "cleanup.yaml: backup.retention_days: 0 is not a whole number of days from 1 to 3650",
        ),
        (
            "manifest_retention_days: 3",
            (
                "cleanup.yaml: manifest_retention_days: 3 is less than backup.retention_days, 7; "
                "a backup cannot be restored without its manifest, so write at least as many"
            ),
        ),
        (
            "backup: {directory: /data}\n" + one_target("optional: true"),
            (
                "cleanup.yaml: backup.directory: '/data' is the root of target 'logs' or leads to it (/data/logs); "
                "name a directory of its own"
            ),
        ),
        (
            "state_dir: /data/logs\n" + one_target("optional: true"),
            (
                "cleanup.yaml: state_dir: '/data/logs' is the root of target 'logs' or leads to it (/data/logs); "
                "name a directory of its own"
            ),
        ),
        # targets
        ("targets:", "cleanup.yaml: targets: null is not a list of targets"),
        ("targets: {}", "cleanup.yaml: targets: {} is not a list of targets"),
        ("targets: [5]", "cleanup.yaml: targets[0]: 5 is not a mapping of keys to values"),
        (one_target("name: Logs"), f"{T0}.name: 'Logs' is not a name of 1 to 40 lower-case letters, digits and _"),
        (one_target('name: "a\\n"'), f"{T0}.name: 'a\\n' is not a name of 1 to 40 lower-case letters, digits and _"),
        (one_target("kind: file"), f"{T0}.kind: 'file' is not operations, files or dagster_runs"),
        (one_target("kind: [a]"), f"{T0}.kind: ['a'] is not operations, files or dagster_runs"),
        ("targets: [{name: a, kind: operations}]", f"{T0}.root: is missing; it must be an absolute path"),
        (
            one_target("data_type: null"),
            (
                f"{T0}.data_type: null is not a data type; write system_logs, dbt_logs, temp_files or "
                "one of your own of 1 to 40 lower-case letters, digits and _"
            ),
        ),
        ("targets: [{name: a, kind: files, root: /d}]", f"{T0}.data_type: null is not a data type; write "),
        (one_target("data_type: My-Logs"), f"{T0}.data_type: 'My-Logs' is not a data type; write "),
        (
            one_target("data_type: failed_operations"),
            (
                f"{T0}.data_type: 'failed_operations' is decided by what the files say; "
                "write kind: operations, without data_type"
            ),
        ),
        (
            one_target("data_type: dagster_runs"),
            f"{T0}.data_type: 'dagster_runs' lives in Dagster's database, not in files; remove this target",
        ),
        (
            one_target("data_type: pipeline_operations", OPERATIONS),
            (
                f"{T0}.data_type: 'pipeline_operations' does not belong to kind operations, "
                "whose files say their type; remove it"
            ),
        ),
        (
            one_target("max_json_bytes: 5"),
            f"{T0}.max_json_bytes: 5 has no meaning for kind files; remove it, it belongs to kind operations",
        ),
        (
            one_target("delete_unreadable: false"),
            f"{T0}.delete_unreadable: false has no meaning for kind files; remove it, it belongs to kind operations",
        ),
        (
            one_target("age_from: newest", OPERATIONS),
            f"{T0}.age_from: 'newest' has no meaning for kind operations; remove it, it belongs to kind files",
        ),
        (one_target("max_json_bytes: 65 MiB", OPERATIONS), f"{T0}.max_json_bytes: '65 MiB' {SIZE}, up to 64 MiB"),
        (one_target("patterns: '*.log'"), f"{T0}.patterns: '*.log' is not a list of glob patterns; write ['*.log']"),
        (
            one_target("patterns: []"),
            f"{T0}.patterns: [] matches nothing; write at least one pattern such as '*.log', or remove the key",
        ),
        (one_target("patterns: [' ']"), f"{T0}.patterns: ' ' is not a glob pattern; write text such as '*.log'"),
        (one_target("patterns: [7]"), f"{T0}.patterns: 7 is not a glob pattern; write text such as '*.log'"),
        (
            one_target("patterns: [/etc/*]"),
            (
                f"{T0}.patterns: '/etc/*' leads out of the root; "
                "write a pattern relative to it, without a leading / and .."
            ),
        ),
        (
            one_target("excludes: [a/../b]"),
            (
                f"{T0}.excludes: 'a/../b' leads out of the root; "
                "write a pattern relative to it, without a leading / and .."
            ),
        ),
        (
            one_target("excludes: [logs/]"),
            f"{T0}.excludes: 'logs/' can match no file; write a pattern such as '*.log', 'logs/*' or 'logs/**'",
        ),
        (one_target("recursive: 1"), f"{T0}.recursive: 1 is not true or false"),
        (one_target("max_depth: 201"), f"{T0}.max_depth: 201 is not a whole number from 1 to 200"),
        *(
            (
                one_target(f"min_age: {text}"),
                (
                    f"{T0}.min_age: {shown} is not a number of seconds, "
                    "or text such as '30m', '2h' or '1d', up to 36500 days"
                ),
            )
            for text, shown in (
                ("-1", "-1"),
                ("2 days", "'2 days'"),
                ("true", "true"),
                (".inf", "inf"),
                ("36501d", "'36501d'"),
            )
        ),
        (
            one_target("retention_days_min: 0"),
            f"{T0}.retention_days_min: 0 is not a whole number of days from 1 to 36500",
        ),
        (
            one_target("retention_days_min: 9, retention_days_max: 3"),
            f"{T0}.retention_days_max: 3 is less than retention_days_min, 9; exchange them",
        ),
        (one_target("root: logs"), f"{T0}.root: 'logs' is not an absolute path; write it in full, from / on"),
        (
            one_target("root: /var"),
            f"{T0}.root: '/var' is shared by the whole system; name a directory of your own below /var",
        ),
        (
            f"targets: [{{{LOGS}}}, {{{OPERATIONS.replace('ops,', 'logs,')}}}]",
            "cleanup.yaml: targets[1].name: 'logs' names another target already; choose another name",
        ),
        (
            f"targets: [{{{LOGS}}}, {{{OPERATIONS.replace('/data/ops', '/data/logs')}}}]",
            (
                "cleanup.yaml: targets[1]: 'ops' (/data/logs) overlaps 'logs' (/data/logs): 'operation_*.json' "
                "of 'ops' and '*' of 'logs' could take the same file; "
                "add 'operation_*.json' to the excludes of 'logs', or choose patterns"
            ),
        ),
    ],
)
def test_what_is_refused(refused: Callable[..., tuple[str, ...]], content: str, problem: str) -> None:
    (said,) = refused(content)
    assert problem in said if problem.endswith((" ", "such as", "patterns", "YAML")) else said == problem
    assert "s3cret" not in said


def test_everything_that_is_wrong_is_said_at_once(refused: Callable[..., tuple[str, ...]]) -> None:
    said = refused(
        "executor: x\nlimits: {max_files: x}\nbackup: {retention_days: x}\n"
        "targets: [{name: A, kind: files, root: etc, patterns: [/x], limits: {max_share: 2}}, 7]",
        CLEANUP_DB_PORT="x",
    )
    assert [line.rsplit(": ", 1)[0] for line in said] == [
        f"{LIMITS}.max_files",
        "cleanup.yaml: targets[0].limits.max_share",
        "cleanup.yaml: targets[0].name",
        "cleanup.yaml: targets[0].data_type",
        "cleanup.yaml: targets[0].root",
        "cleanup.yaml: targets[0].patterns",
        "cleanup.yaml: targets[1]",
        "CLEANUP_DB_PORT",
        "cleanup.yaml: backup.retention_days",
        "cleanup.yaml: executor",
    ]


def test_an_alias_bomb_stays_short(refused: Callable[..., tuple[str, ...]]) -> None:
    levels = "\n".join(f"  - &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(9))
    said = refused(f"naive_timezone:\n  - &a0 [x, x]\n{levels}\nexecutor: *a9\nstate_dir: &x [*x]")
    assert len(said) == 3
    assert all(len(line) < 400 for line in said)
