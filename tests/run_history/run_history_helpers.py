# ruff: noqa: S608  statements over ids and names of these tests themselves
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# Dagster leaves parts of its own signatures unknown.
"""An instance with real runs that were really executed, aged by moving their times, and the job that purges them."""

import hashlib
import json
import shutil
import sqlite3
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import sqlalchemy as sa
from sqlalchemy import URL

from cleanup_dagster.bootstrap import open_database
from cleanup_dagster.handles import Report, Request, RestoreReport, RestoreRequest
from cleanup_dagster.installation import Installation
from cleanup_dagster.orchestration.run_stores import run_store_of
from cleanup_dagster.retention.models import NS_PER_DAY, CleanupType
from cleanup_dagster.service import CleanupService
from cleanup_dagster.settings import load_settings
from cleanup_dagster.state import open_state

DAY = 86_400
LIVE = {"dry_run": False, "type": "manual"}
PARTITIONS = dg.StaticPartitionsDefinition(["a", "b", "c"])
TABLES = ("runs", "run_tags", "event_logs", "asset_event_tags", "asset_check_executions")


@dg.asset(partitions_def=PARTITIONS)
def orders(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    context.log.info("made %s", context.partition_key)
    print("printed by", context.partition_key)  # noqa: T201 into the compute log
    return dg.MaterializeResult(metadata={"rows": 7}, tags={"owner": "shop"})


@dg.asset
def daily() -> int:
    return 1


@dg.asset_check(asset=daily)
def daily_is_one() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True, metadata={"seen": 1})


@dg.asset(partitions_def=PARTITIONS)
def fragile() -> int:
    raise ValueError("as always")


@dg.op
def look(context: dg.OpExecutionContext) -> None:
    context.log_event(dg.AssetObservation("source", tags={"dagster/data_version": "seven"}))


@dg.job
def observe() -> None:
    look()


@dg.op
def glance(context: dg.OpExecutionContext) -> None:
    context.log_event(dg.AssetObservation("source", description="without a data version"))


@dg.job
def peek() -> None:
    glance()


@dg.op
def talk(context: dg.OpExecutionContext) -> None:
    context.log.info('Grüße, \\u0000 "quoted" and\nbroken')


@dg.job
def export() -> None:
    talk()


@dg.op
def crash() -> None:
    raise RuntimeError("down")


@dg.job
def flaky() -> None:
    crash()


SHOP = dg.Definitions(assets=[orders, daily, fragile], asset_checks=[daily_is_one], jobs=[export, flaky, observe, peek])


