"""The scratch platform of the demo: a few hundred files as a real one leaves them, of all ages, in all states."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

#: Holds its file open for appending until it is told to stop. On Linux that alone is noticed (a read lease cannot be
#: had); elsewhere programs have to say it themselves, by flock.
_WRITER = """
import fcntl, sys
with open(sys.argv[1], "a") as file:
    if sys.platform != "linux":
        fcntl.flock(file, fcntl.LOCK_EX)
    print("open", flush=True)
    sys.stdin.read()
"""
_CONFIG = """\
# What may be cleaned. How long things are kept is decided by the table cleanup_policies.
backup: {{directory: {backups}}}
limits: {{free_space_reserve: 16 MiB}}
targets:
  - {{name: operations, kind: operations, root: {operations}}}
  - {{name: dbt_logs, kind: files, data_type: dbt_logs, root: {dbt_logs}}}
  - {{name: dbt_target, kind: files, data_type: dbt_logs, root: {dbt_target}, remove_empty_dirs: true}}
  - {{name: app_logs, kind: files, data_type: system_logs, root: {logs}, patterns: ["*.log", "*.log.gz"]}}
  - {{name: scratch, kind: files, data_type: temp_files, root: {temp}, remove_empty_dirs: true}}
"""
_ORDINARY = re.compile(r"operation_[0-9a-f]{12}\.json|[^o].*", re.DOTALL)
_PIPELINES = ("orders_daily", "customer_360", "inventory_sync", "marketing_attribution")


class Entry(Struct, frozen=True):
    """What one name holds: the kind of thing, what is in it, and when it was changed."""

    mode: int
    content: str
    mtime_ns: int


class Platform(Struct, frozen=True):
    """Where everything of the scratch platform is."""

    directory: Path

    @property
    def operations(self) -> Path:
        """The operation files."""
        return self.directory / "platform" / "operations"

    @property
    def dbt(self) -> Path:
        """A dbt project, with logs and artifacts."""
        return self.directory / "platform" / "dbt"

    @property
    def logs(self) -> Path:
        """The logs of applications."""
        return self.directory / "platform" / "logs"

    @property
    def temp(self) -> Path:
        """Temporary files and caches."""
        return self.directory / "platform" / "tmp"

    @property
    def outside(self) -> Path:
        """Files that no target names."""
        return self.directory / "platform" / "outside"

    @property
    def backups(self) -> Path:
        """Where copies go."""
        return self.directory / "backups"

    @property
    def home(self) -> Path:
        """Dagster's home."""
        return self.directory / "dagster_home"

    @property
    def state(self) -> Path:
        """The state directory, at its default place."""
        return self.home / "cleanup"

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.directory / "cleanup.yaml"

    @property
    def held(self) -> Path:
        """An expired operation that somebody holds."""
        return self.operations / "operation_quarter_end.json"

    @property
    def in_use(self) -> Path:
        """An expired log that a process is still writing."""
        return self.logs / "exporter.log"

    @property
    def to_restore(self) -> Path:
        """An expired operation that is restored in the end."""
        return self.operations / "operation_inventory_sync_backfill.json"

    def is_odd(self, name: str) -> bool:
        """Return whether a file was put there to show something in particular."""
        return not _ORDINARY.fullmatch(name)

    def snapshot(self) -> dict[str, Entry]:
        """Return everything there is on the platform, by its path below `directory`."""
        found: dict[str, Entry] = {}
        for folder, _, names in os.walk(self.directory / "platform"):
            for name in names:
                path = Path(folder, name)
                status = path.lstat()
                content = str(path.readlink()) if path.is_symlink() else hash_of(path)
                found[str(path.relative_to(self.directory))] = Entry(status.st_mode, content, status.st_mtime_ns)
        return found


