# ruff: noqa: S608  statements over ids and names of these tests themselves
# pyright: reportUnknownMemberType=false, reportPrivateUsage=false
"""Real runs, executed by Dagster on SQLite and on Postgres, purged and put back by the jobs."""

import errno
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from run_history_helpers import LIVE, Shop, catalog, why

from cleanup_dagster.handles import Report
from cleanup_dagster.orchestration import run_store
from cleanup_dagster.orchestration.run_store_sqlite import SqliteRunStore
from cleanup_dagster.run_history import document, purging
from cleanup_dagster.run_history.store import Doomed, Ended, Keep
from cleanup_dagster.service import CleanupService

FREE = {
    "export",
    "export again",
    "flaky",
    "flaky retried",
    "orders a",
    "daily",
    "observe",
    "peek",
    "orders a again",
    "peek again",
}

#: What is one and the same code for both storages is tried on one of them.
on_sqlite = pytest.mark.parametrize("past", ["sqlite"], indirect=True)


def purged_of(shop: Shop, ids: dict[str, str]) -> set[str]:
    there = shop.run_ids()
    return {name for name, run_id in ids.items() if run_id not in there}


def outcomes(shop: Shop) -> dict[str, tuple[str, str]]:
    """What the log beside the backups says of each run: its state and why."""
    found: dict[str, tuple[str, str]] = {}
    for log in (shop.home / "backups").glob("cleanup_*.log"):
        for line in log.read_text().splitlines():
            if "  /dagster_runs/" in line:
                state, path, detail = line.split("  ", 2)
                found[path.rpartition("/")[2]] = (state, detail)
    return found


def reasons(report: Report) -> dict[str, int]:
    """How many runs a plan keeps, by reason."""
    (plan,) = report.checked.plans
    return {reason.value: tally.files for reason, tally in plan.kept.items()}


def test_by_its_jobs_a_purge_and_its_restore_leave_every_table_as_it_was(shop: Shop, ids: dict[str, str]) -> None:
    before, logs, known = shop.fingerprint(), shop.logs(), catalog(shop)

    purged = shop.job(LIVE)

    assert purged.success, why(purged)
    assert purged_of(shop, ids) == FREE
    assert not {ids[name] for name in FREE} & {name.split("/")[0] for name in shop.logs()}
    assert catalog(shop) == known
    assert shop.fingerprint() != before
    restored = shop.job({"run_id": purged.run_id, "dry_run": False}, "restore")
    assert restored.success, why(restored)
    assert shop.fingerprint() == before
    assert shop.logs() == logs
    assert catalog(shop) == known


@on_sqlite
def test_what_was_restored_is_held(shop: Shop) -> None:
    before = shop.fingerprint()
    purged = shop.clean()
    assert not shop.restore(purged.checked.run.request.run_id).problems

    again = shop.clean()

    assert (again.status, again.counts) == ("done", {})
    assert shop.fingerprint() == before


@on_sqlite
def test_a_dry_run_changes_no_row_and_tells_what_goes(shop: Shop, ids: dict[str, str]) -> None:
    before, logs = shop.fingerprint(), shop.logs()

    dry = shop.clean(dry=True)

    assert dry.status == "done", dry.problems
    assert (shop.fingerprint(), shop.logs()) == (before, logs)
    assert not (shop.home / "backups").exists()
    assert dry.checked.plans[0].deletable.files == len(FREE)
    assert reasons(dry) == {"asset_state": len(ids) - len(FREE)}


@on_sqlite
def test_nothing_goes_while_the_policy_is_disabled(shop: Shop) -> None:
    before = shop.fingerprint()
    shop.state_sql("UPDATE cleanup_policies SET enabled = false")

    assert shop.clean().status == "done"

    assert shop.fingerprint() == before


def test_a_restore_replaces_no_run_that_is_there(shop: Shop, ids: dict[str, str]) -> None:
    purged = shop.clean()
    of_run, path = purged.checked.run.request.run_id, f"**/{ids['export']}"
    assert not shop.restore(of_run, path).problems
    shop.sql(f"UPDATE runs SET run_body = 'another' WHERE run_id = '{ids['export']}'")
    before = shop.fingerprint()

    refused = shop.restore(of_run, path)

    (one,) = refused.troubled
    assert (one.state.value, one.detail) == ("exists", "row 1 of runs is another one")
    assert shop.fingerprint() == before


