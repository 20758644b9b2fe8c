"""Scan and judge N operation files in a scratch directory; print the rate and the peak of this process's memory.

    python benchmarks/scan_memory.py 1000000            # 1,000 directories of 1,000 files
    python benchmarks/scan_memory.py 1000000 --flat     # all in one directory
    python benchmarks/scan_memory.py 1000000 --keep-last 3

Making and scanning are processes of their own, so that the peak is that of scanning and judging alone. The scratch
directory is below TMPDIR and is removed at the end.
"""
# ruff: noqa: INP001 - a script, not a package

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import text

from cleanup_dagster.bootstrap import open_service
from cleanup_dagster.database.engine import open_engine
from cleanup_dagster.handles import Request
from cleanup_dagster.retention.models import CleanupType
from cleanup_dagster.settings import load_settings

_PER_DIRECTORY = 1_000
_OLD = 400 * 86_400


def make_files(root: Path, number: int, *, flat: bool) -> None:
    """Write `number` operation files: half of them expired, of a hundred pipelines, in three states."""
    now = time.time()
    for index in range(number):
        directory = root if flat else root / f"{index // _PER_DIRECTORY:04}"
        if index % _PER_DIRECTORY == 0:
            directory.mkdir(exist_ok=True)
        status = ("completed", "failed", "running")[index % 3]
        end = now - (_OLD if index % 2 else 3_600)
        content = f'{{"operation_id":"{index}","status":"{status}","pipeline_name":"p{index % 100}","end_time":{end}}}'
        path = f"{directory}/operation_{index:08}.json"
        with open(path, "w", encoding="ascii") as file:  # noqa: PTH123 - a million Path objects take as long as the files
            file.write(content)
        os.utime(path, (end, end))


def scan(home: Path, root: Path, keep_last: int) -> dict[str, float]:
    """Judge everything in `root` by the steps of a dry run, and return the figures."""
    config = home / "cleanup.yaml"
    target = {"name": "operations", "kind": "operations", "root": str(root), "recursive": True}
    config.write_text(json.dumps({"backup": {"directory": str(home / "backups")}, "targets": [target]}))
    settings = load_settings({"CLEANUP_STATE_DIR": str(home / "state")}, config)
    with open_service(settings) as service:
        engine = open_engine(f"sqlite:///{home}/state/cleanup.db")
        with engine.begin() as conn:
            conn.execute(text("UPDATE cleanup_policies SET keep_last = :n"), {"n": keep_last})
        engine.dispose()
        before = peak_mib()
        started = time.monotonic()
        run = service.begin(Request("benchmark", CleanupType.MANUAL, True, "benchmark"))
        plan = service.scan(run, "operations")
        checked = service.check(run, [plan])
        seconds = time.monotonic() - started
        service.audit(checked, [])
    return {
        "files": plan.scanned.files,
        "expired": plan.deletable.files,
        "seconds": round(seconds, 2),
        "files_per_second": round(plan.scanned.files / seconds),
        "mib_before": round(before, 1),
        "mib_peak": round(peak_mib(), 1),
        "mib_peak_of_a_worker": round(peak_mib(resource.RUSAGE_CHILDREN), 1),
    }


def peak_mib(of: int = resource.RUSAGE_SELF) -> float:
    """Return the peak resident set of this process, or of its largest child (bytes on macOS, else KiB)."""
    return resource.getrusage(of).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Make the files, scan them, and print the figures as one JSON object."""
    parser = argparse.ArgumentParser(description="Scan and judge N operation files, and print rate and peak memory.")
    parser.add_argument("files", type=int)
    parser.add_argument("--flat", action="store_true", help="all files in one directory")
    parser.add_argument("--keep-last", type=int, default=0, help="the policies' keep_last")
    parser.add_argument("--make-in", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--scan-in", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make_in:
        make_files(arguments.make_in / "operations", arguments.files, flat=arguments.flat)
        return
    if arguments.scan_in:
        figures = scan(arguments.scan_in, arguments.scan_in / "operations", arguments.keep_last)
        print(json.dumps(figures))  # noqa: T201 - what it is for
        return
    home = Path(tempfile.mkdtemp(prefix="scan_memory"))
    try:
        (home / "operations").mkdir()
        for step in ("--make-in", "--scan-in"):
            subprocess.run([sys.executable, __file__, *sys.argv[1:], step, str(home)], check=True)  # noqa: S603
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
