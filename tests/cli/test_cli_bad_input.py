"""What was not meant: one clear message, the right exit code, and nothing changed."""

import json
from typing import cast

import pytest
from cli_helpers import Platform

USAGE = "Usage: cleanup-operations {}\n"
ROOT = USAGE.format("[OPTIONS] [COMMAND] [ARGS]...")
LIVE, DRY = "11111111-2222", "11111111-3333"


def _name(value: object) -> str:
    return " ".join(map(str, cast("tuple[object, ...]", value))) if isinstance(value, tuple) else ""


def _refused(platform: Platform, arguments: tuple[str, ...], message: str, code: int = 2) -> None:
    platform.call("policies", "list")
    rows = platform.ask("SELECT * FROM cleanup_policies"), platform.ask("SELECT * FROM cleanup_holds")
    before = platform.everything()
    ended = platform.call(*arguments)
    said = ended.err.replace(f"Database: the embedded SQLite file {platform.state}/cleanup.db\n", "")
    assert (said, ended.code, ended.out) == (message, code, "")
    assert platform.everything() == before
    assert rows == (platform.ask("SELECT * FROM cleanup_policies"), platform.ask("SELECT * FROM cleanup_holds"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--run", "--type", "yearly"),
            ROOT + "Error: Invalid value for '--type': 'yearly' is not one of 'automatic', 'manual', 'emergency'.\n",
        ),
        (("--dry-run", "--run"), "Error: --dry-run and --run contradict each other; give one of them\n"),
        (("--stats", "--run"), "Error: --stats and --run contradict each other; give one of them\n"),
        (("--stats", "--dry-run"), "Error: --stats and --dry-run contradict each other; give one of them\n"),
        (("--stats", "--type", "manual"), "Error: --stats and --type contradict each other; statistics have no type\n"),
        (("--yes",), "Error: --yes goes with --run; nothing else here asks\n"),
        (
            ("--run", "history"),
            "Error: --run and the command 'history' contradict each other; leave one out\n",
        ),
        (("delete",), ROOT + "Error: No such command 'delete'.\n"),
        (("run", "--force"), USAGE.format("run [OPTIONS]") + "Error: No such option '--force'.\n"),
        (
            ("policies", "set", "dbt_log", "--days", "3"),
            (
                "Error: there is no policy for the data type 'dbt_log'; there are: pipeline_operations, dbt_logs, "
                "failed_operations, completed_operations, system_logs, temp_files, dagster_runs\n"
            ),
        ),
        (("policies", "set", "dbt_logs"), "Error: nothing to change: give --days, --keep-last or both\n"),
        (("policies", "enable"), "Error: name the data types or give --all\n"),
        (("policies", "disable", "dbt_logs", "--all"), "Error: name data types or give --all, not both\n"),
        (
            ("policies", "reset"),
            (
                "Error: Resetting the policies asks for confirmation, and there is no terminal to ask on; "
                "use --yes in scripts. Nothing was changed.\n"
            ),
        ),
        (
            ("backups", "prune"),
            (
                "Error: Pruning asks for confirmation, and there is no terminal to ask on; "
                "use --yes in scripts. Nothing was changed.\n"
            ),
        ),
        (("restore", "abc"), "Error: there is no run 'abc'; `cleanup-operations history --runs` lists them\n"),
        (("restore", ""), "Error: there is no run ''; `cleanup-operations history --runs` lists them\n"),
        (("restore", "%"), "Error: there is no run '%'; `cleanup-operations history --runs` lists them\n"),
        (("apply", "abc", "--yes"), "Error: there is no run 'abc'; `cleanup-operations history --runs` lists them\n"),
        (("backups", "show", "x"), "Error: there is no run 'x'; `cleanup-operations history --runs` lists them\n"),
        (
            ("holds", "add", "**", "--reason", "x", "--data-type", "nonsense"),
            (
                "Error: there is no data type 'nonsense'; use one of completed_operations, dagster_runs, dbt_logs, "
                "failed_operations, pipeline_operations, system_logs, temp_files\n"
            ),
        ),
        (
            ("holds", "add", "**", "--reason", "x", "--until", "tomorrow"),
            "Error: --until 'tomorrow' is no moment; write 2026-12-31, or 2026-12-31T18:00+01:00\n",
        ),
        (
            ("holds", "add", "**", "--reason", "x", "--until", "2020-01-01T00:00Z"),
            "Error: the hold would end at 2020-01-01 00:00:00+00:00, which has passed; name a later moment\n",
        ),
        (
            ("holds", "add", "**", "--reason", "x", "--until", "2099-01-01", "--days", "3"),
            "Error: --until and --days contradict each other; give one of them\n",
        ),
        (
            ("holds", "add", "**", "--reason", " "),
            "Error: the reason is empty; say why, for whoever wonders later why something is kept\n",
        ),
        (("holds", "remove", "7"), "Error: there is no hold 7; `cleanup-operations holds list` shows them\n"),
        (("holds", "add", "", "--reason", "x"), "Error: PATH is empty; name a file, a directory or a glob\n"),
        (("explain", ""), "Error: PATH is empty; name a file, a directory or a glob\n"),
        (
            ("holds", "add", "**", "--reason", "x", "--pipeline", ""),
            "Error: the pipeline is empty; name one, or leave it out, and every pipeline is held\n",
        ),
        (
            ("holds", "remove", "9" * 30),
            USAGE.format("holds remove [OPTIONS] ID")
            + f"Error: Invalid value for 'ID': {'9' * 30} is not in the range 1<=x<=2147483647.\n",
        ),
        (
            ("holds", "remove", "a"),
            USAGE.format("holds remove [OPTIONS] ID") + "Error: Invalid value for 'ID': 'a' is not a whole number\n",
        ),
        (("--config", "", "stats"), "Error: --config is empty; give a value, or leave the option out\n"),
        (("--db-host", "", "stats"), "Error: --db-host is empty; give a value, or leave the option out\n"),
    ],
    ids=_name,
)
def test_what_was_not_meant(platform: Platform, arguments: tuple[str, ...], message: str) -> None:
    _refused(platform, arguments, message)


