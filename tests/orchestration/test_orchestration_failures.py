"""What goes wrong travels to the end as a value: the rest goes on, the audit is written, and the run fails visibly."""

import socket

import pytest
from orchestration_helpers import EXPIRED_LOGS, EXPIRED_OPERATIONS, LIVE, Platform, run_job, run_loaded

from cleanup_dagster.database.errors import DatabaseUnavailable
from cleanup_dagster.service import CleanupService


def test_one_broken_target_does_not_stop_the_other(platform: Platform) -> None:
    platform.dbt.rename(platform.home / "elsewhere")
    ran = run_job(platform, LIVE)
    assert list(ran.failures) == ["conclude"]
    problem = ran.failures["conclude"]
    assert problem.startswith("dbt_logs: ")
    assert str(platform.dbt) in problem
    assert ran.shown("scan_files[dbt_logs]")["problem"] == problem
    assert EXPIRED_OPERATIONS.isdisjoint(platform.files())
    assert platform.ask("SELECT data_type, outcome, records_deleted FROM cleanup_audit WHERE records_deleted") == [
        ("completed_operations", "failed", 1),
        ("failed_operations", "failed", 1),
    ]


def test_a_target_that_cannot_be_backed_up_keeps_its_files(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    from cleanup_dagster import service

    working = service.back_up_target

    def failing(*args: object) -> object:
        if getattr(args[1], "target", "") == "dbt_logs":
            raise OSError(28, "No space left on device")
        return working(*args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(service, "back_up_target", failing)
    ran = run_job(platform, LIVE)
    problem = "dbt_logs: [Errno 28] No space left on device; nothing of it was deleted"
    assert ran.failures == {"conclude": problem}
    assert ran.shown("back_up_files[dbt_logs]")["problem"] == problem
    assert platform.files().keys() >= EXPIRED_LOGS
    assert EXPIRED_OPERATIONS.isdisjoint(platform.files())


def test_an_impossible_policy_keeps_its_data_type_and_fails_the_run(platform: Platform) -> None:
    run_job(platform)
    platform.tell("UPDATE cleanup_policies SET retention_days = -1 WHERE data_type = 'dbt_logs'")
    ran = run_job(platform, LIVE)
    assert list(ran.failures) == ["conclude"]
    assert ran.failures["conclude"].startswith("dbt_logs: ")
    assert platform.files().keys() >= EXPIRED_LOGS
    assert EXPIRED_OPERATIONS.isdisjoint(platform.files())


@pytest.mark.parametrize("dry_run", [True, False])
def test_without_its_database_a_run_fails(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, *, dry_run: bool
) -> None:
    with socket.socket() as closed:  # bound and not listening: nobody answers, and nobody else gets the port
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        monkeypatch.setenv("CLEANUP_DATABASE_URL", f"postgresql://cleaner:geheim@127.0.0.1:{port}/platform")
        monkeypatch.setenv("CLEANUP_DATABASE_WAIT_SECONDS", "1")
        before = platform.files()
        ran = run_job(platform, {"dry_run": dry_run})
    assert ran.steps == set()
    assert list(ran.failures) == ["load_policies"]
    assert f"nothing answers for the Postgres database 'platform' at 127.0.0.1:{port}" in ran.failures["load_policies"]
    assert "geheim" not in ran.failures["load_policies"]
    assert platform.files() == before


def test_a_config_that_broke_since_it_was_loaded_fails_the_run(platform: Platform) -> None:
    defs = platform.definitions()
    before = platform.files()
    platform.configure(retention=30)
    ran = run_loaded(defs, LIVE)
    assert ran.steps == set()
    assert ran.failures["load_policies"].startswith("cleanup.yaml: retention: is no known key")
    assert platform.files() == before


def test_a_config_changed_since_it_was_loaded_is_obeyed(platform: Platform) -> None:
    defs = platform.definitions()
    platform.configure(limits={"max_files": 1})
    assert list(run_loaded(defs, LIVE).failures) == ["conclude"]


def test_an_audit_that_cannot_be_written_is_written_by_the_next_live_run(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> None:
        raise DatabaseUnavailable("the database went away")

    with monkeypatch.context() as broken:
        broken.setattr(CleanupService, "audit", down)
        ran = run_job(platform, LIVE)
    assert ran.failures["write_audit"].startswith("the audit could not be written: the database went away. ")
    assert platform.ask("SELECT count(*) FROM cleanup_audit") == [(0,)]
    successor = run_job(platform, LIVE)
    assert successor.success
    assert ran.run_id in successor.shown("write_audit")["recovered"]
    assert platform.ask(
        "SELECT outcome, sum(records_deleted) FROM cleanup_audit WHERE records_deleted GROUP BY outcome"
    ) == [("recovered", len(EXPIRED_OPERATIONS | EXPIRED_LOGS))]


def test_a_second_live_run_is_refused_while_one_is_at_work(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    defs = platform.definitions()
    words: list[str] = []
    working = CleanupService.back_up

    def meanwhile(self: CleanupService, *args: object) -> object:
        if not words:
            words.append(run_loaded(defs, LIVE).failures["load_policies"])
        return working(self, *args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(CleanupService, "back_up", meanwhile)
    ran = run_loaded(defs, LIVE)
    assert ran.success
    assert words[0].startswith(f"run {ran.run_id} is at work: ")
    assert words[0].endswith("Nothing was judged or deleted.")
