"""The whole proof, with its numbers: `make prove`. Takes minutes, and root for all of it.

Runs the tests that strike and attack, at every point instead of a sample, and adds up what they say they did.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.table import Table

_TESTS = Path(__file__).parent.parent

#: Jobs that run side by side, the longest first: what pytest is to run.
JOBS = [
    ["reliability/test_reliability_faults.py", "-k", "power and not archive"],
    ["reliability/test_reliability_faults.py", "-k", "power and archive"],
    ["reliability/test_reliability_faults.py", "-k", "not power"],
    ["reliability/test_reliability_mutations.py"],
    ["reliability/test_reliability_attackers.py", "collectors/test_deletion_races.py"],
    [
        "reliability/test_reliability_disk_full.py",
        "reliability/test_reliability_durability.py",
        "reliability/test_reliability_protocol.py",
        "collectors/test_deletion_faults.py",
        "service/test_service_database_loss.py",
        "service/test_service_recovery.py",
    ],
]

#: What the tests count, and how it is said.
ROWS = {
    "power cuts": "power cut at a call of a run, on ext4",
    "kills": "kill -9 at a call of a run",
    "errors": "a call fails: EIO ENOSPC EDQUOT EACCES EROFS EMFILE",
    "kills and errors in recovery": "struck again while recovering from a kill",
    "full disks": "a disk runs full between two steps",
    "attacks": "moves of attackers who swap, link, mount, append",
}


class Case(NamedTuple):
    """One test: its name, how it ended, why if not well, and what it counted."""

    name: str
    ended: str
    why: str
    counted: dict[str, int]


def run_job(job: list[str]) -> list[Case]:
    """Run pytest on one job and return what became of each test."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.xml")
        paths = [str(_TESTS / word) if word.endswith(".py") else word for word in job]
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
            "-o",
            "junit_family=xunit1",
        ]
        command.append(f"--basetemp={directory}/t")
        environment = os.environ | {"PROVE": "all"}
        began = time.monotonic()
        finished = subprocess.run([*command, *paths], env=environment, capture_output=True, text=True, check=False)
        cases = list(read_report(report)) if report.exists() else []
        sys.stderr.write(f"{time.monotonic() - began:5.0f} s  {len(cases)} tests of {' '.join(job)}\n")
    if finished.returncode not in {0, 1} or not cases:
        cases.append(Case(" ".join(job), "failed", finished.stdout[-2_000:] + finished.stderr[-2_000:], {}))
    return cases


def read_report(report: Path) -> Iterator[Case]:
    """Yield the cases of a report in JUnit's format."""
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  pytest wrote it just now
        properties = {item.get("name", ""): item.get("value", "") for item in case.iter("property")}
        counted = {name: int(value) for name, value in properties.items() if value.isdecimal()}
        ended, why = "passed", ""
        for kind in ("failure", "error", "skipped"):
            for element in case.findall(kind):
                ended = "skipped" if kind == "skipped" else "failed"
                why = element.get("message", "")
        yield Case(f"{case.get('classname')}::{case.get('name')}", ended, why, counted)


def main() -> int:
    """Run it all, print the table, and return 1 when anything failed."""
    began = time.monotonic()
    # Two at a time: the attacks are races, which more of them on few cores would turn into queues.
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        cases = [case for job in pool.map(run_job, JOBS) for case in job]
    show(cases, time.monotonic() - began)
    return int(any(case.ended == "failed" for case in cases))


def show(cases: list[Case], seconds: float) -> None:
    """Print the numbers, and what failed or was skipped."""
    counted, lost = Counter[str](), Counter[str]()
    for case in cases:
        for name in ROWS.keys() & case.counted.keys():
            counted[name] += case.counted[name]
            lost[name] += case.counted.get("lost", 0) or (case.ended == "failed")
    table = Table("what happens", "how often", "lost")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, said in ROWS.items():
        table.add_row(said, f"{counted[name]:,}", f"{lost[name]:,}" if counted[name] else "not proven")
    ended = Counter(case.ended for case in cases)
    mutations = [case for case in cases if "mutations" in case.counted or "test_a_test_fails_without" in case.name]
    noticed = sum(case.ended == "passed" for case in mutations)
    out = Console(soft_wrap=True, highlight=False)
    out.print(table)
    out.print(f"points cut, kills, errors, attacks: {sum(counted.values()):,}; lost: {sum(lost.values()):,}")
    out.print(f"mutations of the product that make a test fail: {noticed} of {len(mutations)}")
    out.print("PROVEN" if not ended["failed"] and all(counted[name] for name in ROWS) else "NOT PROVEN, see below")
    out.print(f"tests: {ended['passed']} passed, {ended['failed']} failed, {ended['skipped']} skipped; {seconds:.0f} s")
    for case in cases:
        if case.ended != "passed":
            out.print(f"{case.ended}: {case.name}: {case.why}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
