"""A scratch platform to clean: its directories, its configuration, its database, and a clock that can be set."""

import json
import os
import time
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import URL, Engine

from cleanup_dagster.bootstrap import open_service
from cleanup_dagster.database.engine import open_engine
from cleanup_dagster.database.schema import upgrade
from cleanup_dagster.handles import CheckedPlan, Deleted, Plan, Pruned, Report, Request, Run
from cleanup_dagster.retention.models import NS_PER_DAY, CleanupType
from cleanup_dagster.service import CleanupService
from cleanup_dagster.settings import Settings, load_settings

DAY = 86_400
MANUAL, EMERGENCY = CleanupType.MANUAL, CleanupType.EMERGENCY


class Clock:
    """The host's clock, ahead of the true time by as much as a test wants."""

    def __init__(self) -> None:
        self.ahead_ns = 0

    def __call__(self) -> int:
        return time.time_ns() + self.ahead_ns

    def advance(self, *, days: float = 0, seconds: float = 0) -> None:
        self.ahead_ns += int(days * NS_PER_DAY + seconds * 1e9)


class Ended(msgspec.Struct, frozen=True):
    """Everything one run said on its way."""

    run: Run
    checked: CheckedPlan
    results: tuple[Deleted, ...]
    report: Report
    pruned: Pruned

    @property
    def plans(self) -> dict[str, Plan]:
        return {plan.target: plan for plan in self.checked.plans}

    @property
    def problems(self) -> str:
        return "\n".join((*self.report.problems, *self.pruned.problems))

    @property
    def tripped(self) -> list[str]:
        return sorted(refusal.guardrail.value for refusal in self.checked.refusals)


class Platform:
    """Two roots, `operations` and `logs`, below one directory. A share limit would refuse most tests; it is off."""

    def __init__(self, home: Path, database: URL | None = None, *, new: bool = True) -> None:
        self.home = home
        self.operations = home / "operations"
        self.logs = home / "logs"
        self.backups = home / "backups"
        self.state = home / "state"
        self.clock = Clock()
        self.database = database
        self.config: dict[str, Any] = {
            "backup": {"directory": str(self.backups)},
            "limits": {"max_share": 1.0},
            "targets": [
                {"name": "operations", "kind": "operations", "root": str(self.operations)},
                {
                    "name": "logs",
                    "kind": "files",
                    "data_type": "system_logs",
                    "root": str(self.logs),
                    "format": "files",  # whose copies tests can look at and spoil; archives have tests of their own
                },
            ],
        }
        if not new:
            self.config = json.loads((home / "cleanup.yaml").read_text())
            return
        self.operations.mkdir()
        self.logs.mkdir()
        self.configure()
        if database is not None:
            engine = open_engine(database)
            upgrade(engine)
            engine.dispose()

    def target(self, name: str) -> dict[str, Any]:
        """Return a target's mapping in the configuration, to be changed before the run."""
        return next(target for target in self.config["targets"] if target["name"] == name)

    def configure(self) -> Path:
        """Write the configuration as it is now."""
        file = self.home / "cleanup.yaml"
        content = json.dumps(self.config)  # JSON is YAML
        if not file.exists() or file.read_text() != content:
            file.write_text(content)
        return file

    def settings(self) -> Settings:
        environ = {"CLEANUP_STATE_DIR": str(self.state)}
        if self.database is not None:
            environ["CLEANUP_DATABASE_URL"] = self.database.render_as_string(hide_password=False)
        return load_settings(environ, self.configure())

    @contextmanager
    def service(self) -> Generator[CleanupService]:
        with open_service(self.settings(), self.clock) as service:
            yield service

    def run(
        self,
        *,
        dry: bool = False,
        cleanup_type: CleanupType = MANUAL,
        skip_backup: bool = False,
        run_id: str = "",
    ) -> Ended:
        """Do what the job does, in a service of its own."""
        with self.service() as service:
            return whole_run(
                service, request(dry=dry, cleanup_type=cleanup_type, skip_backup=skip_backup, run_id=run_id)
            )

    def dry(self) -> Ended:
        return self.run(dry=True)

    @contextmanager
    def engine(self) -> Generator[Engine]:
        """An engine on this platform's database, made on first use."""
        if self.database is None and not (self.state / "cleanup.db").exists():
            with self.service():
                pass
        engine = open_engine(self.database or URL.create("sqlite", database=str(self.state / "cleanup.db")))
        try:
            yield engine
        finally:
            engine.dispose()

    def sql(self, *statements: str) -> None:
        """Run statements as a person would type them."""
        with self.engine() as engine, engine.begin() as conn:
            for statement in statements:
                conn.exec_driver_sql(statement)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with self.engine() as engine, engine.connect() as conn:
            return [tuple(row) for row in conn.exec_driver_sql(query)]

    def hold(self, pattern: str, **columns: str) -> None:
        """Place a hold by plain SQL."""
        names = "".join(f", {name}" for name in columns)
        values = "".join(f", '{value}'" for value in columns.values())
        self.sql(f"INSERT INTO cleanup_holds (pattern, reason{names}) VALUES ('{pattern}', 'audit 2026'{values})")  # noqa: S608

    def operation(self, name: str, days: float, status: str = "completed", **fields: object) -> Path:
        """Write an operation file that ended so many days ago."""
        ended = time.time() - days * DAY
        content = {"operation_id": name, "status": status, "end_time": ended, **fields}
        return self.file(self.operations / f"operation_{name}.json", days, json.dumps(content))

    def log(self, name: str, days: float, content: str | None = None) -> Path:
        return self.file(self.logs / name, days, f"{name}\n" if content is None else content)

    def file(self, path: Path, days: float, content: str) -> Path:
        """Write a file that was last written so many days ago."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        then = time.time() - days * DAY
        os.utime(path, (then, then))
        return path


def request(
    *,
    dry: bool = False,
    cleanup_type: CleanupType = MANUAL,
    skip_backup: bool = False,
    run_id: str = "",
) -> Request:
    return Request(run_id or str(uuid.uuid4()), cleanup_type, dry, "alice", skip_backup)


def whole_run(service: CleanupService, asked: Request) -> Ended:
    """Drive the verbs in the order of the job's ops."""
    run = service.begin(asked)
    checked = scan_all(service, run)
    results: list[Deleted] = []
    if checked.may_delete:
        results = [service.delete(service.back_up(plan)) for plan in checked.plans]
    report = service.audit(checked, results)
    return Ended(run, checked, tuple(results), report, service.prune(run))


def scan_all(service: CleanupService, run: Run) -> CheckedPlan:
    return service.check(run, [service.scan(run, target) for target in run.targets])


def files(directory: Path) -> set[str]:
    """Return the paths of all files below a directory, relative to it."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def tree(*directories: Path) -> Mapping[str, tuple[object, ...]]:
    """Return everything that may not change in a dry run: names, kinds, bytes and times of all that is there."""
    found: dict[str, tuple[object, ...]] = {}
    for directory in directories:
        for path in (directory, *sorted(directory.rglob("*"))):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (
                status.st_mode,
                status.st_uid,
                status.st_ino,
                status.st_mtime_ns,
                status.st_ctime_ns,
                content,
            )
    return found


def left_behind(*directories: Path) -> list[str]:
    """Return what no finished run may leave: quarantines, staged copies, drafts."""
    return [
        str(path)
        for directory in directories
        if directory.exists()
        for path in directory.rglob("*")
        if path.name.startswith((".cleanup-q-", ".staging-")) or path.suffix in {".part", ".draft"}
    ]
