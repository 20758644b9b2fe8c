"""The whole proof, with its numbers: `make prove`. Takes minutes, and root for all of it.

Runs the tests that strike and attack, at every point instead of a sample, and adds up what they say they did. With the
names of parts, or how they begin (`make prove ARGS="cuts attacks"`), only these; with `--sample` not at every point.
Ends non-zero when anything was lost, failed or skipped.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.table import Table

_TESTS = Path(__file__).parent.parent

_FAULTS = "reliability/test_reliability_faults.py"
_STRUCK = f"{_FAULTS}::test_a_run_is_struck_and_nothing_is_lost"
_CUTS = {
    "nothing": "with nothing written back",
    "removals": "with the removals written back",
    "copies": "with the copies written back",
    "everything": "with everything but the copies written back",
    "again": "again in the recovery",
}

#: What pytest is to run for each part; the jobs of all parts run side by side, the longest first.
PARTS = {
    "control": [[_FAULTS, "-k", "power_cut_loses"]],
    **{f"cuts-{name}": [[f"{_STRUCK}[power cut {kind}]"]] for name, kind in _CUTS.items()},
    **{f"archives-{name}": [[f"{_STRUCK}[power cut {kind}, archive]"]] for name, kind in _CUTS.items()},
    "kills-protocol": [
        ["collectors/test_deletion_faults.py"],
        ["service/test_service_recovery.py"],
        ["run_history/test_run_history_killed.py"],
    ],
    "kills-service": [[_FAULTS, "-k", "not power and not archive"], [_FAULTS, "-k", "not power and archive"]],
    "mutations": [["reliability/test_reliability_mutations.py", "-n", "2"]],
    "attacks": [
        [
            "reliability/test_reliability_attackers.py",
            "reliability/test_reliability_attackers_stores.py",
            "reliability/test_reliability_attackers_trees.py",
            "collectors/test_deletion_races.py",
        ]
    ],
    "outages": [
        ["service/test_service_database_loss.py"],
        [
            "undo/test_undo_restore_batches.py",
            "reliability/test_reliability_disk_full.py",
            "reliability/test_reliability_durability.py",
            "reliability/test_reliability_protocol.py",
            "reliability/test_reliability_reboot.py",
            "service/test_service_bad_sectors.py",
        ],
    ],
}

#: Of these there is no sample.
_WHOLE = ("archives", "mutations")

#: What the tests count, by part, and how it is said.
ROWS = {
    "power cuts": (("cuts", "archives"), "power cut at a call of a run, on ext4"),
    "kills": (("kills",), "kill -9 at a call of a run"),
    "errors": (("kills",), "a call fails: EIO ENOSPC EDQUOT EACCES EROFS EMFILE"),
    "kills and errors in recovery": (("kills-protocol",), "struck again while recovering from a kill"),
    "full disks": (("outages",), "a disk runs full between two steps"),
    "lost databases": (("outages",), "Postgres is killed, hangs or refuses between two steps"),
    "attacks": (("attacks",), "moves of attackers who swap, link, mount, append"),
}


class Case(NamedTuple):
    """One test: its name, how it ended, why if not well, and what it counted."""

    name: str
    ended: str
    why: str
    counted: dict[str, int]


def run_job(job: list[str], *, sample: bool) -> list[Case]:
    """Run pytest on one job, at every point or at a sample of them, and return what became of each test."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.xml")
        paths = [str(_TESTS / word) if "/" in word else word for word in job]
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
        environment = os.environ | {"PROVE": "" if sample else "all"}
        began = time.monotonic()
        finished = subprocess.run([*command, *paths], env=environment, capture_output=True, text=True, check=False)
        cases = list(read_report(report)) if report.exists() else []
        counted = sum((Counter(case.counted) for case in cases), Counter[str]())
        said = ", ".join(f"{number:,} {name}" for name, number in counted.items() if name in ROWS)
        sys.stderr.write(f"{time.monotonic() - began:5.0f} s  {len(cases)} tests of {' '.join(job)}: {said}\n")
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
                said = [line[1:].strip() for line in (element.text or "").splitlines() if line.startswith("E ")]
                why = " ".join(said)[:500] or element.get("message", "")
        yield Case(f"{case.get('classname')}::{case.get('name')}", ended, why, counted)


def main(arguments: Sequence[str]) -> int:
    """Run the parts, print the table, and return 1 unless all of it was proven."""
    parser = argparse.ArgumentParser(prog="make prove", description="Prove that nothing is lost.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all when none is named")
    parser.add_argument("--sample", action="store_true", help="a sample of the points, in a few minutes")
    chosen = parser.parse_args(arguments)
    possible = [part for part in PARTS if not chosen.sample or not part.startswith(_WHOLE)]
    parts = [part for part in possible if part.startswith(tuple(chosen.parts) or "")]
    if unknown := [name for name in chosen.parts if not any(part.startswith(name) for part in possible)]:
        parser.error(f"there is no part {unknown[0]!r}; name some of {', '.join(possible)}")
    began = time.monotonic()
    # Two at a time: the attacks are races, which more of them on few cores would turn into queues.
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        jobs = [job for part in parts for job in PARTS[part]]
        cases = [case for done in pool.map(partial(run_job, sample=chosen.sample), jobs) for case in done]
    return show(cases, parts, time.monotonic() - began)


def show(cases: list[Case], parts: list[str], seconds: float) -> int:
    """Print the numbers, and what failed or was skipped; return 0 when all of it was proven, else 1."""
    counted, lost = Counter[str](), Counter[str]()
    rows = {name: said for name, (of, said) in ROWS.items() if any(part.startswith(of) for part in parts)}
    for case in cases:
        for name in rows.keys() & case.counted.keys():
            counted[name] += case.counted[name]
            lost[name] += case.counted.get("lost", 0) or (case.ended == "failed")
    table = Table("what happens", "how often", "lost")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, said in rows.items():
        table.add_row(said, f"{counted[name]:,}", f"{lost[name]:,}" if counted[name] else "not proven")
    ended = Counter(case.ended for case in cases)
    proven = ended["passed"] == len(cases) and all(counted[name] for name in rows)
    out = Console(soft_wrap=True, highlight=False)
    out.print(table)
    out.print(f"points cut, kills, errors, attacks: {sum(counted.values()):,}; lost: {sum(lost.values()):,}")
    if "mutations" in parts:
        noticed = sum(case.counted.get("mutations", 0) for case in cases)
        made = sum("_fails_without" in case.name or "_shows_the_lack" in case.name for case in cases)
        out.print(f"mutations of the product that make a test fail: {noticed} of {made}")
    out.print(f"tests: {ended['passed']} passed, {ended['failed']} failed, {ended['skipped']} skipped; {seconds:.0f} s")
    for case in cases:
        if case.ended != "passed":
            out.print(f"{case.ended}: {case.name}: {case.why}", markup=False)
    out.print("PROVEN" if proven else "NOT PROVEN: see what failed, was skipped or is missing above")
    return int(not proven)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
