"""`serve`: where the page is, how to log in the first time, and what stands in the way, before anything listens."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator

import httpx
import pytest
from cli_helpers import PROGRAM, Platform

#: Hears Ctrl-C even where the tests themselves run in a shell's background, which does not.
_HEARING = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"


@pytest.fixture
def taken() -> Generator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_it_says_where_it_is_and_ends_on_ctrl_c(platform: Platform) -> None:
    url = f"http://127.0.0.1:{(port := _free_port())}"
    process = subprocess.Popen(
        [sys.executable, "-c", _HEARING, PROGRAM, "serve", "--port", str(port), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=platform.environment(),
    )
    try:
        assert process.stdout is not None
        printed = ""
        while not printed.endswith("}\n"):
            line = process.stdout.readline()
            assert line, printed
            printed += line
        document = json.loads(printed)
        assert (document["command"], document["url"]) == ("serve", f"{url}/pipeline-management")
        assert document["login_url"].startswith(f"{url}/login#token=")
        assert httpx.get(f"{url}/api/cleanup/stats", timeout=30).status_code == 401
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert err.endswith("Interrupted; the page is not served any more.\n")
    assert document["login_url"].split("=")[1] not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--port", "0"), "0 is not in the range 1<=x<=65535."),
        (("--host", ""), "--host is empty; give a value, or leave the option out"),
    ],
)
def test_an_address_that_is_none_is_usage(platform: Platform, arguments: tuple[str, ...], message: str) -> None:
    ended = platform.call("serve", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert not platform.state.exists()


def test_what_stands_in_the_way_is_said_before_the_tokens_are_made(platform: Platform, taken: int) -> None:
    reachable = platform.call("serve", "--host", "0.0.0.0")  # noqa: S104
    busy = platform.call("serve", "--port", str(taken))
    assert reachable.code == busy.code == 4
    assert "set a token of your own in CLEANUP_WEB_OPERATOR_TOKEN" in reachable.err
    assert f"127.0.0.1:{taken} cannot be listened on: Address already in use; choose another with --port" in busy.err
    assert not (platform.state / "web_tokens.json").exists()  # the login link was not shown yet


def test_a_database_that_does_not_answer_is_waited_for_and_then_told(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEANUP_DATABASE_WAIT_SECONDS", "1")
    ended = platform.call("serve", "--db-host", "127.0.0.1", "--db-port", "1", "--json")
    assert ended.code == ended.document["exit_code"] == 4
    assert "nothing answers for the Postgres database 'dagster' at 127.0.0.1:1" in ended.document["error"]
    assert "CLEANUP_DB_HOST" not in os.environ
