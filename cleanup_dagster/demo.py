"""A cleanup to watch: `python -m cleanup_dagster.demo` makes a scratch platform and cleans it, dry and then live.

Dagster does the work, in a process and a home of its own. The demo looks at the files before and after and compares
them with what was promised; it ends with an error when anything is not as it should be.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from msgspec import Struct
from rich import box
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from cleanup_dagster.backups.files import open_file_backups
from cleanup_dagster.backups.manifest import read_manifest
from cleanup_dagster.bootstrap import open_database
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.errors import DatabaseUnavailable
from cleanup_dagster.database.holds import add_hold
from cleanup_dagster.database.policies import load_policies
from cleanup_dagster.demo_platform import Entry, Platform, hash_of, make_platform, somebody_writes
from cleanup_dagster.filesystem.names import to_os
from cleanup_dagster.filesystem.private import UnsafeDirectoryError
from cleanup_dagster.retention.guardrails import format_bytes
from cleanup_dagster.retention.models import (
    Outcome,
    Policy,
    Reason,
    Receipt,
    State,
    Verdict,
)
from cleanup_dagster.retention.rules import format_age, sentence
from cleanup_dagster.settings import ConfigError, load_settings
from cleanup_dagster.state import open_state

_WIDTH = 100
_STEP = re.compile(r" - (\S+) - STEP_START - ")
_LOG_TAIL = 15
_NOBODY_READS = 128 + signal.SIGPIPE  # the code of whatever a broken pipe ends
_RUN = "SELECT run_id FROM cleanup_runs WHERE dry_run = ? ORDER BY started_at DESC LIMIT 1"
_AUDIT = (
    "SELECT data_type, records_deleted, space_freed_bytes, records_skipped, outcome, executed_by"
    " FROM cleanup_audit WHERE run_id = ? ORDER BY data_type"
)


class BrokenPromiseError(Exception):
    """Something is not as it was promised."""


class Judged(Struct, frozen=True):
    """One verdict, and where its file is below the scratch directory."""

    place: str
    verdict: Verdict


class Demo:
    """One demo: what it says goes to `console`."""

    def __init__(self, platform: Platform, console: Console) -> None:
        self.platform = platform
        self.console = console
        self._settings = load_settings(
            {"DAGSTER_HOME": str(platform.home), "CLEANUP_CONFIG": str(platform.config)},
        )
        self._roots = {target.name: target.root.relative_to(platform.directory) for target in self._settings.targets}

    def run(self) -> None:
        """Show everything. Raises BrokenPromiseError."""
        self._hold()
        with somebody_writes(self.platform.in_use):
            before = self.platform.snapshot()
            self._introduce(len(before))
            plan = self._dry_run(before)
            self._live_run(before, plan)
            self._restore(before)

    def _introduce(self, files: int) -> None:
        self._say(
            f"A scratch platform of {files} files: operation files in every shape, dbt logs and artifacts, application "
            "logs, temporary files. One is held, one is being written right now, one is a symbolic link, one has a "
            "second hard link, and one has a name that would take over a terminal. Dagster cleans it, first dry and "
            "then live, and nothing outside of it is touched:"
        )
        self.console.print(Text(f"  {self.platform.directory}"), soft_wrap=True)

    def _hold(self) -> None:
        with open_state(self._settings.state_dir) as state:
            engine = open_database(self._settings, state)
            with engine.begin() as conn:
                add_hold(
                    conn,
                    pattern=str(self.platform.held),
                    reason="the auditors are looking at it",
                    placed_by="the demo",
                    now_ns=time.time_ns(),
                )
            with reading(engine) as conn:
                policies = load_policies(conn)
            engine.dispose()
        self._days = {name: p.retention_days for name, p in policies.items() if isinstance(p, Policy) and p.enabled}

    def _dry_run(self, before: dict[str, Entry]) -> list[Judged]:
        self._title("1. Dry run: what would go, and why")
        run_id = self._dagster(dry_run=True)
        plan = sorted(self._plan(run_id), key=lambda item: not self.platform.is_odd(Path(item.place).name))
        self._show_types(plan)
        self._show_kept(plan)
        self._show_examples(plan)
        self._promise(self.platform.snapshot() == before, "a dry run changes nothing")
        self._promise(not self.platform.backups.exists(), "a dry run makes no backup directory")
        self._good("Nothing was touched: every file is the same, to the byte and the nanosecond.")
        return plan

    def _live_run(self, before: dict[str, Entry], plan: Sequence[Judged]) -> None:
        self._title("2. Live run: back up, delete, audit")
        run_id = self._dagster(dry_run=False)
        after = self.platform.snapshot()
        planned = {item.place for item in plan if item.verdict.delete}
        outcomes = dict(self._outcomes(run_id))
        gone = before.keys() - after.keys()
        spared = {place: outcome for place, outcome in outcomes.items() if outcome.state is not State.DELETED}
        self._show_audit(run_id)
        for place, outcome in sorted(spared.items()):
            self._say(f"Left alone, although expired: {place}: {outcome.detail}")

        in_use = str(self.platform.in_use.relative_to(self.platform.directory))
        self._promise({item.place for item in self._plan(run_id) if item.verdict.delete} == planned, "the same plan")
        self._promise(set(spared) == {in_use}, "only the file that is being written is left alone")
        self._promise(gone == planned - spared.keys(), "exactly the planned files are gone")
        self._good(f"{len(gone)} files are gone: those of the dry run, but for the one in use.")
        self._promise(all(before.get(place) == entry for place, entry in after.items()), "everything else is unchanged")
        self._good(f"The other {len(after)} are unchanged, and there is nothing new.")
        self._check_backups(run_id, before, gone)

    def _check_backups(self, run_id: str, before: dict[str, Entry], gone: set[str]) -> None:
        copies = 0
        with open_file_backups(self.platform.backups, run_id) as store:
            for place, receipt in self._receipts(run_id):
                if place in gone:
                    sound = store.problem(receipt) is None and receipt.sha256 == before[place].content
                    self._promise(sound, f"{place} is backed up")
                    copies += 1
        self._promise(copies == len(gone), "every file that is gone is backed up")
        self._good(f"{copies} backups hold the bytes that were deleted (sha256 compared).")
        self._say("")
        logs = sorted(self.platform.backups.glob("cleanup_*.log"))
        self._promise(len(logs) == 1, "a live run writes one log")
        self._show_paths(
            [
                ("backups", self.platform.backups, "of operations plain copies, of the rest archives; kept for 7 days"),
                ("log", logs[0], "each file with its outcome"),
                ("manifests", self.platform.state / "manifests" / run_id, "the proof, kept for a year"),
                ("database", self._database, "policies, holds, runs, audit"),
            ]
        )

    def _restore(self, before: dict[str, Entry]) -> None:
        self._title("3. Restore one file with cp")
        original = self.platform.to_restore
        place = str(original.relative_to(self.platform.directory))
        command = ["cp", str(self.platform.backups / f"{original.name}.backup"), str(original)]
        self.console.print(Text(shlex.join(command), style="bold"), soft_wrap=True)
        subprocess.run(command, check=True)  # noqa: S603 the paths are the demo's own
        self._promise(hash_of(original) == before[place].content, "a restored file has its old bytes")
        self._good("The bytes are the same as before.")
        self._say("And the next run? Another dry run tells:")
        judged = {item.place: item.verdict for item in self._plan(self._dagster(dry_run=True))}
        self._promise(judged[place].reason is Reason.PUT_BACK, "a file that was put back is kept")
        self._good(f"{original.name} stays: {sentence(judged[place])}")

    def _dagster(self, *, dry_run: bool) -> str:
        """Run the job as anybody would, and return the run's id."""
        name = "dry" if dry_run else "live"
        config = self.platform.directory / f"{name}.yaml"
        config.write_text(f"dry_run: {str(dry_run).lower()}\ntype: manual\n")
        log = self.platform.directory / f"dagster-{name}.log"
        job = ["-m", "cleanup_dagster.definitions", "-j", "cleanup", "-c", config.name]
        self._say(f"$ dagster job execute {' '.join(job)}")
        started = time.monotonic()
        command = [sys.executable, "-W", "ignore", "-m", "dagster", "job", "execute", *job]
        with (
            self.console.status("Dagster is starting") as status,
            log.open("w", encoding="utf-8") as lines,
            subprocess.Popen(  # noqa: S603 our own command
                command,
                cwd=self.platform.directory,
                env=self._environment(),
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            for line in process.stdout or ():
                lines.write(line)
                if step := _STEP.search(line):
                    status.update(Text(f"Dagster: {step[1]}"))
        if process.returncode:
            tail = "".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-_LOG_TAIL:])
            raise BrokenPromiseError(f"the {name} run failed; the end of its log ({log}):\n{tail}")
        self._say(f"Done in {time.monotonic() - started:.1f} s.\n")
        return str(next(self._rows(_RUN, dry_run))[0])

    def _environment(self) -> dict[str, str]:
        """Return this process's environment without whatever could lead to another installation."""
        foreign = ("CLEANUP_", "DAGSTER_", "DBT_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return kept | {"DAGSTER_HOME": str(self.platform.home), "CLEANUP_CONFIG": str(self.platform.config)}

    @property
    def _database(self) -> Path:
        return self.platform.state / "cleanup.db"

    def _rows(self, query: str, *values: object) -> Iterator[tuple[object, ...]]:
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True)) as conn:
            yield from conn.execute(query, values)

    def _place(self, target: str, path: str) -> str:
        return str(self._roots[target] / to_os(path))

    def _plan(self, run_id: str) -> Iterator[Judged]:
        for target in self._roots:
            for verdict in read_manifest(self.platform.state / "plans" / run_id / f"{target}.jsonl.zst", Verdict):
                yield Judged(self._place(target, verdict.candidate.path), verdict)

    def _manifests(self, run_id: str, what: str) -> Iterator[tuple[str, Path]]:
        for target in self._roots:
            path = self.platform.state / "manifests" / run_id / f"{target}.{what}.jsonl.zst"
            if path.exists():  # a target with nothing to delete has none
                yield target, path

    def _receipts(self, run_id: str) -> Iterator[tuple[str, Receipt]]:
        for target, path in self._manifests(run_id, "receipts"):
            for receipt in read_manifest(path, Receipt):
                yield self._place(target, receipt.path), receipt

    def _outcomes(self, run_id: str) -> Iterator[tuple[str, Outcome]]:
        for what in ("skipped", "outcomes"):
            for target, path in self._manifests(run_id, what):
                for outcome in read_manifest(path, Outcome):
                    yield self._place(target, outcome.path), outcome

    def _show_types(self, plan: Sequence[Judged]) -> None:
        table = _table("Data type", ">Kept for", ">Found", ">Would go", ">Size", ">Oldest")
        for data_type in sorted({item.verdict.candidate.data_type for item in plan}):
            found = [item.verdict for item in plan if item.verdict.candidate.data_type == data_type]
            expired = [verdict for verdict in found if verdict.delete]
            days = self._days[data_type]
            table.add_row(
                data_type,
                f"{days} day{'s' if days > 1 else ''}",
                str(len(found)),
                str(len(expired)),
                format_bytes(_bytes(expired)),
                format_age(max((verdict.age_ns for verdict in expired), default=0)),
            )
        expired = [item.verdict for item in plan if item.verdict.delete]
        table.add_section()
        table.add_row("together", "", str(len(plan)), str(len(expired)), format_bytes(_bytes(expired)), "")
        self.console.print(table)

    def _show_kept(self, plan: Iterable[Judged]) -> None:
        table = _table("Kept because", ">Files", "For example")
        kept: dict[Reason, list[Judged]] = {}
        for item in plan:
            if not item.verdict.delete:
                kept.setdefault(item.verdict.reason, []).append(item)
        for reason, items in sorted(kept.items(), key=lambda entry: -len(entry[1])):
            table.add_row(reason.value, str(len(items)), Text(items[0].verdict.candidate.path))
        self.console.print(table)

    def _show_examples(self, plan: Iterable[Judged]) -> None:
        table = _table("", "Some files", "Why")
        examples: dict[tuple[object, ...], Verdict] = {}
        for item in plan:
            verdict, candidate = item.verdict, item.verdict.candidate
            kind = candidate.data_type if verdict.delete else ""
            examples.setdefault((not verdict.delete, verdict.reason, kind, candidate.age_from, candidate.note), verdict)
        for (stays, *_), verdict in sorted(examples.items(), key=lambda entry: str(entry[0])):
            mark = Text("stays", "green") if stays else Text("goes", "red")
            table.add_row(mark, Text(verdict.candidate.path), Text(sentence(verdict)))
        self.console.print(table)

    def _show_audit(self, run_id: str) -> None:
        table = _table("Audit", ">Deleted", ">Freed", ">Skipped", "Outcome", "By")
        for data_type, deleted, freed, skipped, outcome, by in self._rows(_AUDIT, run_id):
            size = format_bytes(freed) if isinstance(freed, int) else ""
            table.add_row(str(data_type), str(deleted), size, str(skipped), str(outcome), Text(str(by)))
        self.console.print(table)

    def _show_paths(self, paths: Iterable[tuple[str, Path, str]]) -> None:
        for name, path, what in paths:
            self.console.print(Text(f"{name} ({what}):"))
            self.console.print(Text(f"  {path}"), soft_wrap=True)

    def _title(self, text: str) -> None:
        self.console.print()
        self.console.print(Rule(Text(text, style="bold"), align="left"))

    def _say(self, text: str) -> None:
        self.console.print(Text(text))

    def _good(self, text: str) -> None:
        self.console.print(Text.assemble(("ok ", "bold green"), text))

    def _promise(self, kept: bool, what: str) -> None:
        if not kept:
            raise BrokenPromiseError(f"this does not hold: {what}")


