"""Who does nothing any more is told from who is slow, waits, or was suspended along with who looks."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator

import pytest

from cleanup_dagster import stuck
from cleanup_dagster.stuck import Watch, signs_of_life

pytestmark = pytest.mark.skipif(not signs_of_life(os.getpid()) and sys.platform != "linux", reason="needs Linux")

#: Does next to nothing, but does it: a worker that waits for its parent is told something twice a second.
SLOW = "import time, sys\nprint(flush=True)\nwhile True: time.sleep(0.05)"


@pytest.fixture
def slow() -> Generator[int]:
    with subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stuck, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(stuck, "_LOOK_SECONDS", 0.2)


def stuck_within(watch: Watch, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if watch.is_stuck():
            return True
        time.sleep(0.02)
    return False


def test_who_is_slow_is_not_stuck_and_who_was_stopped_is(slow: int) -> None:
    watch = Watch(slow)
    assert not stuck_within(watch, 2.5)
    os.kill(slow, signal.SIGSTOP)
    assert stuck_within(watch, 30)


def test_who_goes_on_is_given_all_the_time_again(slow: int) -> None:
    watch = Watch(slow)
    os.kill(slow, signal.SIGSTOP)
    assert not stuck_within(watch, 0.6)
    os.kill(slow, signal.SIGCONT)
    assert not stuck_within(watch, 1.5)


def test_time_in_which_nobody_looked_does_not_count(slow: int) -> None:
    """The host was suspended, or the database hung, say."""
    watch = Watch(slow)
    os.kill(slow, signal.SIGSTOP)
    time.sleep(0.3)
    assert not watch.is_stuck()
    time.sleep(1.5)
    assert not watch.is_stuck()


def test_of_a_process_that_is_gone_nothing_is_said() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        assert signs_of_life(process.pid) is None
        assert not stuck_within(Watch(process.pid), 1.5)


@pytest.mark.parametrize("state", ["D", "R"])
def test_who_waits_for_a_disk_or_the_processor_is_not_stuck(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    true = stuck.Path.read_text

    def said(path: stuck.Path, **how: str) -> str:
        return f"1 (a) b) {state} 0 0" if path.name == "stat" else true(path, **how)

    monkeypatch.setattr(stuck.Path, "read_text", said)
    assert signs_of_life(os.getpid()) is None
