"""Large targets are carried out by worker processes: the end is the same, and one that dies fails its target alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, TimeoutError  # noqa: A004  another one before Python 3.11
from contextlib import suppress
from multiprocessing.connection import Pipe
from pathlib import Path

import pytest
from service_helpers import MANUAL, Ended, Platform, files, left_behind, request, scan_all

from cleanup_dagster import applying, planning, stuck, workers
from cleanup_dagster.backups import manifest
from cleanup_dagster.backups.files import open_file_backups
from cleanup_dagster.backups.manifest import read_header, read_manifest
from cleanup_dagster.carrying import DeleteTask
from cleanup_dagster.collectors import deletion
from cleanup_dagster.handles import BackedUp, Plan
from cleanup_dagster.installation import Progress, RunLockedError
from cleanup_dagster.judging import JudgeTask
from cleanup_dagster.retention.models import Receipt, State, Verdict
from cleanup_dagster.workers import Channel, Handle, Job, StoppedError, WorkerError, run_shards

#: So many that each of two workers has several batches to delete, and several frames of the plan to take them from.
_MANY, _BATCH, _FRAME = 1_600, 32, 200


@pytest.fixture
def large(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A platform whose few files count as many."""
    monkeypatch.setattr(planning, "WORTH_WORKERS", 10)
    monkeypatch.setattr(applying, "WORTH_WORKERS", 10)
    platform.config["workers"] = 2
    for number in range(30):
        platform.log(f"{number % 3}/{number}.log", 31 if number % 2 else 1)
        platform.operation(str(number), 91 if number % 2 else 1)
    return platform


