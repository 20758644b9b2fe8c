"""The demo as a newcomer runs it: it checks its own promises and fails when one does not hold."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cleanup_dagster import demo
from cleanup_dagster.demo_platform import Platform, make_platform


def test_the_demo_keeps_its_promises_and_clears_up(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cleanup_dagster.demo", "--directory", str(tmp_path)]
    environment = os.environ | {"COLUMNS": "80", "CLEANUP_CONFIG": "/not/read", "DBT_PROJECT_DIR": "/not/read"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything was as promised" in done.stdout
    assert "another process has it\nopen for writing" in done.stdout or sys.platform != "linux"
    assert "\x1b" not in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_whoever_reads_no_further_finds_nothing_left_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cleanup_dagster.demo", "--directory", str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=os.environ | {"COLUMNS": "80"}) as demo_run:
        assert demo_run.stdout is not None
        assert demo_run.stderr is not None
        assert demo_run.stdout.readline().startswith("A scratch platform")
        demo_run.stdout.close()
        complaints = demo_run.stderr.read()
        assert demo_run.wait(120) == 128 + signal.SIGPIPE
    assert complaints == ""
    assert list(tmp_path.iterdir()) == []


def test_a_deletion_outside_the_plan_stops_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def careless(self: demo.Demo, *, dry_run: bool) -> str:
        (self.platform.outside / "invoices.csv").unlink()
        assert dry_run
        return "no such run"

    def no_plan(self: demo.Demo, run_id: str) -> Iterator[demo.Judged]:  # noqa: ARG001 the method's signature
        return iter(())

    monkeypatch.setattr(demo.Demo, "_dagster", careless)
    monkeypatch.setattr(demo.Demo, "_plan", no_plan)
    assert demo.main(["--directory", str(tmp_path)]) == 1
    assert "this does not hold: a dry run changes nothing" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 1


def test_a_directory_that_nothing_may_be_cleaned_in_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(directory: Path) -> Platform:
        platform = make_platform(directory)
        platform.config.write_text("targets: [{name: all, kind: files, data_type: temp_files, root: /usr}]")
        return platform

    monkeypatch.setattr(demo, "make_platform", refused)
    assert demo.main(["--directory", str(tmp_path)]) == 2
    assert "'/usr' lies in the system directory /usr" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
