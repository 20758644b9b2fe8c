import threading

import pytest
from database_helpers import NOW, ask, start_run
from sqlalchemy import Engine

from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.run_targets import (
    Intent,
    KeptBackups,
    commit_intent,
    finish_target,
    intents,
    mark_pruned,
    record_plan,
    unpruned_backups,
)
from cleanup_dagster.database.runs import (
    RunRecord,
    RunStatus,
    RunTotals,
    finish_run,
    get_run,
    heartbeat,
    last_run_started,
    recent_deletions,
    reserve_run,
    unfinished_live_runs,
)
from cleanup_dagster.retention.models import NS_PER_DAY, NS_PER_SECOND, CleanupType, Tally
from cleanup_dagster.retention.times import from_ns

TOTALS = RunTotals(10, 5, 5 * 2**40, 4, 4 * 2**40, 1)


def end(
    engine: Engine, run_id: str, status: RunStatus = RunStatus.DONE, totals: RunTotals | None = TOTALS, at: int = NOW
) -> bool:
    with engine.begin() as conn:
        return finish_run(conn, run_id, status, f"it is {status.value}", totals, at)


def fetch(engine: Engine, run_id: str) -> RunRecord:
    with reading(engine) as conn:
        record = get_run(conn, run_id)
    assert record is not None
    return record


def plan(engine: Engine, run_id: str, target: str = "logs", root: str = "/data") -> bool:
    with engine.begin() as conn:
        return record_plan(conn, run_id, target, root, Tally(10, 1_000), Tally(5, 500))


def promise(engine: Engine, run_id: str, target: str = "logs", directory: str | None = "/backups") -> bool:
    with engine.begin() as conn:
        return commit_intent(
            conn,
            run_id,
            target,
            manifest=f"/state/{run_id}.jsonl.zst",
            sha256="ab" * 32,
            rows=5,
            backup_directory=directory,
            backup_files=5,
            backup_bytes=2**40,
            now_ns=NOW + 1_000,
        )


def settle(engine: Engine, run_id: str, files: int = 5, target: str = "logs") -> bool:
    with engine.begin() as conn:
        return finish_target(conn, run_id, target, Tally(files, 100 * files), NOW + 2_000)


def live_run(engine: Engine, run_id: str, *, at: int = NOW, files: int = 5, root: str = "/data") -> None:
    start_run(engine, run_id, at=at)
    plan(engine, run_id, root=root)
    promise(engine, run_id)
    settle(engine, run_id, files)


def test_a_run_from_its_reservation_to_its_end(engine: Engine) -> None:
    with engine.begin() as conn:
        assert reserve_run(
            conn,
            run_id="a",
            cleanup_type=CleanupType.EMERGENCY,
            dry_run=False,
            host="host-a",
            state_id="state-a",
            pid=4711,
            executed_by="ada",
            now_ns=NOW,
            plan_of="dry",
        )
        assert heartbeat(conn, "a", NOW + 1_000)
    expected = RunRecord(
        "a",
        CleanupType.EMERGENCY,
        False,
        RunStatus.RUNNING,
        "host-a",
        "state-a",
        4711,
        NOW,
        NOW + 1_000,
        "ada",
        None,
        "dry",
        RunTotals(),
        "",
    )
    assert fetch(engine, "a") == expected
    assert end(engine, "a", at=NOW + 2_000)
    ended = fetch(engine, "a")
    assert (ended.status, ended.finished_ns, ended.message) == (RunStatus.DONE, NOW + 2_000, "it is done")
    assert ended.totals == TOTALS


def test_a_run_id_is_taken_once(engine: Engine) -> None:
    assert start_run(engine, "a") is True
    end(engine, "a")
    assert start_run(engine, "a", at=NOW + 1_000) is False
    assert fetch(engine, "a").status is RunStatus.DONE


def test_there_is_no_such_run(engine: Engine) -> None:
    with engine.begin() as conn:
        assert get_run(conn, "none") is None
        assert heartbeat(conn, "none", NOW) is False
    assert end(engine, "none") is False