@on_sqlite
def test_an_archive_with_one_byte_changed_restores_nothing(shop: Shop) -> None:
    purged = shop.clean()
    before = shop.fingerprint()
    (archive,) = (shop.home / "backups").glob("runs.*.tar.zst")
    content = bytearray(archive.read_bytes())
    content[200] ^= 1
    archive.write_bytes(content)

    refused = shop.restore(purged.checked.run.request.run_id)

    assert {one.state.value for one in refused.troubled} == {"damaged"}
    assert shop.fingerprint() == before


def test_a_run_that_was_executed_again_meanwhile_stays(shop: Shop, ids: dict[str, str]) -> None:
    dry = shop.clean(dry=True)
    again = shop.again(ids["flaky"])

    live = shop.clean(plan=dry.checked.run.request.run_id)

    assert live.status == "done", live.problems
    assert {ids["flaky"], ids["flaky retried"], again} <= shop.run_ids()
    assert ids["export"] not in shop.run_ids()


@pytest.mark.parametrize(
    ("statement", "state", "said"),
    [
        ("UPDATE runs SET status = 'STARTED' WHERE run_id = '{run}'", "drifted", "its status is STARTED now"),
        ("INSERT INTO run_tags (run_id, key, value) VALUES ('{run}', 'cleanup/keep', '1')", "drifted", "have changed"),
        (
            "INSERT INTO run_tags (run_id, key, value) VALUES ('{kept}', 'dagster/root_run_id', '{run}')",
            "drifted",
            "executed again meanwhile",
        ),
        ("DELETE FROM runs WHERE run_id = '{run}'", "gone", "it was gone"),
    ],
)
def test_what_changes_between_archive_and_purge_stays(
    shop: Shop, ids: dict[str, str], statement: str, state: str, said: str
) -> None:
    run = ids["export"]

    def change() -> None:
        shop.sql("DELETE FROM run_tags WHERE run_id = '" + run + "'") if "DELETE FROM runs" in statement else None
        shop.sql(statement.format(run=run, kept=ids["new daily"]))

    purged = shop.clean(before_deleting=change)

    assert purged.status == "done", purged.problems
    found, detail = outcomes(shop)[run]
    assert (found, said in detail) == (state, True), detail
    assert (run in shop.run_ids()) == (state != "gone")
    assert ids["export again"] not in shop.run_ids()


@on_sqlite
def test_runs_of_which_the_database_knows_other_receipts_stay(shop: Shop, ids: dict[str, str]) -> None:
    change = "UPDATE cleanup_run_targets SET receipts_sha256 = 'other'"

    refused = shop.clean(before_deleting=lambda: shop.state_sql(change))

    assert any("is not the one in the database; nothing of it was deleted" in problem for problem in refused.problems)
    assert set(ids.values()) <= shop.run_ids()


@on_sqlite
def test_receipts_of_runs_that_were_tampered_with_purge_nothing(shop: Shop, ids: dict[str, str]) -> None:
    def change() -> None:
        (manifest,) = (shop.home / "state").glob("manifests/*/runs.receipts.jsonl.zst")
        manifest.write_bytes(manifest.read_bytes() + b"x")

    refused = shop.clean(before_deleting=change)

    assert any("is not the recorded one (its sha256 differs)" in problem for problem in refused.problems)
    assert set(ids.values()) <= shop.run_ids()


@on_sqlite
def test_a_retry_group_of_which_one_is_held_stays_whole(shop: Shop, ids: dict[str, str]) -> None:
    shop.state_sql(f"INSERT INTO cleanup_holds (pattern, reason) VALUES ('**/{ids['flaky retried']}', 'incident')")
    shop.state_sql("INSERT INTO cleanup_holds (pattern, pipeline, reason) VALUES ('**', 'export', 'audit')")

    assert shop.clean().status == "done"

    assert purged_of(shop, ids) == FREE - {"flaky", "flaky retried", "export", "export again"}


