"""A small platform with something to clean, and the command line over it, with and without a terminal."""

import io
import json
import os
import re
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from two_roots import TwoRoots

from cleanup_dagster.cli import invoking

#: Name, age in days, and status. The first three have outlived their policies.
OPERATIONS = (
    ("old", 120, "completed"),
    ("older", 130, "completed"),
    ("crashed", 20, "failed"),
    ("new", 5, "completed"),
    ("running", 0, "running"),
)
EXPIRED = {"operation_old.json", "operation_older.json", "operation_crashed.json", "dbt.log.2"}
PROGRAM = str(Path(sys.executable).with_name("cleanup-operations"))


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Everything that was said, without colours, however the lines were broken."""
        return " ".join(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", f"{self.out} {self.err}").split())

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        return json.loads(self.out)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Platform(TwoRoots):
    """Directories `ops` and `dbt` with files of all ages, and a `cleanup.yaml` for them."""

    always: ClassVar[dict[str, Any]] = {"limits": {"free_space_reserve": 0, "allow_volatile_backup": True}}

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(home)
        self._monkeypatch = monkeypatch
        for name, days, status in OPERATIONS:
            self.operation(name, days, status)
        for number, days in enumerate((0, 3, 9)):
            self.put(self.dbt / f"dbt.log.{number}", "x" * 1000, days)
        self.configure()

    def operation(self, name: str, days: float, status: str = "completed") -> Path:
        return self.put(self.ops / f"operation_{name}.json", json.dumps({"operation_id": name, "status": status}), days)

    def call(self, *arguments: str, answer: str | None = None) -> Ended:
        """Run a command in this process; with an `answer` somebody sits at a terminal and types it."""
        kind = io.StringIO if answer is None else Terminal
        stdin, stdout, stderr = kind(answer or ""), kind(), kind()
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", stdin)
            patch.setattr(sys, "stdout", stdout)
            patch.setattr(sys, "stderr", stderr)
            code = invoking.run(arguments)
        return Ended(code, stdout.getvalue(), stderr.getvalue())

    def environment(self) -> dict[str, str]:
        """Return what a process of its own needs to find this platform and no other."""
        foreign = ("CLEANUP_", "DAGSTER_", "DBT_", "NO_COLOR", "COLUMNS")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return kept | {"CLEANUP_CONFIG": str(self.config), "TERM": "xterm-256color"}

    def files(self) -> set[str]:
        """Return the names of what both targets hold."""
        return {path.name for root in (self.ops, self.dbt) for path in root.rglob("*") if path.is_file()}

    def everything(self) -> Mapping[str, tuple[object, ...]]:
        """Return all there is in this platform's home, to the byte and the nanosecond, but for the database."""
        found: dict[str, tuple[object, ...]] = {}
        for path in sorted(self.home.rglob("*")):
            status = path.lstat()
            if path.is_file() and self.state not in path.parents:
                found[str(path)] = (status.st_ino, status.st_mode, status.st_mtime_ns, path.read_bytes())
        return found

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Return the answer of the embedded database."""
        with closing(sqlite3.connect(self.state / "cleanup.db")) as conn:
            return conn.execute(query).fetchall()

    def tell(self, statement: str, *values: object) -> None:
        """Change the embedded database as a person would."""
        with closing(sqlite3.connect(self.state / "cleanup.db")) as conn, conn:
            conn.execute(statement, values)