@pytest.fixture
def many(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A platform whose logs are enough for several batches in each of two workers."""
    monkeypatch.setattr(manifest, "_ROWS_PER_FRAME", _FRAME)
    monkeypatch.setattr(deletion, "BATCH", _BATCH)
    monkeypatch.setattr(applying, "WORTH_WORKERS", 10)
    platform.config["workers"] = 2
    platform.target("logs")["format"] = "archive"
    for number in range(_MANY):
        platform.log(f"{number % 9}/{number}.log", 31)
    return platform


def verdicts(plan: Plan) -> dict[str, bool]:
    assert plan.manifest is not None
    rows = read_manifest(Path(plan.manifest.path), Verdict)
    return {verdict.candidate.path: verdict.delete for verdict in rows}


def test_workers_judge_as_one_process_does(large: Platform) -> None:
    by_workers = large.dry().plans
    large.config["workers"] = 1
    by_one = large.dry().plans
    for name, plan in by_one.items():
        assert verdicts(by_workers[name]) == verdicts(plan)
        assert by_workers[name].expired == plan.expired
        assert by_workers[name].kept == plan.kept
        assert plan.deletable.files == 15


@pytest.mark.parametrize("kind", ["files", "archive"])
def test_workers_back_up_and_delete_as_one_process_does(large: Platform, kind: str) -> None:
    large.target("logs")["format"] = kind
    ended = large.run()
    assert ended.report.status == "done"
    assert len(files(large.logs)) == len(files(large.operations)) == 15
    assert ended.report.counts["system_logs"].deleted.files == 15
    receipts = receipts_of(large, ended.run.request.run_id)
    assert len(receipts) == len({receipt.number for receipt in receipts}) == 15
    assert_sound(large, ended.run.request.run_id)
    assert left_behind(large.home) == []
    log = Path(ended.report.log).read_text()
    for receipt in receipts:
        assert f"deleted  {large.logs}/{receipt.path}  backup {receipt.backup}\n" in log


def receipts_of(platform: Platform, run_id: str) -> list[Receipt]:
    return list(read_manifest(platform.state / f"manifests/{run_id}/logs.receipts.jsonl.zst", Receipt))


def assert_sound(platform: Platform, run_id: str) -> None:
    with open_file_backups(platform.backups, "reader") as store:
        for receipt in receipts_of(platform, run_id):
            assert store.problem(receipt) is None


def test_both_workers_take_their_share(many: Platform) -> None:
    ended = many.run()
    assert ended.report.status == "done", ended.problems
    assert files(many.logs) == set()
    manifests = many.state / "manifests" / ended.run.request.run_id
    parts = sorted(manifests.glob("logs.outcomes*"))
    assert [read_header(path).part.of for path in parts] == [2, 2]
    assert len({receipt.number for receipt in receipts_of(many, ended.run.request.run_id)}) == _MANY
    assert_sound(many, ended.run.request.run_id)
    assert left_behind(many.home) == []
    assert list(manifests.glob("*.zst.?")) == []


def test_a_worker_that_dies_fails_its_target_and_the_others_go_on(
    large: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = planning.run_shards

    def dying(jobs: Sequence[Job], progress: Callable[[int], None]) -> list[object]:
        task = jobs[0].task
        assert isinstance(task, JudgeTask)
        if task.header.target == "logs":
            return [WorkerError("a worker process died (signal 9)") for _ in jobs]
        return true(jobs, progress)

    monkeypatch.setattr(planning, "run_shards", dying)
    ended = large.run()
    assert ended.report.status == "failed"
    assert ended.report.problems == ("logs: a worker process died (signal 9)",)
    assert len(files(large.logs)) == 30
    assert len(files(large.operations)) == 15


def children() -> list[int]:
    """Return the worker processes of this one."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread that ends just now
            found += map(int, (task / "children").read_text().split())
    return [pid for pid in found if b"cleanup_dagster.worker" in command_line(pid)]


def command_line(pid: int) -> bytes:
    """Return what a process was started by, nothing when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def at_work_on_an_archive(over: int) -> int | None:
    """Return the worker that has written more than so many bytes of its archive and not closed it yet."""
    for pid in children():
        with suppress(OSError):  # it ends just now
            for link in Path(f"/proc/{pid}/fd").iterdir():
                if link.readlink().name.endswith(".tar.zst") and link.stat().st_size > over:
                    return pid
    return None


class Striker:
    """Sends a worker a signal in a stage.

    It gets it as it starts, so that it cannot be done before it notices. SIGKILL it gets in the middle of the work: of
    its archive, or once a batch of deletions was reported.
    """

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._stage, self._sign, self._at_once = "", signal.SIGKILL, False
        self.struck: list[int] = []

    def arm(self, stage: str, sign: signal.Signals) -> None:
        self._stage, self._sign, self._at_once = stage, sign, stage == "judge" or sign == signal.SIGSTOP

    def starts(self, job: Job) -> None:
        if job.stage == self._stage and not self.struck:
            if self._at_once:
                while not (alive := children()):  # it has no command line yet for a moment after its start
                    time.sleep(0.001)
                self._strike(alive[0])
            elif job.stage == "back_up":
                self._threads.submit(self._in_mid_archive)

    def reports(self, stage: str, count: int) -> None:
        if count and stage == self._stage == "delete" and not self.struck and (alive := children()):
            self._strike(alive[0])

    def _in_mid_archive(self) -> None:
        deadline = time.monotonic() + 60
        while not self.struck and time.monotonic() < deadline:
            if (pid := at_work_on_an_archive(1 << 20)) is not None:
                self._strike(pid)

    def _strike(self, pid: int) -> None:
        self.struck.append(pid)
        os.kill(pid, self._sign)


@pytest.fixture
def striking(monkeypatch: pytest.MonkeyPatch) -> Generator[Striker]:
    true, tell = run_shards, Handle.tell
    with ThreadPoolExecutor(1) as threads:
        striker = Striker(threads)

        def run(jobs: Sequence[Job], progress: Callable[[int], None], *others: object) -> list[object]:
            def report(count: int) -> None:
                striker.reports(jobs[0].stage, count)
                progress(count)

            return true(jobs, report, *others)  # type: ignore[arg-type]

        def told(self: Handle, message: object) -> None:
            if isinstance(message, Job):
                striker.starts(message)
            tell(self, message)

        monkeypatch.setattr(applying, "run_shards", run)
        monkeypatch.setattr(Handle, "tell", told)
        yield striker
    assert len(striker.struck) == 1
    assert children() == []


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds in which a worker does nothing are enough."""
    monkeypatch.setattr(stuck, "PATIENCE_SECONDS", 2.0)
    monkeypatch.setattr(stuck, "_LOOK_SECONDS", 0.2)


ENDS = [(signal.SIGKILL, "a worker process died (SIGKILL)"), (signal.SIGSTOP, "a worker process did nothing for ")]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("sign", "said"), ENDS)
def test_a_worker_that_dies_or_hangs_in_judging_fails_its_target(
    many: Platform, striking: Striker, sign: signal.Signals, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "WORTH_WORKERS", 10)
    striking.arm("judge", sign)
    ended = many.run()
    (problem,) = ended.report.problems
    assert said in problem
    assert len(files(many.logs)) == _MANY
    assert left_behind(many.home) == []
    assert many.run().report.status == "done"
    assert files(many.logs) == set()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("sign", "said"), ENDS)