def test_whatever_is_looked_for_by_somebody_stays(shop: Shop, ids: dict[str, str]) -> None:
    for run, key, value in (
        ("export", "dagster/run_key", "file-1"),
        ("export again", "cleanup/keep", "yes"),
        ("observe", "dagster/backfill", "gone"),
        ("flaky retried", "dagster/backfill", "working"),
        ("peek", "dagster/backfill", "over"),
        ("new daily", "note", "the newest row of all, which stays on SQLite"),
    ):
        shop.sql(f"INSERT INTO run_tags (run_id, key, value) VALUES ('{ids[run]}', '{key}', '{value}')")
    for key, status in (("working", "CANCELING"), ("over", "COMPLETED_SUCCESS")):
        shop.sql(
            f"INSERT INTO bulk_actions (key, status, timestamp) VALUES ('{key}', '{status}', '2026-01-01 00:00:00')"
        )

    purged = shop.clean()

    assert purged.status == "done", purged.problems
    assert purged_of(shop, ids) == FREE - {"export", "export again", "observe", "flaky", "flaky retried"}
    assert reasons(purged) == {
        "run_key": 1,
        "kept_by_tag": 1,
        "backfill_at_work": 2,
        "retry_group": 1,
        "asset_state": len(ids) - len(FREE),
    }


@on_sqlite
def test_the_newest_runs_of_each_job_stay(shop: Shop, ids: dict[str, str]) -> None:
    shop.configure(keep_last_per_job=1)

    assert shop.clean().status == "done"

    assert ids["export again"] in shop.run_ids()
    assert ids["export"] not in shop.run_ids()


@on_sqlite
def test_the_latest_run_of_a_partition_of_a_job_stays(shop: Shop, ids: dict[str, str]) -> None:
    """Its status, which the catalog has of an asset's partition, Dagster tells by that run alone."""
    partitioned = ("export", "export again", "orders a", "flaky retried")
    for name in partitioned:
        shop.sql(f"UPDATE runs SET partition_set = 'set', partition = '{name[:6]}' WHERE run_id = '{ids[name]}'")
    shop.sql(f"UPDATE runs SET status = 'CANCELED' WHERE run_id = '{ids['flaky retried']}'")

    dry = shop.clean(dry=True)
    purged = shop.clean()

    assert reasons(dry) == {"asset_state": len(ids) - len(FREE), "job_partition": 1}
    assert purged_of(shop, ids) == FREE - {"export again"}
    assert purged.status == "done", purged.problems

    shop.configure(keep_job_partitions=False)
    assert shop.clean().status == "done"
    assert purged_of(shop, ids) == FREE


@on_sqlite
def test_the_latest_run_of_a_partition_stays_whatever_the_plan_knew(shop: Shop, ids: dict[str, str]) -> None:
    change = f"UPDATE runs SET partition_set = 'set', partition = 'a' WHERE run_id = '{ids['export']}'"

    shop.clean(before_deleting=lambda: shop.sql(change))

    assert outcomes(shop)[ids["export"]] == ("drifted", "it is the latest run of partition a of job export by now")


@on_sqlite
def test_a_parent_stays_with_its_child_also_without_a_root(shop: Shop, ids: dict[str, str]) -> None:
    shop.sql("DELETE FROM run_tags WHERE key = 'dagster/root_run_id'")
    shop.state_sql(f"INSERT INTO cleanup_holds (pattern, reason) VALUES ('**/{ids['flaky retried']}', 'incident')")

    dry = shop.clean(dry=True)

    assert reasons(dry) == {"asset_state": len(ids) - len(FREE), "held": 1, "retry_group": 1}


@on_sqlite
def test_sqlite_never_gives_the_id_of_a_purged_row_again(shop: Shop, ids: dict[str, str]) -> None:
    tag = "INSERT INTO run_tags (run_id, key, value) VALUES ('{}', 'note', 'late')"
    shop.sql(tag.format(ids["export"]))

    first = shop.clean()

    assert outcomes(shop)[ids["export"]][0] == "busy"
    shop.sql(tag.format(ids["new daily"]))
    assert not shop.restore(first.checked.run.request.run_id).problems
    assert shop.run_ids() >= set(ids.values())