def _bytes(verdicts: Iterable[Verdict]) -> int:
    return sum(verdict.candidate.identity.size for verdict in verdicts)


def _table(*columns: str) -> Table:
    """Return a table; a column whose title begins with `>` is set to the right."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for title in columns:
        table.add_column(title.removeprefix(">"), justify="right" if title.startswith(">") else "left", overflow="fold")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m cleanup_dagster.demo", description="Make a scratch platform, and clean it dry and then live."
    )
    parser.add_argument("--directory", type=Path, help="where to make the scratch directory (default: the system's)")
    parser.add_argument("--keep", action="store_true", help="leave the scratch directory there")
    given = parser.parse_args(arguments)
    console = Console(width=min(Console().width, _WIDTH), highlight=False)
    try:
        scratch = Path(tempfile.mkdtemp(prefix="cleanup-demo-", dir=given.directory)).resolve()
    except OSError as error:
        console.print(Text(f"No scratch directory can be made in {given.directory}: {error.strerror}"))
        return 2
    try:
        return _perform(scratch, console, keep=given.keep)
    except SystemExit:  # rich ends so when nobody reads its output any more (`| head`), which then leads nowhere
        if not given.keep:
            shutil.rmtree(scratch, ignore_errors=True)  # it may be gone already
        return _NOBODY_READS


def _perform(scratch: Path, console: Console, *, keep: bool) -> int:
    """Do everything in a scratch directory, and return the exit code. Raises SystemExit when nobody reads any more."""
    started = time.monotonic()
    try:
        Demo(make_platform(scratch), console).run()
    except BrokenPromiseError as problem:
        console.print(Text(f"\nThe demo stopped: {problem}", style="red"), soft_wrap=True)
        console.print(Text(f"Everything is still there for a look: {scratch}"), soft_wrap=True)
        return 1
    except (ConfigError, DatabaseUnavailable, UnsafeDirectoryError, OSError) as problem:
        shutil.rmtree(scratch)
        console.print(Text(f"The demo cannot run in {scratch.parent}: {problem}"), soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        shutil.rmtree(scratch)
        console.print(Text("\nStopped. The scratch directory is removed."))
        return 130
    console.print(f"\nEverything was as promised, in {time.monotonic() - started:.0f} s.")
    if keep:
        _say_what_is_left(console, scratch)
    else:
        shutil.rmtree(scratch)
        console.print("The scratch directory is removed again; --keep (make demo ARGS=--keep) leaves it there.")
    return 0


def _say_what_is_left(console: Console, scratch: Path) -> None:
    platform = Platform(scratch)
    variables = f"DAGSTER_HOME={shlex.quote(str(platform.home))} CLEANUP_CONFIG={shlex.quote(str(platform.config))}"
    dagster = shlex.quote(str(Path(sys.executable).with_name("dagster")))
    console.print(Text(f"The scratch directory stays: {scratch}"), soft_wrap=True)
    console.print("To see these runs in Dagster's UI:")
    console.print(Text(f"  {variables} {dagster} dev -m cleanup_dagster.definitions", style="bold"), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