class Shop:
    """A Dagster instance in `home` on SQLite or Postgres, and a cleanup configured over it."""

    def __init__(self, home: Path, url: URL | None) -> None:
        self.home, self.url = home, url
        self._instance: dg.DagsterInstance | None = None
        self.dagster_home = home / "dagster_home"
        self.dagster_home.mkdir(exist_ok=True)
        self.config: dict[str, Any] = {
            "backup": {"directory": str(home / "backups")},
            "state_dir": str(home / "state"),
            "limits": {"max_share": 1.0, "free_space_reserve": 0},
            "targets": [{"name": "runs", "kind": "dagster_runs", "keep_last_per_job": 0}],
        }
        storage = (
            {}
            if url is None
            else {"storage": {"postgres": {"postgres_url": url.render_as_string(hide_password=False)}}}
        )
        (self.dagster_home / "dagster.yaml").write_text(
            json.dumps({**storage, "telemetry": {"enabled": False}, "python_logs": {"python_log_level": "ERROR"}})
        )
        self.configure()

    def copy(self, home: Path, url: URL | None) -> "Shop":
        """Return another shop with the same past: on SQLite a copy of the files, on Postgres of the database."""
        shutil.copytree(self.dagster_home, home / "dagster_home")
        shutil.copytree(self.home / "state", home / "state")
        return Shop(home, url)

    def configure(self, **keys: object) -> None:
        self.config["targets"][0] |= keys
        (self.home / "cleanup.yaml").write_text(json.dumps(self.config))

    @contextmanager
    def instance(self) -> Generator[dg.DagsterInstance]:
        """Open the instance once for all: opening one takes a third of a second."""
        if self._instance is None:
            self._instance = dg.DagsterInstance.from_config(str(self.dagster_home))
        yield self._instance

    def close(self) -> None:
        if self._instance is not None:
            self._instance.dispose()

    def run(self, job: str = "export", **how: Any) -> str:
        with self.instance() as instance:
            return SHOP.resolve_job_def(job).execute_in_process(instance=instance, raise_on_error=False, **how).run_id

    def materialize(self, *names: str, partition: str | None = None) -> str:
        with self.instance() as instance:
            job = SHOP.resolve_implicit_global_asset_job_def()
            return job.execute_in_process(
                instance=instance,
                raise_on_error=False,
                partition_key=partition,
                asset_selection=[dg.AssetKey(name) for name in names],
            ).run_id

    def again(self, run_id: str, job: str = "flaky") -> str:
        """Execute a run again, with the tags by which Dagster knows the two belong together."""
        with self.instance() as instance:
            parent = instance.get_run_by_id(run_id)
            assert parent is not None
            tags = {"dagster/parent_run_id": run_id, "dagster/root_run_id": parent.root_run_id or run_id}
        return self.run(job, tags=tags)

    @contextmanager
    def connect(self, name: str = "runs") -> Generator[sa.Connection]:
        if self.url is not None:
            engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        else:
            place = self.dagster_home / "history" / ("runs.db" if name == "runs" else f"runs/{name}.db")
            engine = sa.create_engine(f"sqlite:///{place}", poolclass=sa.NullPool)
        with engine.begin() as conn:
            yield conn
        engine.dispose()

    def age(self, days: float = 120, *run_ids: str) -> None:
        """Move the end of runs so many days back."""
        with self.connect() as conn:
            sql = "UPDATE runs SET start_time = start_time - :s, end_time = end_time - :s"
            if run_ids:
                sql += " WHERE run_id IN (" + ",".join(f"'{one}'" for one in run_ids) + ")"
            conn.execute(sa.text(sql), {"s": days * DAY})

    def sql(self, statement: str, name: str = "runs") -> list[Any]:
        with self.connect(name) as conn:
            result = conn.execute(sa.text(statement))
            return list(result) if result.returns_rows else []

    def run_ids(self) -> set[str]:
        return {
            run_id
            for (run_id,) in self.sql("SELECT run_id FROM runs WHERE pipeline_name NOT IN ('cleanup', 'restore')")
        }

    def fingerprint(self) -> dict[str, str]:
        """The sha256 of every table's rows, as the driver returns them, without the runs of the cleanup itself."""
        found: dict[str, str] = {}
        names = ["runs"] if self.url is not None else ["runs", "index", *sorted(p.stem for p in self.shards())]
        ours = {
            run_id for (run_id,) in self.sql("SELECT run_id FROM runs WHERE pipeline_name IN ('cleanup', 'restore')")
        }
        for name in names:
            if name in ours:
                continue
            with self.connect(name) as conn:
                for table in TABLES:
                    if not sa.inspect(conn).has_table(table):
                        continue
                    rows = [tuple(row) for row in conn.exec_driver_sql(f"SELECT * FROM {table} ORDER BY id")]
                    rows = [row for row in rows if not ours & set(map(str, row)) and '["cleanup", ' not in str(row)]
                    found[f"{name}.{table}"] = hashlib.sha256(repr(rows).encode()).hexdigest() + f" {len(rows)}"
        return found

    def shards(self) -> list[Path]:
        return [p for p in (self.dagster_home / "history" / "runs").glob("*.db") if p.stem != "index"]

    def logs(self) -> dict[str, bytes]:
        ours = {
            run_id for (run_id,) in self.sql("SELECT run_id FROM runs WHERE pipeline_name IN ('cleanup', 'restore')")
        }
        storage = self.dagster_home / "storage"
        return {
            str(path.relative_to(storage)): path.read_bytes()
            for path in sorted(storage.rglob("compute_logs/*"))
            if path.relative_to(storage).parts[0] not in ours
        }

    def enable(self, days: int = 90) -> None:
        self.state_sql(
            f"UPDATE cleanup_policies SET enabled = true, retention_days = {days} WHERE data_type = 'dagster_runs'"
        )

    def state_sql(self, statement: str) -> list[Any]:
        with closing(sqlite3.connect(self.home / "state" / "cleanup.db")) as conn, conn:
            return conn.execute(statement).fetchall()

    def job(self, config: dict[str, Any], job: str = "cleanup") -> dg.ExecuteInProcessResult:
        """Run a job of ours on this instance, as Dagster does."""
        from cleanup_dagster.definitions import defs

        with self.instance() as instance:
            return defs.resolve_job_def(job).execute_in_process(
                run_config=config, instance=instance, raise_on_error=False
            )

    @contextmanager
    def service(self, ahead_days: float = 0) -> Generator[CleanupService]:
        settings = load_settings()
        with self.instance() as instance, open_state(settings.state_dir) as state:
            engine = open_database(settings, state)
            clock = lambda: time.time_ns() + int(ahead_days * NS_PER_DAY)  # noqa: E731
            installation = Installation(settings, engine, state, clock, run_store_of(instance))
            yield CleanupService(installation)
            installation.close()
            engine.dispose()

    def clean(
        self,
        *,
        dry: bool = False,
        plan: str = "",
        run_id: str = "",
        before_deleting: Callable[[], object] = lambda: None,
        **how: Any,
    ) -> Report:
        """Do what the job does, without the events that Dagster writes for every step of it."""
        asked = Request(run_id or str(uuid.uuid4()), CleanupType.MANUAL, dry, "alice", plan=plan, **how)
        with self.service() as service:
            run = service.begin(asked)
            checked = service.check(run, [service.scan(run, target) for target in run.targets])
            backed_up = [service.back_up(plan) for plan in checked.plans] if checked.may_delete else []
            before_deleting()
            return service.audit(checked, [service.delete(one) for one in backed_up])

    def restore(self, of_run: str, *paths: str, dry: bool = False) -> RestoreReport:
        with self.service() as service:
            return service.restore(RestoreRequest(str(uuid.uuid4()), of_run, "alice", paths, dry_run=dry))