@on_sqlite
def test_a_run_whose_logs_cannot_be_read_stays_with_its_retries_and_the_others_go(
    shop: Shop, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = document._log_lines

    def refused(storage: Path | None, run_id: str) -> Iterator[bytes]:
        if run_id == ids["flaky"]:
            raise PermissionError(errno.EACCES, "Permission denied")
        return lines(storage, run_id)

    monkeypatch.setattr(document, "_log_lines", refused)

    purged = shop.clean()

    assert purged.problems == ("runs: 1 runs could not be dealt with; the log names them",)
    assert outcomes(shop)[ids["flaky"]] == ("failed", "its logs cannot be read: Permission denied")
    assert outcomes(shop)[ids["flaky retried"]][0] == "busy"
    assert purged_of(shop, ids) == FREE - {"flaky", "flaky retried"}


def test_logs_that_may_not_be_removed_stay_and_block_nothing(
    shop: Shop, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = run_store.remove_logs

    def refused(storage: Path | None, run_id: str, digests: Mapping[str, str]) -> None:
        if run_id == ids["export"]:
            raise PermissionError(errno.EACCES, "Permission denied")
        remove(storage, run_id, digests)

    monkeypatch.setattr(run_store, "remove_logs", refused)

    purged = shop.clean()

    assert purged.status == "done", purged.problems
    assert outcomes(shop)[ids["export"]] == ("deleted", "its logs stay: Permission denied")
    assert purged_of(shop, ids) == FREE


@on_sqlite
def test_a_transaction_ends_when_it_has_read_enough(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    purge = SqliteRunStore.purge

    def counted(store: SqliteRunStore, groups: Sequence[Sequence[Doomed]], keep: Keep) -> Mapping[str, Ended]:
        sizes.append(len(groups))
        return purge(store, groups, keep)

    monkeypatch.setattr(SqliteRunStore, "purge", counted)
    monkeypatch.setattr(purging, "_BYTES", 1)

    assert shop.clean().status == "done"

    assert sizes == [1] * (len(FREE) - 1)  # the two retries are one


@on_sqlite
def test_an_interrupted_purge_is_settled_also_when_runs_are_a_target_no_more(
    shop: Shop, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CleanupService, "delete", broken)
        with pytest.raises(KeyboardInterrupt):
            shop.clean(run_id="broken off")
    (shop.home / "files").mkdir()
    shop.config["targets"] = [{"name": "files", "kind": "operations", "root": str(shop.home / "files")}]
    shop.configure()

    settled = shop.job(LIVE)

    assert settled.success, why(settled)
    assert shop.state_sql("SELECT status FROM cleanup_runs WHERE run_id = 'broken off'") == [("interrupted",)]
    assert set(ids.values()) <= shop.run_ids()


@pytest.mark.parametrize(
    ("mode", "stay"), [("keep_all", set[str]()), ("keep_whole_run", {"orders a again", "observe", "peek again"})]
)
def test_other_ways_to_keep_the_state_of_assets(shop: Shop, ids: dict[str, str], mode: str, stay: set[str]) -> None:
    known = catalog(shop)
    shop.configure(asset_events=mode)

    purged = shop.clean()

    assert purged.status == "done", purged.problems
    assert purged_of(shop, ids) == FREE - stay
    assert catalog(shop) == known


@on_sqlite
def test_steps_outputs_beside_the_logs_stay(shop: Shop, ids: dict[str, str]) -> None:
    directory = shop.dagster_home / "storage" / ids["export"]
    (directory / "talk").mkdir(parents=True)
    (directory / "talk" / "result").write_text("of a step")

    assert shop.clean().status == "done"

    assert (directory / "talk" / "result").read_text() == "of a step"
    assert not (directory / "compute_logs").exists()


def test_an_instance_that_was_not_migrated_is_left_alone(shop: Shop) -> None:
    if shop.url is None:
        shop.sql("ALTER TABLE asset_check_executions RENAME TO other", "index")
        said = "there is no table asset_check_executions"
    else:
        shop.sql("DROP INDEX idx_run_tags_run_idx")
        said = "no index idx_run_tags_run_idx"
    before = shop.fingerprint()

    refused = shop.clean()

    assert said in str(refused.problems)
    assert shop.fingerprint() == before


@on_sqlite
def test_backups_of_runs_are_verified_and_pruned_like_those_of_files(shop: Shop) -> None:
    purged = shop.clean().checked.run.request.run_id
    with shop.service() as service:
        (backups,) = service.backups()
        verified = service.verify_backups()
        assert (backups.run_id, verified.sound.files, verified.damaged) == (purged, len(FREE), ())

    with shop.service(ahead_days=8) as service:
        assert service.prune_backups().copies.files == len(FREE)

    assert not list((shop.home / "backups").glob("*.tar.zst"))


@on_sqlite
def test_the_audit_counts_runs(shop: Shop) -> None:
    planned = shop.clean(dry=True).checked.plans[0].deletable.bytes
    shop.clean()

    ((deleted, freed, skipped, failed),) = shop.state_sql(
        "SELECT records_deleted, space_freed_bytes, records_skipped, records_failed FROM cleanup_audit"
        " WHERE data_type = 'dagster_runs'"
    )
    assert (deleted, skipped, failed) == (len(FREE), 0, 0)
    assert freed == planned