@pytest.mark.parametrize("days", ["0", "-1", "36501", "1.5", "1e3", "ten", "", "٣", "9" * 40])
def test_days_that_are_not_from_1_to_36500(platform: Platform, days: str) -> None:
    message = (
        USAGE.format("policies set [OPTIONS] DATA_TYPE")
        + f"Error: Invalid value for '--days': {days!r} is not a whole number of days from 1 to 36500\n"
    )
    _refused(platform, ("policies", "set", "dbt_logs", f"--days={days}"), message)


@pytest.mark.parametrize("days", ["1", "36500"])
def test_days_at_either_end(platform: Platform, days: str) -> None:
    assert platform.call("policies", "set", "dbt_logs", "--days", days).code == 0


@pytest.mark.parametrize("arguments", [("explain",), ("restore", LIVE)], ids=" ".join)
def test_a_path_outside_the_targets(platform: Platform, arguments: tuple[str, ...]) -> None:
    _with_runs(platform)
    targets = f"targets: operations ({platform.ops}), dbt_logs ({platform.dbt})"
    middle = "in no target, so nothing ever touches it; " if arguments == ("explain",) else "in no target; "
    _refused(platform, (*arguments, "/etc/passwd"), f"Error: /etc/passwd lies {middle}{targets}\n")


@pytest.mark.parametrize("pattern", ["/etc/*", "/*/../etc", "/et[c]/**"])
def test_a_glob_outside_the_targets(platform: Platform, pattern: str) -> None:
    _with_runs(platform)
    ended = platform.call("restore", LIVE, pattern)
    assert ended.code == 2
    assert "lies in no target; targets: operations (" in ended.err


def test_the_root_of_a_target_cannot_be_explained(platform: Platform) -> None:
    _refused(
        platform, ("explain", str(platform.ops)), f"Error: {platform.ops} is the root of a target; name a file in it\n"
    )