class Past(NamedTuple):
    """A shop to be copied, its runs by what they did, and the server its copies are made on."""

    shop: Shop
    ids: dict[str, str]
    server: URL | None


def catalog(shop: Shop) -> dict[str, Any]:
    """Everything that Dagster's API tells of assets, partitions and checks."""
    from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

    kinds = dg.DagsterEventType
    check = dg.AssetCheckKey(dg.AssetKey("daily"), "daily_is_one")
    with shop.instance() as instance:
        storage = instance.event_log_storage
        keys = sorted((key for key in storage.all_asset_keys() if key.path[0] != "cleanup"), key=str)
        found: dict[str, Any] = {"keys": keys}
        for record in storage.get_asset_records(keys):
            entry = record.asset_entry
            found[f"record {entry.asset_key}"] = (
                entry.last_materialization_record,
                entry.last_run_id,
                instance.get_run_by_id(entry.last_run_id) if entry.last_run_id else None,
                entry.last_observation_record,
                entry.last_planned_materialization_storage_id,
            )
        for key in keys:
            found[f"materialized {key}"] = storage.get_materialized_partitions(key)
            found[f"versions {key}"] = instance.get_latest_data_version_record(key)
            for kind in (kinds.ASSET_MATERIALIZATION, kinds.ASSET_OBSERVATION, kinds.ASSET_MATERIALIZATION_PLANNED):
                found[f"{kind} {key}"] = storage.get_latest_storage_id_by_partition(key, kind)
            found[f"tags {key}"] = storage.get_latest_tags_by_partition(
                key, kinds.ASSET_MATERIALIZATION, ["dagster/data_version"]
            )
            found[f"attempts {key}"] = (
                storage.get_latest_asset_partition_materialization_attempts_without_materializations(key)
            )
        for key in (dg.AssetKey("orders"), dg.AssetKey("fragile")):
            status = get_and_update_asset_status_cache_value(instance, key, PARTITIONS)
            assert status is not None
            found[f"status {key}"] = (
                sorted(status.deserialize_materialized_partition_subsets(PARTITIONS).get_partition_keys()),
                sorted(status.deserialize_failed_partition_subsets(PARTITIONS).get_partition_keys()),
            )
            instance.wipe_asset_cached_status([key])  # so that it is told anew, from what is there then
        found["check"] = storage.get_latest_asset_check_execution_by_key([check])
        found["check partitions"] = storage.get_asset_check_partition_info([check])
        found["summary"] = storage.get_asset_check_summary_records([check])
        return {key: repr(value) for key, value in found.items()}


def why(result: dg.ExecuteInProcessResult) -> list[str]:
    """Say which steps failed, and with which words."""
    return [
        f"{event.step_key}: {event.step_failure_data.user_failure_data or event.step_failure_data.error}"
        for event in result.all_events
        if event.is_step_failure
    ]


def make_history(shop: Shop) -> dict[str, str]:
    """Execute runs of every kind, all long over, and return their ids. Assets depend on those that begin with `new`."""
    ids = {
        "export": shop.run(),
        "export again": shop.run(),
        "flaky": shop.run("flaky"),
        "orders a": shop.materialize("orders", partition="a"),
        "daily": shop.materialize("daily"),
        "observe": shop.run("observe"),
        "peek": shop.run("peek"),
    }
    ids["flaky retried"] = shop.again(ids["flaky"])
    ids |= {
        "peek again": shop.run("peek"),
        "orders a again": shop.materialize("orders", partition="a"),
        "new orders b": shop.materialize("orders", partition="b"),
        "new fragile": shop.materialize("fragile", partition="a"),
        "new daily": shop.materialize("daily"),
    }
    ids["new fragile b"] = shop.materialize("fragile", partition="b")
    shop.age()
    shop.clean(dry=True)  # makes the database of the cleanup
    shop.enable()
    return ids
