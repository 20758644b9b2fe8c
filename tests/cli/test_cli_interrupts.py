"""Ctrl-C while a command still loads ends it with one line, wherever in an import it comes; nothing has begun yet."""

import subprocess
import sys

import pytest
from cli_helpers import Platform

#: Presses Ctrl-C when a module is looked for, and in the callback of a weak reference, which swallows exceptions.
_CODE = """
import os, signal, sys, weakref
signal.signal(signal.SIGINT, getattr(signal, sys.argv[2]))
class Pressing:
    def find_spec(self, name, path=None, target=None):
        if name == pressed:
            going = type("Going", (), {})()
            watched = weakref.ref(going, lambda _: os.kill(os.getpid(), signal.SIGINT))
            del going
pressed = sys.argv[1]
sys.meta_path.insert(0, Pressing())
sys.argv[1:] = sys.argv[3:]
from cleanup_dagster.cli.main import main
main()
"""


def _pressed(platform: Platform, module: str, handler: str = "default_int_handler") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _CODE, module, handler, "policies", "list"],
        check=False,
        capture_output=True,
        text=True,
        env=platform.environment(),
        timeout=60,
    )


@pytest.mark.parametrize("module", ["cleanup_dagster.cli.invoking", "click", "cleanup_dagster.settings", "sqlalchemy"])
def test_ctrl_c_while_it_loads_is_one_line(platform: Platform, module: str) -> None:
    ended = _pressed(platform, module)
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr.splitlines()[-1] == "Interrupted; nothing was changed."
    assert "Traceback" not in ended.stderr
    assert not platform.state.exists()


def test_ctrl_c_is_ignored_where_whoever_started_it_wants_that(platform: Platform) -> None:
    """As a job in the background of a shell, or under nohup."""
    assert _pressed(platform, "click", "SIG_IGN").returncode == 0
