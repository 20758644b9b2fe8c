"""Real processes on a small platform: started in groups of their own, and ended as groups, whatever a test does."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from two_roots import TwoRoots

PROJECT = Path(__file__).parents[2]
_BIN = Path(sys.executable).parent
_GRACE_SECONDS = 10
#: For a `dagster.yaml`: the daemon looks for queued runs every second, not every five.
QUEUE = """run_coordinator:
  module: dagster._core.run_coordinator.queued_run_coordinator
  class: QueuedRunCoordinator
  config: {dequeue_interval_seconds: 1}
"""
EXPIRED = frozenset({"operation_old.json", "operation_crashed.json", "dbt.log.9"})
KEPT = frozenset({"operation_new.json", "dbt.log.0"})


class Platform(TwoRoots):
    """Two roots with expired and fresh files, their `cleanup.yaml`, and a DAGSTER_HOME."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.dagster_home = home / "dagster"
        self.dagster_home.mkdir()
        (self.dagster_home / "dagster.yaml").write_text(f"telemetry: {{enabled: false}}\n{QUEUE}", encoding="utf-8")
        self.extra: dict[str, str] = {}
        self.refill()
        self.put(self.ops / "operation_new.json", '{"status": "completed"}', days=5)
        self.put(self.dbt / "dbt.log.0", "fresh\n", days=0)
        self.configure()

    def refill(self) -> None:
        """Put three expired files where they can be found."""
        self.put(self.ops / "operation_old.json", f'{{"status": "completed", "at": {time.time_ns()}}}', days=120)
        self.put(self.ops / "operation_crashed.json", f'{{"status": "error", "at": {time.time_ns()}}}', days=20)
        self.put(self.dbt / "dbt.log.9", f"ran at {time.time_ns()}\n", days=9)

    def take_dagster_yaml(self) -> None:
        """Configure the instance as the deployment does, but for how often the daemon looks for queued runs."""
        ours = (PROJECT / "dagster.yaml").read_text(encoding="utf-8")
        (self.dagster_home / "dagster.yaml").write_text(f"{ours}\n{QUEUE}", encoding="utf-8")

    def run_config(self, **config: Any) -> Path:
        """Return a file for `-c`."""
        path = self.home / "run.yaml"
        path.write_text(json.dumps(config), encoding="utf-8")
        return path

    @property
    def files(self) -> set[str]:
        """The names of what both roots hold."""
        return {path.name for root in (self.ops, self.dbt) for path in root.iterdir()}

    @property
    def environment(self) -> Mapping[str, str]:
        """All that a process of this platform knows; nothing of the shell that runs the tests."""
        return {
            "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "LOGNAME": "platform",
            "DAGSTER_HOME": str(self.dagster_home),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "CLEANUP_CONFIG": str(self.config),
            **self.extra,
        }

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Return the answer of the embedded database."""
        with closing(sqlite3.connect(self.state / "cleanup.db")) as conn:
            return conn.execute(query).fetchall()


class Finished:
    """A process that ended: its return code and everything it said."""

    def __init__(self, returncode: int, output: str) -> None:
        self.returncode = returncode
        self.output = output


def run(platform: Platform, *command: str | Path, timeout: float = 120) -> Finished:
    """Run a command of the virtual environment in the project's directory until it ends."""
    with started(platform, *command) as (process, log):
        process.wait(timeout)
        return Finished(process.returncode, log.read_text(encoding="utf-8"))


@contextmanager
def started(platform: Platform, *command: str | Path) -> "Generator[tuple[subprocess.Popen[bytes], Path]]":
    """Start a command as the head of its own process group, and yield it with its log. At the end the group is gone."""
    program, *arguments = map(str, command)
    log = platform.home / f"{program}_{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(_BIN / program), *arguments],
            cwd=PROJECT,
            env=platform.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process, log
    finally:
        _end(process)


def ask_to_end(*processes: "subprocess.Popen[bytes]") -> None:
    """Ask groups to end that would otherwise be asked one after the other: Dagster's take seconds each."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask the whole group to end, and after a grace period make it."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        if _gone(process):
            return
    raise AssertionError(f"{process.args!r} left processes behind")


def _gone(process: "subprocess.Popen[bytes]") -> bool:
    for _ in range(_GRACE_SECONDS * 20):
        process.poll()  # else the head stays a zombie of the group
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def eventually(what: str, condition: Callable[[], object], seconds: float, every: float = 0.2) -> None:
    """Wait until a condition holds. Raises AssertionError, naming it, when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} seconds: {what}")
        time.sleep(every)


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
