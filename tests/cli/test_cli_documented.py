"""Every command and option stands in docs/cli.md, every help has examples, every document has the keys it says."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import click
import pytest
from cli_helpers import PROGRAM, Platform
from click.shell_completion import ShellComplete

from cleanup_dagster.cli import exits
from cleanup_dagster.cli.app import root
from cleanup_dagster.cli.options import DATA_TYPES, DAYS_MAX, DAYS_MIN
from cleanup_dagster.retention import defaults

_TOP = Path(__file__).parents[2]
_TEXT = (_TOP / "docs" / "cli.md").read_text(encoding="utf-8")


def _commands(group: click.Group = root, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        full = f"{path} {name}".strip()
        if isinstance(command, click.Group):
            yield from _commands(command, full)
        else:
            yield full, command


COMMANDS = dict(_commands())


def test_the_whole_issue_is_there() -> None:
    assert set(COMMANDS) == {
        "plan", "apply", "run", "restore", "explain", "stats", "history", "check", "serve", "db upgrade",
        "backups list", "backups show", "backups verify", "backups prune",
        "policies list", "policies set", "policies enable", "policies disable", "policies reset",
        "holds list", "holds add", "holds remove",
    }  # fmt: skip


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_and_its_options_are_documented(path: str) -> None:
    headings = "\n".join(line for line in _TEXT.splitlines() if line.startswith("### "))
    assert re.search(rf"`{path}( [^`]*)?`", headings), path
    for parameter in COMMANDS[path].params:
        if isinstance(parameter, click.Option):
            for option in parameter.opts:
                assert option in _TEXT, (path, option)


def _shown() -> list[str]:
    """Return every command line that a page of the documentation shows in a block, and each help in its examples."""
    pages = [_TOP / "README.md", *sorted((_TOP / "docs").glob("*.md"))]
    blocks = [
        block
        for page in pages
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    ]
    helps = [re.sub(r"\\\n\s+", "", str(command.epilog)) for command in (root, *COMMANDS.values())]
    found = re.findall(r"^ *(cleanup-operations.*)$", "\n".join([*blocks, *helps]), re.MULTILINE)
    return sorted({re.split(r" [|>] | \|\| | {3,}", line.split(" #")[0])[0].strip() for line in found})


@pytest.mark.parametrize("line", _shown())
def test_what_the_documentation_shows_is_understood(line: str) -> None:
    command: click.Command = root
    words = shlex.split(line)[1:]
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    command.make_context("cleanup-operations", words)


def test_the_documentation_shows_every_command() -> None:
    assert {path for path in COMMANDS for line in _shown() if f"{line} ".startswith(f"cleanup-operations {path} ")} == {
        *COMMANDS
    }


def test_the_original_options_are_documented() -> None:
    for parameter in root.params:
        for option in parameter.opts:
            assert f"`{option}" in _TEXT, option


@pytest.mark.parametrize("path", COMMANDS)
def test_each_help_shows_examples_and_fits(platform: Platform, path: str) -> None:
    ended = platform.call(*path.split(), "--help")
    assert ended.code == 0
    assert (
        f"  Examples:\n    cleanup-operations {path}" in ended.out
        or "Examples:\n    cleanup-operations plan" in ended.out
    )
    assert max(map(len, ended.out.splitlines())) <= 80
    assert "--json" in ended.out
    assert not re.search(r"\bx[<>]=", ended.out)  # what click says of a range
    first = next(line for line in ended.out.splitlines()[1:] if line.strip())
    assert first.rstrip().endswith((".", "first.", ",")), first


def test_the_help_of_all_names_every_command_and_exit_code(platform: Platform) -> None:
    said = platform.call("--help").out
    for name in root.commands:
        assert re.search(rf"^  {name} +\S.*[^.]\.$", said, re.MULTILINE), name
    for code, meaning in exits.EXIT_CODES:
        assert re.search(rf"^    {code} +{re.escape(meaning)}$", said, re.MULTILINE)
        assert re.search(rf"^\| {code} \| ", _TEXT, re.MULTILINE)
    assert max(map(len, said.splitlines())) <= 80


def test_the_version_is_the_packages(platform: Platform) -> None:
    ended = platform.call("--version")
    assert re.fullmatch(r"cleanup-operations \d+\.\d+\.\d+\n", ended.out)


def test_the_shells_can_complete(platform: Platform) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert f"_CLEANUP_OPERATIONS_COMPLETE={shell}_source" in _TEXT
    asked = {"_CLEANUP_OPERATIONS_COMPLETE": "bash_complete", "COMP_CWORD": "3"}
    environment = platform.environment() | asked | {"COMP_WORDS": "cleanup-operations policies set d"}
    done = subprocess.run([PROGRAM], capture_output=True, text=True, check=True, env=environment, timeout=60)
    assert done.stdout.splitlines() == ["plain,dbt_logs", "plain,dagster_runs"]
    assert not platform.state.exists()


def _offered(*typed: str) -> dict[str, str]:
    asked = ShellComplete(root, {}, "cleanup-operations", "_COMPLETE")
    return {item.value: item.help or "" for item in asked.get_completions(list(typed[:-1]), typed[-1])}


def test_what_the_database_knows_is_offered(platform: Platform) -> None:
    run_id = platform.call("run", "--yes", "--json").document["run_id"]
    plan_id = platform.call("plan", "--json").document["run_id"]
    platform.call("holds", "add", "**", "--reason", "incident 7")
    platform.tell("INSERT INTO cleanup_policies (data_type, retention_days, enabled) VALUES ('exports', 60, true)")
    for words in (["restore"], ["backups", "show"], ["backups", "verify"]):
        assert _offered(*words, run_id[:3]).keys() == {run_id}
    assert _offered("restore", "")[run_id].endswith("UTC, manual, 4 files deleted")
    assert _offered("apply", "").keys() == {plan_id}
    assert _offered("holds", "remove", "") == {"1": "** (incident 7)"}
    assert _offered("policies", "disable", "e").keys() == {"exports"}
    assert _offered("run", "--type", "e").keys() == {"emergency"}


def test_a_database_that_cannot_be_asked_offers_nothing_and_says_nothing(
    platform: Platform, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _offered("restore", "") == _offered("holds", "remove", "") == {}
    assert _offered("--db-host", "127.0.0.1", "--db-port", "1", "policies", "set", "t").keys() == {"temp_files"}
    assert _offered("--config", "/nowhere", "apply", "") == {}
    assert capfd.readouterr() == ("", "")
    assert not platform.state.exists()


def test_what_is_named_twice_is_the_same() -> None:
    assert (DATA_TYPES, DAYS_MIN, DAYS_MAX) == (
        defaults.DATA_TYPES,
        defaults.RETENTION_DAYS_MIN,
        defaults.RETENTION_DAYS_MAX,
    )


def test_every_document_has_the_keys_that_are_documented(platform: Platform) -> None:
    run_id = platform.call("run", "--yes", "--json").document["run_id"]
    file = str(platform.ops / "operation_old.json")
    calls = [
        ("plan", "plan", "--files"),
        ("run", "run", "--yes"),
        ("restore", "restore", run_id),
        ("backups list", "backups", "list"),
        ("backups show", "backups", "show", run_id),
        ("backups verify", "backups", "verify"),
        ("backups prune", "backups", "prune", "--yes"),
        ("policies list", "policies", "list"),
        ("policies list", "policies", "set", "dbt_logs", "--days", "3"),
        ("policies list", "policies", "reset", "--yes"),
        ("holds add", "holds", "add", "**", "--reason", "x"),
        ("holds list", "holds", "list"),
        ("holds add", "holds", "remove", "1"),
        ("explain", "explain", file),
        ("stats", "--stats"),
        ("history", "history"),
        ("history --runs", "history", "--runs"),
        ("check", "check"),
        ("db upgrade", "db", "upgrade"),
    ]
    rows = {
        line.split("|")[1].split("`")[1]: line for line in _TEXT.splitlines() if re.match(r"\| `[a-z -]+`.*`", line)
    }
    for row, *arguments in calls:
        document = platform.call(*arguments, "--json").document
        assert {"command", "exit_code", "database"} <= document.keys()
        also = {"run": rows["plan"], "stats": rows["history"]}.get(row, "")
        known = set(re.findall(r"`([a-z_0-9]+)`", rows[row] + also))
        assert document.keys() - {"command", "exit_code", "database"} <= known, (row, document.keys() - known)
        for value in document.values():
            for one in cast("list[object]", value) if isinstance(value, list) else ():
                keys = cast("dict[str, object]", one).keys() if isinstance(one, dict) else set[str]()
                assert keys <= known, (row, keys - known)