def hash_of(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    return sha256(path.read_bytes()).hexdigest()


def make_platform(directory: Path) -> Platform:
    """Fill an empty directory with a platform and a `cleanup.yaml` for it."""
    platform = Platform(directory)
    now = datetime.now(timezone.utc)
    make = _Maker(now)
    _operations(make, platform.operations)
    _odd_operations(make, platform)
    _dbt(make, platform.dbt)
    _logs_and_temporary_files(make, platform)
    make.file(platform.outside / "invoices.csv", "id,amount\n1,100\n" * 50, 400)
    platform.home.mkdir()
    (platform.home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    places = {
        "backups": platform.backups,
        "operations": platform.operations,
        "dbt_logs": platform.dbt / "logs",
        "dbt_target": platform.dbt / "target",
        "logs": platform.logs,
        "temp": platform.temp,
    }
    quoted = {name: json.dumps(str(place)) for name, place in places.items()}  # JSON's strings are YAML's, too
    platform.config.write_text(_CONFIG.format(**quoted))
    return platform


@contextmanager
def somebody_writes(path: Path) -> Generator[None]:
    """Have another process hold `path` open for writing."""
    command = [sys.executable, "-c", _WRITER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:  # noqa: S603 our own program above
        assert writer.stdin is not None  # noqa: S101 for the type checker: both are pipes
        assert writer.stdout is not None  # noqa: S101
        try:
            writer.stdout.readline()
            yield
        finally:
            writer.stdin.close()  # it reads the end, and exits


class _Maker:
    """Writes files that look as old as they should."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def ago(self, days: float) -> datetime:
        return self.now - timedelta(days=days)

    def file(self, path: Path, content: str, days_old: float) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        moment = self.ago(days_old).timestamp()
        os.utime(path, (moment, moment))
        return path

    def operation(self, directory: Path, days_old: float, content: dict[str, object], name: str = "") -> Path:
        name = name or str(content["operation_id"])
        return self.file(directory / f"operation_{name}.json", json.dumps(content, indent=2), days_old)


def _operations(make: _Maker, root: Path) -> None:
    """Write what the platform's writers write: progress, results in its place, errors, records of pipelines."""
    for number in range(90):
        make.operation(root, 2 * number + 0.1, _result(_id("result", number), succeeded=True))
    for number in range(45):
        make.operation(root, 3 * number + 0.1, _record(make, number, "success", 3 * number + 0.1))
    for number in range(30):
        make.operation(root, number + 0.1, _result(_id("failure", number), succeeded=False))
    for number in range(15):
        make.operation(root, 2 * number + 0.1, _error(_id("error", number)))
    for number in range(25):
        make.operation(root, number / 100, _progress(make, _id("running", number), number / 100))
    for number in range(10):
        days = 33 + 3 * number
        make.operation(root, days, _progress(make, _id("abandoned", number), days))


def _odd_operations(make: _Maker, platform: Platform) -> None:
    """Write what a cleaner has to get right."""
    root = platform.operations
    make.operation(root, 0.01, _progress(make, "big_migration", 45))  # started long ago, still at it
    make.file(root / "operation_half_written.json", '{"operation_id": "half_written", "status": "comp', 120)
    make.file(root / "operation_empty.json", "", 120)
    hostile = "operation_\x1b[31mred\x1b[0m\nrm -rf ~.json"
    make.file(root / hostile, json.dumps(_result("hostile", succeeded=True)), 150)
    make.operation(root, 200, _result("quarter_end", succeeded=True))
    touched = _record(make, 2, "completed", 140) | {"operation_id": "touched_yesterday"}
    make.operation(root, 1, touched)  # a copy gave it a new mtime, but it says itself when it ended
    restored = _record(make, 2, "completed", 120) | {"operation_id": "inventory_sync_backfill"}
    make.operation(root, 120, restored)
    wrong_clock = _result("wrong_clock", succeeded=True) | {"end_time": "2099-01-01T00:00:00Z"}
    make.operation(root, 130, wrong_clock)
    (root / "operation_latest.json").symlink_to(
        make.operation(platform.outside, 200, _result("linked", succeeded=True))
    )
    shared = make.operation(platform.outside, 200, _result("shared", succeeded=True), name="shared_copy")
    (root / "operation_shared.json").hardlink_to(shared)


def _dbt(make: _Maker, root: Path) -> None:
    for number in range(20):
        name = f"dbt.log.{number}" if number else "dbt.log"
        make.file(root / "logs" / name, f"[info ] Finished running 42 models, run {number}\n" * 300, number + 0.1)
    for number in range(40):
        folder = root / "target" / "run" / f"shop_{number // 10}"
        make.file(folder / f"model_{number}.sql", "create table as (select 1)\n" * 40, 0.5 * number + 0.1)
    for name in ("manifest.json", "run_results.json"):  # others load these, so dbt targets leave them out
        make.file(root / "target" / name, "{}" * 2_000, 40)


def _logs_and_temporary_files(make: _Maker, platform: Platform) -> None:
    for number in range(40):
        name = f"scheduler-{make.ago(2 * number):%Y-%m-%d}.log"
        make.file(platform.logs / name, "INFO tick evaluated in 12 ms\n" * 900, 2 * number + 0.1)
    make.file(platform.in_use, "INFO exported a batch\n" * 100, 45)
    for number in range(40):
        folder = platform.temp / f"session_{number // 5}"
        make.file(folder / f"part-{number:04}.tmp", "0123456789" * 400, number / 8 + 0.01)


def _id(kind: str, number: int) -> str:
    return sha256(f"{kind} {number}".encode()).hexdigest()[:12]


def _progress(make: _Maker, name: str, started_days_ago: float) -> dict[str, object]:
    return {
        "operation_id": name,
        "status": "running",
        "message": "Loading the fact tables",
        "progress": 40,
        "completed": False,
        "start_time": make.ago(started_days_ago).timestamp(),
    }


def _result(name: str, *, succeeded: bool) -> dict[str, object]:
    return {
        "success": succeeded,
        "reply": "All models were built." if succeeded else "A model could not be built.",
        "ui_blocks": [{"type": "text", "text": "42 models in 3 minutes"}],
        "operation_id": name,
        "completed": True,
        "status": "completed" if succeeded else "failed",
    }


def _error(name: str) -> dict[str, object]:
    return {
        "operation_id": name,
        "status": "error",
        "completed": True,
        "success": False,
        "error": "the warehouse did not answer",
    }


def _record(make: _Maker, number: int, status: str, ended_days_ago: float) -> dict[str, object]:
    end = make.ago(ended_days_ago)
    return {
        "operation_id": _id("record", number),
        "pipeline_name": _PIPELINES[number % len(_PIPELINES)],
        "status": status,
        "start_time": (end - timedelta(minutes=7)).isoformat(),
        "end_time": end.isoformat(),
        "progress": 100,
        "message": "done",
    }