def test_an_empty_path_does_not_restore_the_working_directory(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_runs(platform)
    monkeypatch.chdir(platform.ops)
    _refused(platform, ("restore", LIVE, ""), "Error: PATH is empty; name a file, a directory or a glob\n")


@pytest.mark.parametrize("command", ["plan", "policies list", "serve", "check"])
def test_a_dagster_home_that_was_mistyped_is_no_new_installation(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    platform.configure(state_dir=None)
    document = json.loads(platform.config.read_text())
    del document["state_dir"]
    platform.config.write_text(json.dumps(document))
    home = platform.home / "dagstre_home"
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    ended = platform.call(*command.split())
    assert ended.code == 4
    assert f"DAGSTER_HOME: '{home}' is no directory; make it, or correct the variable" in ended.words
    assert not home.exists()


def test_a_dagster_home_that_is_not_there_is_no_mistake_where_the_state_lies_elsewhere(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page of the compose deployment asks Dagster over HTTP, and has no home of Dagster's."""
    monkeypatch.setenv("DAGSTER_HOME", str(platform.home / "in-another-container"))
    assert platform.call("policies", "list").code == 0


def test_a_group_without_a_command_shows_which_there_are(platform: Platform) -> None:
    ended = platform.call("policies", "--json")
    assert ended.code == 2
    ended = platform.call("policies")
    assert (ended.code, ended.out) == (2, "")
    assert "\n  disable  Keep everything of some data types, or of all.\n" in ended.err
    assert ended.err.endswith("\nError: name one of these commands\n")


def test_bytes_that_are_no_text_are_refused(platform: Platform) -> None:
    for arguments in (("restore", "\udcff"), ("--db-host", "\udcff", "stats"), ("policies", "enable", "\udcff")):
        ended = platform.call(*arguments)
        assert ended.code == 2
        assert "'\\udcff' is not UTF-8\n" in ended.err


def test_a_directory_cannot_be_explained(platform: Platform) -> None:
    below = platform.dbt / "target"
    below.mkdir()
    _refused(platform, ("explain", str(below)), f"Error: {below} is a directory; name a file in it\n")


def test_a_data_type_nobody_knows_restores_nothing(platform: Platform) -> None:
    _with_runs(platform)
    known = (
        "completed_operations, dagster_runs, dbt_logs, failed_operations, pipeline_operations, system_logs, temp_files"
    )
    message = f"Error: there is no data type 'nonsense'; there are: {known}\n"
    _refused(platform, ("restore", LIVE, "--data-type", "nonsense"), message)


def _with_runs(platform: Platform) -> None:
    platform.call("policies", "list")
    for run_id, dry in ((LIVE, 0), ("11111111-2244", 0), (DRY, 1)):
        platform.tell(
            "INSERT INTO cleanup_runs (run_id, cleanup_type, dry_run, status, host, state_id, pid, started_at,"
            " heartbeat_at, executed_by)"
            " VALUES (?, 'manual', ?, 'done', 'h', 's', 1, '2026-01-01 00:00:00', '2026-01-01 00:00:00', 'x')",
            run_id,
            dry,
        )


def test_a_half_typed_run_id_that_could_be_two_names_them(platform: Platform) -> None:
    _with_runs(platform)
    message = "Error: '1111' could be 2 runs: 11111111-2222, 11111111-2244; type more of the id\n"
    _refused(platform, ("restore", "1111"), message)


def test_what_a_command_can_use_wins_over_what_it_cannot(platform: Platform) -> None:
    _with_runs(platform)
    message = f"Error: the plan of {DRY} was made 2026-01-01 00:00 UTC and is kept for 24 hours; make a new dry run and"
    ended = platform.call("apply", "1111", "--yes")
    assert (ended.code, ended.err.splitlines()[-1]) == (3, f"{message} review it")


def test_a_live_run_is_no_plan(platform: Platform) -> None:
    _with_runs(platform)
    message = f"Error: run {LIVE} was live; only the plan of a dry run can be applied\n"
    _refused(platform, ("apply", "11111111-22222"[:13], "--yes"), message, code=3)


def test_a_configuration_that_is_not_there(platform: Platform) -> None:
    ended = platform.call("--config", "nowhere.yaml", "plan")
    assert ended.code == 4
    assert ended.err.endswith("/nowhere.yaml: does not exist; create it, or name no file to use the defaults\n")
    assert not platform.state.exists()


def test_every_problem_of_a_configuration_is_told(platform: Platform) -> None:
    platform.configure(nonsense=1, naive_timezone="Mars/Olympus")
    ended = platform.call("run", "--yes", "--json")
    assert (ended.code, ended.document["exit_code"]) == (4, 4)
    assert "cleanup.yaml: nonsense" in ended.err
    assert "Mars/Olympus" in ended.err
    assert not platform.state.exists()


def test_options_that_were_not_understood_are_a_document_too(platform: Platform) -> None:
    ended = platform.call("--run", "--dry-run", "--json")
    assert ended.code == 2
    assert ended.document == {
        "exit_code": 2,
        "error": "--dry-run and --run contradict each other; give one of them",
    }