def test_a_worker_killed_in_its_back_up_deletes_nothing(
    many: Platform, striking: Striker, sign: signal.Signals, said: str
) -> None:
    large = many.log("0/0.log", 31)
    large.write_bytes(os.urandom(64 << 20))  # so that there is a middle of the archive
    os.utime(large, (0, 0))
    striking.arm("back_up", sign)
    ended = many.run()
    (problem,) = ended.report.problems
    assert said in problem
    assert problem.endswith("; nothing of it was deleted")
    assert len(files(many.logs)) == _MANY
    assert {path for path in files(many.backups) if not path.startswith("cleanup_")} == set()
    assert left_behind(many.home) == []
    assert list((many.state / "manifests" / ended.run.request.run_id).glob("*receipts*")) == []


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("sign", "said"), ENDS)
def test_a_worker_killed_in_its_deletion_is_accounted_for_file_by_file(
    many: Platform, striking: Striker, sign: signal.Signals, said: str
) -> None:
    striking.arm("delete", sign)
    ended = many.run()
    assert len(ended.report.problems) == 1
    assert said in ended.report.problems[0]
    assert "; it stopped there; what was left is untouched" in ended.report.problems[0]
    assert_accounted_for(many, ended)
    following = many.run()
    assert following.report.status == "done"
    assert files(many.logs) == set()


def assert_accounted_for(platform: Platform, ended: Ended) -> None:
    """Every file is in its place or counted as deleted, and whatever is gone has a sound backup."""
    left = files(platform.logs)
    deleted = ended.report.counts["system_logs"].states[State.DELETED].files
    assert 0 < deleted < _MANY
    assert deleted + len(left) == _MANY
    assert left_behind(platform.home) == []
    named = {receipt.path for receipt in receipts_of(platform, ended.run.request.run_id)}
    assert len(named) == _MANY
    assert_sound(platform, ended.run.request.run_id)


RUN = """
import sys
from pathlib import Path
sys.path[:0] = [{helpers!r}]
from cleanup_dagster import applying
from cleanup_dagster.backups import manifest
from cleanup_dagster.collectors import deletion
from service_helpers import Platform, request
applying.WORTH_WORKERS, manifest._ROWS_PER_FRAME, deletion.BATCH = 10, {frame}, {batch}
platform = Platform(Path({home!r}), new=False)
def tell(count):
    if count: print("batch", flush=True)
with platform.service() as service:
    run = service.begin(request(run_id="killed"))
    checked = service.check(run, [service.scan(run, target) for target in run.targets])
    for plan in checked.plans:
        service.delete(service.back_up(plan), tell)
    print("ended", flush=True)
"""


def test_the_parent_killed_in_mid_deletion_takes_its_workers_along_and_the_next_run_settles_both_parts(
    many: Platform,
) -> None:
    many.configure()
    code = RUN.format(helpers=str(Path(__file__).parent), home=str(many.home), frame=_FRAME, batch=_BATCH)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "batch\n"
        process.kill()
    before = len(files(many.logs))
    assert 0 < before < _MANY
    deadline = time.monotonic() + 30
    while True:  # the workers hold the lock for as long as they are at work
        try:
            ended = many.run()
            break
        except RunLockedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    (said,) = ended.run.recovered
    assert said.startswith("run killed had been interrupted; it is settled, with ")
    audited = many.ask("SELECT SUM(records_deleted) FROM cleanup_audit WHERE data_type = 'system_logs'")
    assert audited == [(_MANY,)]
    assert files(many.logs) == set()
    assert left_behind(many.home) == []
    with open_file_backups(many.backups, "reader") as store:
        for receipt in read_manifest(many.state / "manifests/killed/logs.receipts.jsonl.zst", Receipt):
            if store.problem(receipt) is not None:
                raise AssertionError(receipt.path)


