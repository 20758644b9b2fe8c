"""Large targets are judged by worker processes: the plan is the same, and one that dies fails its target alone."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from service_helpers import Platform, files

from cleanup_dagster import planning
from cleanup_dagster.backups.manifest import read_manifest
from cleanup_dagster.handles import Plan
from cleanup_dagster.judging import JudgeTask
from cleanup_dagster.retention.models import Verdict
from cleanup_dagster.workers import Job, WorkerError


@pytest.fixture
def large(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A platform whose few files count as many."""
    monkeypatch.setattr(planning, "WORTH_WORKERS", 10)
    platform.config["workers"] = 2
    for number in range(30):
        platform.log(f"{number % 3}/{number}.log", 31 if number % 2 else 1)
        platform.operation(str(number), 91 if number % 2 else 1)
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


def test_what_workers_judged_is_deleted(large: Platform) -> None:
    ended = large.run()
    assert ended.report.status == "done"
    assert len(files(large.logs)) == len(files(large.operations)) == 15
    assert ended.report.counts["system_logs"].deleted.files == 15


def test_a_worker_that_dies_fails_its_target_and_the_others_go_on(
    large: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = planning.run_shards

    def dying(jobs: Sequence[Job], progress: Callable[[int], None]) -> list[object]:
        task = jobs[0].task
        assert isinstance(task, JudgeTask)
        if task.target.name == "logs":
            return [WorkerError("a worker process died (signal 9)") for _ in jobs]
        return true(jobs, progress)

    monkeypatch.setattr(planning, "run_shards", dying)
    ended = large.run()
    assert ended.report.status == "failed"
    assert ended.report.problems == ("logs: a worker process died (signal 9)",)
    assert len(files(large.logs)) == 30
    assert len(files(large.operations)) == 15
