"""At a real terminal: questions, bars, colours, Ctrl-C."""

import fcntl
import io
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from cli_helpers import EXPIRED, PROGRAM, Platform, Terminal

from cleanup_dagster.cli.describing import show_problems
from cleanup_dagster.cli.drawing import drawing
from cleanup_dagster.cli.executing import Watch
from cleanup_dagster.cli.output import Output, Stream
from cleanup_dagster.cli.pages import Page
from cleanup_dagster.collectors import deletion

_SECONDS = 60
#: Takes the terminal, and hears Ctrl-C even where the tests themselves run in a shell's background, which does not.
_AT_TERMINAL = """
import fcntl, os, signal, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""

_IN_SMALL_BATCHES = """
from cleanup_dagster.backups.files import FileBackups
from cleanup_dagster.cli.main import main
FileBackups.batch_files = 8
main()
"""


class Screen:
    """A command at a terminal of 80 columns, and everything that it showed."""

    def __init__(self, master: int, process: "subprocess.Popen[bytes]") -> None:
        self.shown = ""
        self.process = process
        self._master = master

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, pattern: str) -> None:
        """Read until something was shown. Fails when it was not, in time."""
        ends = time.monotonic() + _SECONDS
        while not re.search(pattern, self.shown):
            assert time.monotonic() < ends, self.shown
            assert self._read(), self.shown

    def wait_until_it_waits(self) -> None:
        """Wait until the command does: a question is on the screen an instant before its answer is read."""
        while psutil.Process(self.process.pid).status() != psutil.STATUS_SLEEPING:
            time.sleep(0.01)

    def end(self) -> int:
        """Read to the end, and return the exit code."""
        while self._read():
            pass
        return self.process.wait(timeout=_SECONDS)

    def hang_up(self) -> None:
        """Let go of the terminal, as a connection does that is lost: the command hears SIGHUP."""
        os.close(self._master)
        self._master = -1

    def close(self) -> None:
        """End the command, whatever it is doing."""
        self.process.kill()
        self.process.wait(timeout=_SECONDS)
        if self._master >= 0:
            os.close(self._master)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], _SECONDS)
        try:
            more = os.read(self._master, 65536) if ready else b""
        except OSError:  # what Linux says when the last one let go of a terminal
            more = b""
        self.shown += more.decode(errors="replace")
        return bool(more)


@contextmanager
def _terminal(platform: Platform, *arguments: str, program: str = PROGRAM, **environment: str) -> Generator[Screen]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", _AT_TERMINAL, program, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=platform.environment() | environment,
    )
    os.close(slave)
    screen = Screen(master, process)
    try:
        yield screen
    finally:
        screen.close()


def test_a_run_asks_draws_and_deletes(platform: Platform) -> None:
    with _terminal(platform, "run") as screen:
        screen.wait_for(r"Delete 4 files\? Each is backed up first \[y/N\]: ")
        assert platform.files() >= EXPIRED
        screen.type("y\n")
        assert screen.end() == 0
    assert not platform.files() & EXPIRED
    plain = _plain(screen.shown)
    for bar in ("Scan operations", "Scan dbt_logs", "Back up operations", "Delete operations", "Delete dbt_logs"):
        assert re.search(rf"{bar} +━+ +[0-9].*00:00", plain), (bar, plain)
    assert "Traceback" not in screen.shown
    assert screen.shown.rindex("\x1b[?25h") > screen.shown.rindex("\x1b[?25l")  # the cursor is back


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_left_out_on_request(platform: Platform, environment: dict[str, str], *, coloured: bool) -> None:
    with _terminal(platform, "policies", "list", **environment) as screen:
        assert screen.end() == 0
    assert ("\x1b[" in screen.shown) == coloured


def test_what_is_shown_fits_80_columns(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    platform.call("run", "--yes")
    platform.operation("again", 300)
    platform.call("holds", "add", "**", "--reason", "a reason that takes so many words that it cannot fit " * 2)
    for command in (
        "policies list",
        "stats",
        "history",
        "history --runs",
        "backups list",
        "plan",
        "check",
        "holds list",
    ):
        ended = platform.call(*command.split(), answer="")
        assert ended.code == 0, ended
        for line in _plain(ended.out + ended.err).splitlines():
            assert len(line) <= 80 or str(platform.home) in line or "cleanup-operations" in line, line


def test_bars_of_millions_fit_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 1_000_000, 20))
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    stderr = Terminal()
    with drawing(Output(io.StringIO(), stderr, as_json=False)) as shown:
        shown.begin("judged", "x" * 60, 0, "files")(9_999_999)
        shown.begin("judged", "dagster_runs", 0, "runs")(1)
        for done, subject in (("backed up", "y" * 60), ("deleted", "operations")):
            shown.begin(done, subject, 10_000_000, "files")(9_999_999)
    lines = _plain(stderr.getvalue()).splitlines()
    assert max(map(len, lines)) <= 80
    for wanted in (
        r"Scan x+\.\.\. +\S+ +9,999,999 files +[45][09]{2},[09]{3}/s",
        r"Scan dagster_runs +\S+ +1 run ",
        r"Back up y+\.\.\. +\S+ +9,999,999 of 10,000,000 +[45][09]{2},[09]{3}/s",
        r"Delete operations +\S+ +9,999,999 of 10,000,000 +[45][09]{2},[09]{3}/s",
    ):
        assert re.search(wanted, "\n".join(lines)), lines


def test_ctrl_c_at_a_question_changes_nothing(platform: Platform) -> None:
    before = platform.everything()
    with _terminal(platform, "run") as screen:
        screen.wait_for(r"\[y/N\]: ")
        screen.wait_until_it_waits()
        screen.type("\x03")
        assert screen.end() == 130
    assert "Interrupted; nothing was changed." in screen.shown
    assert platform.everything() == before


def _plain(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)


def _many(platform: Platform, number: int) -> None:
    limits = {"free_space_reserve": 0, "allow_volatile_backup": True, "max_share": 1.0}
    platform.configure(limits=limits)
    for each in range(number):
        platform.operation(f"many{each:04}", 200)


def _words(screen: Screen) -> str:
    return " ".join(_plain(screen.shown).split())


def test_ctrl_c_stops_between_batches_and_says_what_was_done(platform: Platform) -> None:
    _many(platform, 1_000)
    small = platform.home / "in-small-batches"  # so that there is time to press it before the last
    small.write_text(f"#!{sys.executable}\n{_IN_SMALL_BATCHES}")
    small.chmod(0o700)
    with _terminal(platform, "run", "--yes", program=str(small)) as screen:
        screen.wait_for(r"Back up operations[^\n]* [1-9][0-9,]* of 1,00")
        screen.type("\x03")
        assert screen.end() == 130
    said = _words(screen)
    assert "Stopping at the next safe point; what is in hand is finished first." in said
    assert "Interrupted at a safe point (" in said
    assert "What was not deleted is untouched and comes up again in the next run." in said
    assert "Traceback" not in said
    assert platform.ask("SELECT status, deleted_files FROM cleanup_runs") == [("failed", 0)]
    assert len(list(platform.ops.glob("operation_*.json"))) == 1_005
    assert not list(platform.backups.glob("operation_*.backup"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_during_deletion_settles_the_batch_in_hand(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    _many(platform, 400)
    monkeypatch.setattr(deletion, "BATCH", 128)
    begin = Watch.begin

    def stopped_after_one_batch(self: Watch, done: str, subject: str, of: int, what: str) -> Callable[[int], None]:
        report = begin(self, done, subject, of, what)

        def batch(more: int) -> None:
            if done == "deleted" and more:
                os.kill(os.getpid(), number)
                ends = time.monotonic() + _SECONDS
                while not self.stopping() and time.monotonic() < ends:
                    time.sleep(0.01)
            report(more)

        return batch

    monkeypatch.setattr(Watch, "begin", stopped_after_one_batch)
    before = signal.signal(number, signal.SIG_DFL)  # which may be to ignore it: then a run ignores it, too
    try:
        ended = platform.call("run", "--yes", "--json")
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert (ended.code, ended.document["exit_code"]) == (130, 130)
    assert (ended.document["deleted"]["files"], ended.document["pruned"]["files"]) == (128, 0)
    assert ended.document["problems"][0].startswith("operations: the run was told to stop; it stopped there; what was")
    monkeypatch.undo()
    assert len(list(platform.ops.glob("operation_*.json"))) == 405 - 128
    assert not list(platform.ops.glob(".cleanup-q-*"))
    monkeypatch.setenv("CLEANUP_CONFIG", str(platform.config))
    again = platform.call("run", "--yes", "--json").document
    assert (again["recovered"], again["deleted"]["files"]) == ([], 404 - 128)


def test_what_many_targets_met_is_said_once() -> None:
    written = io.StringIO()
    show_problems(
        Page(Stream(written)), ("a: the run was told to stop", "b: gone", "no subject", "c: the run was told to stop")
    )
    assert written.getvalue().split("\n")[2:-1] == ["  a, c: the run was told to stop", "  b: gone", "  no subject"]


def test_a_terminal_that_goes_away_stops_a_run_at_a_safe_point(platform: Platform) -> None:
    _many(platform, 1_000)
    with _terminal(platform, "run", "--yes") as screen:
        screen.wait_for(r"Back up operations[^\n]* [1-9][0-9,]* of 1,00")
        screen.hang_up()
        assert screen.process.wait(timeout=_SECONDS) == 130
    assert platform.ask("SELECT status FROM cleanup_runs") == [("failed",)]
    assert len(list(platform.ops.glob("operation_*.json"))) == 1_005
    assert not list(platform.backups.glob("operation_*.backup"))


def test_a_second_ctrl_c_ends_at_once_and_the_next_run_settles(
    platform: Platform,
) -> None:
    _many(platform, 1_000)
    with _terminal(platform, "run", "--yes") as screen:
        screen.wait_for(r"Back up operations[^\n]* [1-9][0-9,]* of 1,00")
        screen.process.send_signal(signal.SIGINT)
        screen.process.send_signal(signal.SIGTERM)
        assert screen.end() == 130
    if "Ended at once." in screen.shown:  # else it had stopped in time
        document = platform.call("run", "--yes", "--json").document
        assert "had been interrupted; it is settled" in document["recovered"][0]
    assert platform.call("check").code == 0


def test_ctrl_c_stops_a_restore_and_it_goes_on_later(platform: Platform) -> None:
    _many(platform, 4_000)
    run_id = platform.call("run", "--yes", "--json").document["run_id"]
    with _terminal(platform, "restore", run_id) as screen:
        screen.wait_for(r"Restore[^\n]* [1-9][0-9,]* of 4,00")
        screen.type("\x03")
        assert screen.end() == 130
    assert re.search(r"Interrupted at a safe point after [0-9,]+ files of the restore; start it again", _words(screen))
    back = len(list(platform.ops.glob("operation_many*.json")))
    assert platform.call("restore", run_id).code == 0
    assert back <= len(list(platform.ops.glob("operation_many*.json"))) == 4_000


@pytest.mark.parametrize(
    ("shell", "options", "prepare"),
    [
        ("bash", ("--norc", "-i"), 'eval "$(_CLEANUP_OPERATIONS_COMPLETE=bash_source cleanup-operations)"'),
        (
            "zsh",
            ("-f", "-i"),
            'autoload -U compinit; compinit -u; eval "$(_CLEANUP_OPERATIONS_COMPLETE=zsh_source cleanup-operations)"',
        ),
        (
            "fish",
            ("--no-config", "-i"),
            "_CLEANUP_OPERATIONS_COMPLETE=fish_source cleanup-operations | source",
        ),
    ],
    ids=["bash", "zsh", "fish"],
)
def test_a_shell_completes_what_is_half_typed(
    platform: Platform, shell: str, options: tuple[str, ...], prepare: str
) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    path = f"{Path(PROGRAM).parent}{os.pathsep}{os.environ['PATH']}"
    with _terminal(platform, *options, program=program, PATH=path, TERM="dumb", HOME=str(platform.home)) as screen:
        screen.type(f"{prepare}; echo prepar''ed\n")
        screen.wait_for("prepared")
        screen.type("cleanup-operations policies set db\t")
        screen.wait_for("dbt_logs")
        screen.type("--days 9\n")
        screen.wait_for("9 days")
        screen.type("exit\n")
        screen.end()
    assert platform.ask("SELECT retention_days FROM cleanup_policies WHERE data_type = 'dbt_logs'") == [(9,)]