def test_a_hold_placed_while_workers_delete_reaches_them(many: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    placed = False

    def place(count: int) -> None:
        nonlocal placed
        if count and not placed:
            placed = True
            many.hold(f"{many.logs}/**")
            time.sleep(0.6)  # the holds are asked for twice a second

    with many.service() as service:
        run = service.begin(request(cleanup_type=MANUAL))
        checked = scan_all(service, run)
        (plan,) = [plan for plan in checked.plans if plan.target == "logs"]
        backed_up = service.back_up(plan)
        monkeypatch.setattr("cleanup_dagster.workers._STALE_SECONDS", 0.2)
        deleted = service.delete(backed_up, place)
        service.audit(checked, [deleted])
    states = deleted.counts["system_logs"].states
    assert states[State.DELETED].files + states.get(State.HELD, states[State.DELETED]).files >= _MANY
    assert len(files(many.logs)) == _MANY - states[State.DELETED].files


def stopped_in_mid_deletion(many: Platform, stop: Progress) -> None:
    """Delete until `stop` interrupts it: no worker is left then, and the next run settles what was begun."""
    with many.service() as service:
        checked = scan_all(service, service.begin(request()))
        (plan,) = [plan for plan in checked.plans if plan.target == "logs"]
        backed_up: BackedUp = service.back_up(plan)
        with pytest.raises(KeyboardInterrupt):
            service.delete(backed_up, stop)
    assert children() == []
    assert 0 < len(files(many.logs)) < _MANY
    assert len(many.run().run.recovered) == 1
    assert files(many.logs) == set()
    assert many.ask("SELECT SUM(records_deleted) FROM cleanup_audit") == [(_MANY,)]


def test_a_step_that_is_stopped_stops_its_workers_after_a_batch(many: Platform) -> None:
    def stop(count: int) -> None:
        if count:
            raise KeyboardInterrupt

    stopped_in_mid_deletion(many, stop)


def test_a_worker_that_hangs_does_not_hold_up_who_stops_the_run(
    many: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cleanup_dagster.workers._STOP_SECONDS", 0.5)

    def stop(count: int) -> None:
        if count and (alive := children()):
            os.kill(alive[0], signal.SIGSTOP)
            raise KeyboardInterrupt

    stopped_in_mid_deletion(many, stop)


def test_a_worker_that_heard_nothing_for_long_waits_for_the_holds_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parent's database hangs, say: by the holds of a minute ago nothing may go."""
    ours, theirs = Pipe()
    channel = Channel(theirs)
    assert channel.latest("the first") == "the first"
    monkeypatch.setattr(workers, "_STALE_SECONDS", 0.0)
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(channel.latest, "the first")
        with pytest.raises(TimeoutError):
            asked.result(timeout=0.2)
        ours.send("the second")
        assert asked.result(timeout=10) == "the second"


def test_a_task_is_refused_when_its_parent_is_gone() -> None:
    ours, theirs = Pipe()
    channel = Channel(theirs)
    ours.send("stop")
    with pytest.raises(StoppedError, match="stopped"):
        channel.progress(1)
    ours.close()
    with pytest.raises(StoppedError, match="parent process is gone"):
        channel.latest(None)


def test_workers_import_neither_dagster_nor_the_database() -> None:
    code = (
        "import sys, cleanup_dagster.worker, cleanup_dagster.carrying, cleanup_dagster.judging;"
        "print(*sorted({'dagster', 'sqlalchemy', 'click', 'fastapi', 'psycopg2'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert found == []
    assert DeleteTask.__module__ == "cleanup_dagster.carrying"


def test_workers_import_nothing_from_where_the_run_was_started(
    large: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In /tmp, say, where everybody may put a module of that name."""
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "cleanup_dagster").mkdir()
    for name in ("msgspec.py", "cleanup_dagster/__init__.py"):
        (evil / name).write_text(f"open({str(tmp_path / 'had')!r}, 'w').close()\nraise SystemExit(0)\n")
    monkeypatch.chdir(evil)
    ended = large.run()
    assert not (tmp_path / "had").exists()
    assert ended.report.status == "done"
