"""A live run killed with SIGKILL at a random point, then another run: nothing is lost and the books are right."""

import os
import random
import shutil
import signal
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from service_helpers import EMERGENCY, Platform, left_behind
from sqlalchemy import make_url

from cleanup_dagster.backups.manifest import read_manifest
from cleanup_dagster.collectors import deletion
from cleanup_dagster.retention.models import CleanupType, Receipt

KILLS = 20
#: The calls by which a run changes anything, and some by which it does not: the kill comes before or after one of them.
CALLS = ("open", "write", "fsync", "rename", "unlink", "mkdir", "rmdir", "close", "stat", "pread")
_workers = get_context("forkserver")
_workers.set_forkserver_preload(["service_helpers", "alembic.command"])


def work(
    home: str, database: str | None, run_id: str, kill_at: int, *, after: bool, skip_backup: bool, told: Any
) -> None:
    """Do a whole live run, and die at the `kill_at`th call; without one say how many there were."""
    calls = 0
    deletion.BATCH = 128  # as in the tests' own process

    def counted(true: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == kill_at and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = true(*args, **kwargs)
            if calls == kill_at and after:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    platform = Platform(Path(home), make_url(database) if database else None, new=False)
    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    platform.run(run_id=run_id, cleanup_type=EMERGENCY if skip_backup else CleanupType.MANUAL, skip_backup=skip_backup)
    told.put(calls)


def live_run(platform: Platform, run_id: str, kill_at: int, *, after: bool = False, skip_backup: bool = False) -> int:
    """Return how many calls the run made, or 0 when it was killed. It may end before it comes to be killed."""
    platform.configure()
    database = platform.database.render_as_string(hide_password=False) if platform.database else None
    told = _workers.SimpleQueue()
    arguments = {"after": after, "skip_backup": skip_backup, "told": told}
    process = _workers.Process(target=work, args=(str(platform.home), database, run_id, kill_at), kwargs=arguments)
    process.start()
    process.join(60)
    assert process.exitcode in ((-signal.SIGKILL, 0) if kill_at else (0,))
    calls = told.get() if process.exitcode == 0 else 0
    told.close()
    process.close()
    return calls


def garbage(platform: Platform, turn: int, number: int = 150) -> dict[Path, bytes]:
    """Write more files than one batch holds, in two targets, no two with the same bytes."""
    paths = [platform.log(f"{index % 7}/{turn}_{index}.log", 31) for index in range(number)]
    paths += [platform.operation(f"{turn}_{index}", 91, note=index) for index in range(20)]
    return {path: path.read_bytes() for path in paths}


def copies(platform: Platform) -> set[bytes]:
    return {path.read_bytes() for path in platform.backups.rglob("*.backup")}


def check_books(platform: Platform, gone: int) -> None:
    assert platform.ask("SELECT sum(records_deleted) FROM cleanup_audit") == [(gone,)]
    assert platform.ask("SELECT sum(deleted_files) FROM cleanup_runs") == [(gone,)]
    assert platform.ask("SELECT count(*) FROM cleanup_runs WHERE status = 'running'") == [(0,)]
    assert left_behind(platform.home) == []
    places = {str(path.relative_to(platform.backups)) for path in platform.backups.rglob("*.backup")}
    receipts = platform.state.glob("manifests/*/*.receipts.jsonl.zst")
    named = {receipt.backup for path in receipts for receipt in read_manifest(path, Receipt)}
    assert places <= named  # a copy that no receipt names would never be pruned


def rehearse(platform: Platform, *, skip_backup: bool = False) -> int:
    """Do a run as the killed ones will be, the database being there already, and return its number of calls."""
    garbage(platform, 0)
    with platform.service():
        pass
    calls = live_run(platform, "rehearsal", 0, skip_backup=skip_backup)
    assert calls > 1000
    check_books(platform, 170)
    return calls


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_is_killed_twenty_times_and_nothing_is_lost(either: Platform, seed: int) -> None:
    chance = random.Random(f"{either.home.name}{seed}")  # noqa: S311 - not for secrets
    either.config["limits"]["max_growth"] = 1000
    calls = rehearse(either)
    gone, killed, midway = 170, 0, 0
    for turn in range(1, KILLS // 2 + 1):
        before = garbage(either, turn)
        kill_at = int(0.9 * calls * (turn - 1 + chance.random()) / (KILLS // 2)) or 1  # no two runs make as many calls
        after = chance.random() < 0.5
        killed += not live_run(either, f"killed{turn:02}-by-sigkill", kill_at, after=after)
        quarantined = {path.read_bytes() for path in either.home.rglob(".cleanup-q-*/*")}
        safe = copies(either) | quarantined
        for path, content in before.items():
            assert (path.exists() and path.read_bytes() == content) or content in safe, (turn, kill_at, after, path)
        left = sum(path.exists() for path in before)
        midway += 0 < left < len(before)
        either.config["limits"]["max_files"] = 1  # the next run recovers, and is refused anything of its own
        ended = either.run(run_id=f"next{turn:02}-after-that")
        assert ended.report.status in {"refused", "done"}, ended.problems
        in_place = {path for path in before if path.exists()}
        safe = copies(either)
        for path, content in before.items():
            assert path.read_bytes() == content if path in in_place else content in safe, (turn, kill_at, after, path)
        gone += len(before) - len(in_place)
        check_books(either, gone)
        del either.config["limits"]["max_files"]
        for path in in_place:
            path.unlink()
        shutil.rmtree(either.logs)
        either.logs.mkdir()
    assert killed >= KILLS // 2 - 3  # a turn with fewer calls than the rehearsal may end before its kill
    assert midway


def test_a_run_without_backups_is_killed_and_every_deletion_is_in_the_audit(platform: Platform) -> None:
    chance = random.Random(7)  # noqa: S311 - not for secrets
    calls = rehearse(platform, skip_backup=True)
    gone = 170
    for turn in range(1, 6):
        before = garbage(platform, turn)
        live_run(platform, f"killed{turn:02}-by-sigkill", int(calls * (0.3 + 0.6 * chance.random())), skip_backup=True)
        platform.config["limits"]["max_files"] = 1
        platform.run(run_id=f"next{turn:02}-after-that")
        in_place = [path for path in before if path.exists()]
        gone += len(before) - len(in_place)
        check_books(platform, gone)
        for path in in_place:
            path.unlink()
        del platform.config["limits"]["max_files"]


def test_recovery_is_killed_too_and_the_one_after_it_finishes(platform: Platform) -> None:
    chance = random.Random(11)  # noqa: S311 - not for secrets
    calls = rehearse(platform)
    before = garbage(platform, 1)
    live_run(platform, "killed01-by-sigkill", int(calls * 0.8))
    assert 0 < sum(path.exists() for path in before) < len(before)
    platform.config["limits"]["max_files"] = 1  # recover, and nothing of their own
    points = [int(20 + 300 * chance.random()) for _ in range(8)]
    killed = sum(not live_run(platform, f"killed{turn:02}-by-sigkill", at) for turn, at in enumerate(points, start=2))
    assert killed >= 4
    ended = platform.run(run_id="the-last-one")
    assert ended.report.status == "refused"
    gone = sum(not path.exists() for path in before)
    safe = copies(platform)
    assert all(content in safe for path, content in before.items() if not path.exists())
    check_books(platform, 170 + gone)


def test_receipts_that_are_gone_lose_no_file_and_are_reported(platform: Platform) -> None:
    calls = rehearse(platform)
    before = garbage(platform, 1)
    live_run(platform, "killed01-by-sigkill", int(calls * 0.8))
    gone = {path for path in before if not path.exists()}
    assert gone
    for receipts in [*platform.state.rglob("*.receipts.*"), *platform.backups.rglob("*.receipts.*")]:
        receipts.unlink()
    platform.config["limits"]["max_files"] = 1
    ended = platform.run()
    assert len(ended.run.recovered) == 1
    assert "receipts" in ended.run.recovered[0]
    safe = copies(platform) | {path.read_bytes() for path in platform.home.rglob(".cleanup-q-*/*")}
    assert all(before[path] in safe for path in gone)
    assert all(path.read_bytes() == content for path, content in before.items() if path not in gone)
