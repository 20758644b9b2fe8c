"""What a configuration may not say, and the exact words in which it is refused."""

from collections.abc import Callable

import pytest
from settings_helpers import LOGS, OPERATIONS, one_target

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
        *(
            (f"workers: {text}", f"cleanup.yaml: workers: {said} is not a whole number from 1 to 64")
            for text, said in (
                ("2026-01-31", "2026-01-31"),
                ("0", "0"),
                ("65", "65"),
                ("1000", "1000"),
                ("two", "'two'"),
                ("2.5", "2.5"),
                ("true", "true"),
            )
        ),
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
        *(
            (one_target(f"format: {text}"), f"{T0}.format: {said} is not files or archive")
            for text, said in (("zip", "'zip'"), ("7", "7"), ("null", "null"), ("[archive]", "['archive']"))
        ),
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
