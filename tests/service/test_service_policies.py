import pytest
from service_helpers import Platform, files, request, whole_run

from cleanup_dagster.retention.models import CleanupType


def outcomes(platform: Platform) -> dict[str, tuple[str, int]]:
    return {row[0]: row[1:] for row in platform.ask("SELECT data_type, outcome, records_deleted FROM cleanup_audit")}


def one_of_each(platform: Platform) -> None:
    platform.operation("done", 91)
    platform.operation("failed", 15, "failed")
    platform.log("old.log", 31)


def test_switching_every_policy_off_by_sql_stops_everything_at_the_next_run(either: Platform) -> None:
    one_of_each(either)
    either.sql("UPDATE cleanup_policies SET enabled = false")
    ended = either.run()
    assert ended.problems == ""
    assert files(either.operations) == {"operation_done.json", "operation_failed.json"}
    assert files(either.logs) == {"old.log"}
    assert set(outcomes(either).values()) == {("done", 0)}
    either.sql("UPDATE cleanup_policies SET enabled = true WHERE data_type = 'system_logs'")
    either.run()
    assert len(files(either.operations)) == 2
    assert files(either.logs) == set()


def test_days_changed_by_sql_hold_from_the_next_run_on(either: Platform) -> None:
    either.log("a.log", 40)
    either.sql("UPDATE cleanup_policies SET retention_days = 50 WHERE data_type = 'system_logs'")
    either.run()
    assert files(either.logs) == {"a.log"}
    either.sql("UPDATE cleanup_policies SET retention_days = 39 WHERE data_type = 'system_logs'")
    either.run()
    assert files(either.logs) == set()


def test_a_change_between_two_runs_of_one_service_holds(platform: Platform) -> None:
    platform.log("a.log", 40)
    with platform.service() as service:
        platform.sql("UPDATE cleanup_policies SET enabled = false")
        whole_run(service, request())
        assert files(platform.logs) == {"a.log"}
        platform.sql("UPDATE cleanup_policies SET enabled = true")
        whole_run(service, request())
        assert files(platform.logs) == set()


def test_a_policy_that_was_removed_means_keep(either: Platform) -> None:
    one_of_each(either)
    either.sql("DELETE FROM cleanup_policies WHERE data_type = 'failed_operations'")
    ended = either.run()
    assert ended.report.status == "done"
    assert files(either.operations) == {"operation_failed.json"}


@pytest.mark.parametrize("cleanup_type", ["manual", "emergency"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("retention_days = NULL", "retention_days"),
        ("retention_days = -1", "retention_days"),
        ("retention_days = 0", "retention_days"),
        ("retention_days = 36501", "retention_days"),
        ("enabled = NULL", "enabled"),
        ("keep_last = -1", "keep_last"),
    ],
)
def test_a_broken_row_keeps_its_data_type_and_fails_the_run_while_others_go_on(
    either: Platform, change: str, said: str, cleanup_type: str
) -> None:
    one_of_each(either)
    either.sql(f"UPDATE cleanup_policies SET {change} WHERE data_type = 'failed_operations'")  # noqa: S608
    ended = either.run(cleanup_type=CleanupType(cleanup_type))
    assert files(either.operations) == {"operation_failed.json"}
    assert files(either.logs) == set()
    assert ended.report.status == "failed"
    assert len(ended.report.problems) == 1
    assert ended.report.problems[0].startswith(f"failed_operations: {said}")
    assert outcomes(either)["completed_operations"] == ("failed", 1)
    assert either.ask("SELECT status FROM cleanup_runs") == [("failed",)]


def test_days_outside_the_targets_bounds_keep_the_data_type_and_fail_the_run(platform: Platform) -> None:
    one_of_each(platform)
    platform.target("logs")["retention_days_min"] = 14
    platform.sql("UPDATE cleanup_policies SET retention_days = 2 WHERE data_type = 'system_logs'")
    ended = platform.run()
    assert files(platform.logs) == {"old.log"}
    assert files(platform.operations) == set()
    assert ended.report.status == "failed"
    assert len(ended.report.problems) == 1
    assert ended.report.problems[0] == (
        "system_logs: retention_days is 2, but target logs allows 14 to 36500; change the policy, or the target's "
        "retention_days_min and retention_days_max"
    )


def test_a_dry_run_reports_a_broken_row_too(platform: Platform) -> None:
    platform.sql("UPDATE cleanup_policies SET retention_days = NULL WHERE data_type = 'system_logs'")
    ended = platform.dry()
    assert ended.report.status == "failed"
    assert ended.report.problems[0].startswith("system_logs: retention_days")


def test_keep_last_spans_the_whole_target(either: Platform) -> None:
    # In a listing's order the newest come neither first nor last.
    for name, days in (("b", 100), ("z", 91), ("a", 95), ("m", 92), ("c", 200), ("d", 300)):
        either.operation(name, days, pipeline_name="sales")
    either.operation("x", 400, pipeline_name="stock")
    either.operation("y", 500)
    either.operation("w", 600)
    either.sql("UPDATE cleanup_policies SET keep_last = 2 WHERE data_type = 'completed_operations'")
    ended = either.run()
    assert files(either.operations) == {f"operation_{name}.json" for name in ("z", "m", "x", "y", "w")}
    assert ended.report.counts["completed_operations"].deleted.files == 4
    assert not list(either.state.rglob("*.draft"))


def test_keep_last_counts_what_has_not_expired_yet(platform: Platform) -> None:
    for name, days in (("old", 100), ("older", 101), ("new", 1)):
        platform.operation(name, days, pipeline_name="sales")
    platform.sql("UPDATE cleanup_policies SET keep_last = 2 WHERE data_type = 'completed_operations'")
    platform.run()
    assert files(platform.operations) == {"operation_new.json", "operation_old.json"}