@pytest.mark.parametrize("status", [RunStatus.DONE, RunStatus.FAILED, RunStatus.REFUSED, RunStatus.INTERRUPTED])
def test_a_run_ends_once_whoever_comes_first(engine: Engine, status: RunStatus) -> None:
    start_run(engine, "a")
    assert end(engine, "a", status) is True
    before = fetch(engine, "a")
    assert end(engine, "a", RunStatus.DONE, RunTotals(), NOW + 5_000) is False
    with engine.begin() as conn:
        assert heartbeat(conn, "a", NOW + 5_000) is False
    assert fetch(engine, "a") == before


def test_a_run_cannot_end_by_running(engine: Engine) -> None:
    start_run(engine, "a")
    with pytest.raises(ValueError, match="cannot end in the status 'running'"):
        end(engine, "a", RunStatus.RUNNING)


def test_fencing_leaves_the_figures(engine: Engine) -> None:
    start_run(engine, "a")
    assert end(engine, "a", RunStatus.INTERRUPTED, None)
    assert fetch(engine, "a").totals == RunTotals()


def test_unfinished_live_runs_are_the_running_ones_that_may_delete(engine: Engine) -> None:
    start_run(engine, "b", at=NOW + 2_000)
    start_run(engine, "a", at=NOW + 1_000)
    start_run(engine, "dry", dry_run=True)
    start_run(engine, "ended")
    end(engine, "ended")
    with reading(engine) as conn:
        assert [run.run_id for run in unfinished_live_runs(conn)] == ["a", "b"]


def test_the_last_run_started_may_leave_out_oneself(engine: Engine) -> None:
    with reading(engine) as conn:
        assert last_run_started(conn) is None
    start_run(engine, "a", at=NOW)
    start_run(engine, "dry", dry_run=True, at=NOW + 1_000)
    start_run(engine, "me", at=NOW + 2_000)
    with reading(engine) as conn:
        assert last_run_started(conn) == NOW + 2_000
        assert last_run_started(conn, excluding="me") == NOW + 1_000


def test_recent_deletions_are_of_finished_live_runs_that_deleted_something_there(engine: Engine) -> None:
    for number in range(1, 6):
        live_run(engine, f"run-{number}", at=NOW + number * NS_PER_SECOND, files=number)
    end(engine, "run-1")
    end(engine, "run-2", RunStatus.FAILED)
    end(engine, "run-3", RunStatus.INTERRUPTED)
    end(engine, "run-4")  # run-5 is still running
    live_run(engine, "nothing", files=0)
    end(engine, "nothing")
    live_run(engine, "elsewhere", files=99, root="/other")
    end(engine, "elsewhere")
    with reading(engine) as conn:
        assert recent_deletions(conn, "logs", "/data") == [4, 2, 1]
        assert recent_deletions(conn, "logs", "/data", limit=2) == [4, 2]
        assert recent_deletions(conn, "other", "/data") == []


def test_a_promise_is_read_back_exactly(engine: Engine) -> None:
    start_run(engine, "a")
    assert plan(engine, "a")
    with reading(engine) as conn:
        assert intents(conn, "a") == []
    assert promise(engine, "a")
    expected = Intent("a", "logs", "/data", "/state/a.jsonl.zst", "ab" * 32, 5, NOW + 1_000, "/backups", None)
    with reading(engine) as conn:
        assert intents(conn, "a") == [expected]
    assert settle(engine, "a")
    with reading(engine) as conn:
        assert [intent.finished_ns for intent in intents(conn, "a")] == [NOW + 2_000]


def test_a_plan_may_be_made_anew_until_it_is_promised(engine: Engine) -> None:
    start_run(engine, "a")
    assert plan(engine, "a", root="/first")
    assert plan(engine, "a", root="/second")
    assert ask(engine, "SELECT root FROM cleanup_run_targets") == [("/second",)]
    promise(engine, "a")
    assert plan(engine, "a", root="/third") is False
    assert ask(engine, "SELECT root, receipts_rows FROM cleanup_run_targets") == [("/second", 5)]


