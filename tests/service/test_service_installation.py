"""Whose database it is, which schema it has, and that one live run works at a time."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from service_helpers import Platform, files, request, scan_all, whole_run
from sqlalchemy import URL

from cleanup_dagster.bootstrap import open_service
from cleanup_dagster.database import schema
from cleanup_dagster.database.errors import SchemaMismatch
from cleanup_dagster.filesystem.private import UnsafeDirectoryError
from cleanup_dagster.installation import RunLockedError, RunRefusedError

WORKER = """
import sys, time
from pathlib import Path
from service_helpers import Platform, request
from sqlalchemy import make_url
platform = Platform(Path(sys.argv[1]), make_url(sys.argv[2]) if sys.argv[2] else None, new=False)
with platform.service() as service:
    service.begin(request(run_id="at-work"))
    print("begun", flush=True)
    time.sleep(600)
"""


def at_work(platform: Platform) -> "subprocess.Popen[str]":
    """Start another process that begins a live run and stays in it."""
    platform.configure()
    url = platform.database.render_as_string(hide_password=False) if platform.database else ""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(platform.home), url],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_second_live_run_is_refused_naming_the_first_until_that_dies(either: Platform) -> None:
    either.log("a.log", 31)
    process = at_work(either)
    try:
        with pytest.raises(RunLockedError) as refused:
            either.run(run_id="second")
        said = str(refused.value)
        assert said.startswith(f"run at-work is at work: process {process.pid} on {socket.gethostname()}, started 20")
        assert said.endswith("UTC; wait for it, or end that process")
        assert files(either.logs) == {"a.log"}
        assert either.ask("SELECT run_id, status FROM cleanup_runs") == [("at-work", "running")]
        assert either.dry().plans["logs"].deletable.files == 1  # a dry run needs no lock
    finally:
        end(process)
    deadline = time.monotonic() + 10  # Postgres notices the closed connection in its own time
    while True:
        try:
            ended = either.run(run_id="third")
            break
        except RunLockedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert ended.report.status == "done"
    assert files(either.logs) == set()
    assert either.ask("SELECT status FROM cleanup_runs WHERE run_id = 'at-work'") == [("interrupted",)]


def test_a_lock_whose_process_is_gone_is_said_to_be_held_by_another(platform: Platform) -> None:
    """A worker of a killed run, say, that somebody stopped: its parent cannot be waited for, nor ended."""
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    with platform.service() as service:
        service.begin(request(run_id="at-work"))
        platform.sql(f"UPDATE cleanup_runs SET pid = {gone.pid}")  # noqa: S608
        with pytest.raises(RunLockedError, match=rf"process {gone.pid} on .* that process is gone, but another one"):
            platform.run()
        platform.sql(f"UPDATE cleanup_runs SET pid = {gone.pid}, host = 'elsewhere'")  # noqa: S608
        with pytest.raises(RunLockedError, match="wait for it, or end that process"):
            platform.run()


def test_two_hosts_that_share_a_database_exclude_each_other(postgres: Platform, tmp_path: Path) -> None:
    """Two state directories: the lock on this host cannot tell, Postgres can."""
    process = at_work(postgres)
    try:
        postgres.state = tmp_path / "other_state"
        with pytest.raises(RunLockedError, match=f"run at-work is at work: process {process.pid} on"):
            postgres.run()
    finally:
        end(process)


@pytest.mark.parametrize("step", ["back_up", "delete"])
def test_a_run_whose_lock_the_database_dropped_goes_no_further(postgres: Platform, step: str) -> None:
    """The server ended that connection, say: by then a run on another host may be at work."""
    postgres.log("a.log", 31)
    with postgres.service() as service:
        checked = scan_all(service, service.begin(request()))
        backed_up = service.back_up(checked.plans[1]) if step == "delete" else None
        postgres.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database ON oid = database"
            " WHERE locktype = 'advisory' AND datname = current_database()"
        )
        deleted = service.delete(backed_up or service.back_up(checked.plans[1]))
    assert "the database dropped the lock of live runs, so no further deletion is started" in deleted.problem
    assert files(postgres.logs) == {"a.log"}


def test_runs_of_another_state_directory_are_not_recovered(postgres: Platform, tmp_path: Path) -> None:
    with postgres.service() as service:
        service.begin(request(run_id="theirs"))
    postgres.state = tmp_path / "other_state"
    postgres.log("a.log", 31)
    ended = postgres.run()
    assert ended.run.recovered == ()
    assert files(postgres.logs) == set()
    assert postgres.ask("SELECT status FROM cleanup_runs WHERE run_id = 'theirs'") == [("running",)]


def test_a_service_that_closes_lets_go_of_the_lock(either: Platform) -> None:
    with either.service() as service:
        service.begin(request())
    with either.service() as service:
        service.begin(request())


def test_a_database_of_another_installation_refuses_live_runs_and_warns_dry_ones(
    platform: Platform, postgres_url: URL, tmp_path: Path
) -> None:
    platform.log("a.log", 31)
    platform.run(run_id="first")
    platform.log("b.log", 31)
    (tmp_path / "second").mkdir()
    other = Platform(tmp_path / "second", postgres_url)
    platform.database = other.database
    theirs = platform.ask("SELECT id FROM cleanup_installation")[0][0]
    ours = (platform.state / "installation_id").read_text()
    said = (
        f"the state directory {platform.state} belongs to installation {ours[:8]}, the database to {theirs[:8]}; "
        "set CLEANUP_DATABASE_URL to the database that was used here before, or, when it was replaced on purpose, "
        f"remove {platform.state}/installation_id"
    )
    with pytest.raises(RunRefusedError) as refused:
        platform.run()
    assert str(refused.value) == said
    assert files(platform.logs) == {"b.log"}
    assert platform.ask("SELECT count(*) FROM cleanup_runs") == [(0,)]
    dry = platform.dry()
    assert said in dry.report.problems
    assert dry.report.status == "failed"
    (platform.state / "installation_id").unlink()
    assert platform.run().report.status == "done"


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["DROP SCHEMA public CASCADE", "CREATE SCHEMA public"], "has no cleanup tables yet; run `"),
        (
            ["UPDATE cleanup_alembic_version SET version_num = '9999_future'"],
            "was made by a newer cleanup_dagster; upgrade the package on this host",
        ),
        (["DROP TABLE cleanup_holds"], "has lost its table cleanup_holds; restore it from a copy of the database"),
    ],
)
def test_a_configured_database_is_taken_as_it_is_or_refused(
    postgres: Platform, change: list[str], said: str, dry: bool
) -> None:
    postgres.log("a.log", 31)
    postgres.sql(*change)
    tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
    before = postgres.ask(tables)
    with pytest.raises(SchemaMismatch) as refused:
        postgres.run(dry=dry)
    assert said in str(refused.value)
    assert postgres.ask(tables) == before
    assert files(postgres.logs) == {"a.log"}
    assert not postgres.backups.exists()


def test_an_older_schema_is_refused(postgres: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres.log("a.log", 31)
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "0002_next"))
    with pytest.raises(SchemaMismatch, match="has the tables of an older cleanup_dagster; run `"):
        postgres.run()
    assert files(postgres.logs) == {"a.log"}


def test_a_configured_sqlite_file_that_is_not_there_is_not_made(platform: Platform, tmp_path: Path) -> None:
    missing = tmp_path / "absent.db"
    platform.database = URL.create("sqlite", database=str(missing))
    with pytest.raises(SchemaMismatch, match="has no cleanup tables yet"):
        platform.run()
    assert not missing.exists()


def test_a_state_directory_that_is_open_to_others_is_refused(platform: Platform) -> None:
    platform.log("a.log", 31)
    platform.state.mkdir()
    platform.state.chmod(0o750)
    with pytest.raises(UnsafeDirectoryError) as refused:
        platform.run()
    assert str(refused.value) == (
        f"the state directory {platform.state} has mode 0750, open to others; chmod 700 it or name another"
    )
    assert files(platform.logs) == {"a.log"}


def test_the_state_is_readable_by_its_owner_alone(platform: Platform) -> None:
    platform.log("a.log", 31)
    platform.dry()
    platform.run()
    modes = {path.stat().st_mode & 0o077 for path in (platform.state, *platform.state.rglob("*"))}
    assert modes == {0}


def test_a_long_lived_service_runs_again_and_again(platform: Platform) -> None:
    with open_service(platform.settings(), platform.clock) as service:
        for number in range(3):
            platform.log(f"{number}.log", 31)
            assert whole_run(service, request()).report.status == "done"
    assert files(platform.logs) == set()
