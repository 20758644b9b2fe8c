"""Whatever is typed: no traceback, a documented exit code, one document with --json, and nothing is touched."""

import json
from collections.abc import Iterator
from typing import Any

import click
import pytest
from cli_helpers import Platform
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from cleanup_dagster.cli import executing, exits
from cleanup_dagster.cli.app import root
from cleanup_dagster.orchestration.launching import Launched

CODES = {code for code, _ in exits.EXIT_CODES}
ODD = (
    "", " ", "-", "--", "0", "-1", "1", "3", "1.5", "1e9", "36500", "36501", "99999999999999999999", "٣", "NaN", "null",
    "dbt_logs", "temp_files", "nonsense", "automatic", "emergency", "AUTOMATIC", "list", "2026-12-31", "2999-01-01",
    "2999-13-41", "11111111", "11", "%", "_", "*", "**", "[", "[!", "{a,b}", "\\", "\\u000a", "/", "//", ".", "..", "~",
    "/etc/passwd", "/dev/zero", "/nowhere", "a/../../b", "é", "\udcff", "\x1b[31m", "a\nb", "\u202e", "😀", "x" * 5000,
    "'; DROP TABLE cleanup_policies; --", "{ops}", "{ops}/operation_old.json", "{ops}/*", "{dbt}/**", "{config}",
)  # fmt: skip
#: Values for these lead to other machines; each of them is refused at once.
HOSTS = ("127.0.0.1", "/nowhere", "")


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = [found for found in _commands(root) if found[0] != ("serve",)]  # would listen for ever


@st.composite
def _typed(draw: st.DrawFn) -> list[str]:
    path, command = draw(st.sampled_from(COMMANDS))
    odd = st.one_of(st.sampled_from(ODD), st.text(st.characters(exclude_characters="\0"), max_size=12))
    words: list[str] = []
    options = [p for p in command.params if isinstance(p, click.Option)]
    for option in draw(st.lists(st.sampled_from(options), max_size=4)) if options else ():
        words.append(draw(st.sampled_from([*option.opts, *option.secondary_opts])))
        if not option.is_flag:
            hosts = st.sampled_from(HOSTS) if option.name == "db_host" else odd
            words.append(draw(hosts))
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    words += draw(st.lists(odd, min_size=len(arguments), max_size=len(arguments) + 1))
    if draw(st.booleans()):
        words.append("--json")
    return [*path, *(draw(st.permutations(words)) if draw(st.booleans()) else words)]


@pytest.fixture
def launched(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Instead of executing a job, note what it was asked for."""
    asked: list[dict[str, Any]] = []

    def launch(_settings: object, _job: str, config: dict[str, Any], _run_id: str, _watch: object) -> Launched:
        asked.append(config)
        return Launched(success=False, failure="nothing is executed here")

    monkeypatch.setattr(executing, "_launch", launch)
    monkeypatch.setenv("CLEANUP_DB_PORT", "")
    platform.call("policies", "list")
    return asked


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(typed=_typed())
def test_whatever_is_typed(platform: Platform, launched: list[dict[str, Any]], typed: list[str]) -> None:
    places = {"{ops}": str(platform.ops), "{dbt}": str(platform.dbt), "{config}": str(platform.config)}
    for short, full in places.items():
        typed = [word.replace(short, full) for word in typed]
    rows = "SELECT * FROM cleanup_policies", "SELECT * FROM cleanup_holds", "SELECT * FROM cleanup_runs"
    before = platform.everything(), [platform.ask(query) for query in rows]
    del launched[:]
    ended = platform.call(*typed)
    event(f"exit code {ended.code}")
    assert ended.code in CODES
    assert "Traceback" not in ended.err
    assert not [character for character in ended.err + ended.out if not character.isprintable() and character != "\n"]
    after = platform.everything(), [platform.ask(query) for query in rows]
    assert after[0] == before[0]
    assert ended.code in {0, 1} or after == before
    for config in launched:
        assert config["dry_run"] or {"--yes", "automatic", "restore"} & set(typed)
    if "--json" in typed and not {"-h", "--help", "-V", "--version"} & set(typed):
        assert json.loads(ended.out)["exit_code"] == ended.code