def test_nobody_may_promise_without_a_plan_twice_dry_or_after_the_end(engine: Engine) -> None:
    start_run(engine, "a")
    assert promise(engine, "a") is False  # nothing planned
    plan(engine, "a")
    assert promise(engine, "a") is True
    assert promise(engine, "a") is False  # twice
    start_run(engine, "dry", dry_run=True)
    plan(engine, "dry")
    assert promise(engine, "dry") is False
    start_run(engine, "fenced")
    plan(engine, "fenced")
    end(engine, "fenced", RunStatus.INTERRUPTED)
    assert promise(engine, "fenced") is False
    assert promise(engine, "unknown") is False
    assert ask(engine, "SELECT run_id FROM cleanup_run_targets WHERE intent_at IS NOT NULL") == [("a",)]


def test_fencing_and_promising_at_the_same_moment_never_both_win(postgres_engine: Engine) -> None:
    start_run(postgres_engine, "a")
    plan(postgres_engine, "a")
    outcome: list[bool] = []
    with postgres_engine.begin() as conn:
        assert finish_run(conn, "a", RunStatus.INTERRUPTED, "dead", None, NOW)
        rival = threading.Thread(target=lambda: outcome.append(promise(postgres_engine, "a")))
        rival.start()
        rival.join(0.3)
        assert rival.is_alive()  # it waits to see how the fencing ends
    rival.join(10)
    assert outcome == [False]


def test_a_target_of_a_run_that_is_not_reserved_cannot_be_planned(engine: Engine) -> None:
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        plan(engine, "unknown")


def test_a_target_is_finished_once_by_recovery_too(engine: Engine) -> None:
    start_run(engine, "a")
    plan(engine, "a")
    promise(engine, "a")
    end(engine, "a", RunStatus.INTERRUPTED)
    assert settle(engine, "a", 4) is True
    assert settle(engine, "a", 99) is False
    assert ask(engine, "SELECT deleted_files, freed_bytes FROM cleanup_run_targets") == [(4, 400)]


def unpruned(engine: Engine, before: int) -> list[KeptBackups]:
    with reading(engine) as conn:
        return unpruned_backups(conn, from_ns(before))


def test_backups_are_pruned_by_their_runs_time_and_once(engine: Engine) -> None:
    live_run(engine, "old")
    live_run(engine, "young", at=NOW + NS_PER_DAY)
    for run_id in ("old", "young"):
        end(engine, run_id)
    kept = KeptBackups(
        run_id="old",
        target="logs",
        root="/data",
        directory="/backups",
        manifest="/state/old.jsonl.zst",
        sha256="ab" * 32,
        rows=5,
        files=5,
        bytes=2**40,
        host="host-a",
        state_id="state-a",
        run_started_ns=NOW,
        finished_ns=NOW + 2_000,
    )
    assert unpruned(engine, NOW) == []
    assert unpruned(engine, NOW + NS_PER_DAY) == [kept]
    with engine.begin() as conn:
        assert mark_pruned(conn, "old", "logs", NOW + 2 * NS_PER_DAY) is True
        assert mark_pruned(conn, "old", "logs", NOW + 3 * NS_PER_DAY) is False
        assert mark_pruned(conn, "none", "logs", NOW) is False
    assert [backups.run_id for backups in unpruned(engine, NOW + 9 * NS_PER_DAY)] == ["young"]


def test_backups_that_recovery_may_need_are_never_offered(engine: Engine) -> None:
    live_run(engine, "running")
    start_run(engine, "unsettled")
    plan(engine, "unsettled")
    promise(engine, "unsettled")
    end(engine, "unsettled", RunStatus.INTERRUPTED)
    start_run(engine, "without")
    plan(engine, "without")
    promise(engine, "without", directory=None)
    settle(engine, "without")
    end(engine, "without")
    assert unpruned(engine, NOW + NS_PER_DAY) == []
    settle(engine, "unsettled")
    assert [backups.run_id for backups in unpruned(engine, NOW + NS_PER_DAY)] == ["unsettled"]
