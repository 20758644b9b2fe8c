# ruff: noqa: INP001 - a script, no package
"""What it takes before anything happens: imports, commands that run no job, and a dry run that finds nothing.

    .venv/bin/python benchmarks/startup.py [ROUNDS] [--json FILE]

Each round runs everything once, in turn, and the best round of each counts: what else the machine did meanwhile is not
its fault. Shown are wall time, processor time, and the share of the processor time of `dagster --help`. Everything
finds an installation of its own in a temporary directory, with one fresh file in its target. Exit code 1 when a command
that runs no job takes more than half of the processor time of `dagster --help`.
"""

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

BIN = Path(sys.executable).parent
PEER = "dagster --help"
IMPORTS = (
    "python -c pass",
    "python -c 'import cleanup_dagster'",
    "python -c 'import cleanup_dagster.definitions'",
)
COMMANDS = (
    "cleanup-operations --version",
    "cleanup-operations --help",
    "cleanup-operations policies list",
    "cleanup-operations holds list",
    "cleanup-operations stats",
    "cleanup-operations history",
    "cleanup-operations backups list",
    "cleanup-operations explain {root}/operation_1.json",
)
JOBS = ("cleanup-operations plan",)
MOST = 0.5


class Took(NamedTuple):
    """Seconds, of one round or of the best."""

    wall: float
    processor: float


def installation(home: Path) -> dict[str, str]:
    """Make an installation below `home`, and return the environment that leads to it."""
    root = home / "files"
    root.mkdir()
    (root / "operation_1.json").write_text('{"status": "completed"}')
    config = home / "cleanup.yaml"
    content = {
        "state_dir": str(home / "state"),
        "backup": {"directory": str(home / "backups")},
        "targets": [{"name": "operations", "kind": "operations", "root": str(root)}],
    }
    config.write_text(json.dumps(content))
    foreign = ("CLEANUP_", "DAGSTER_", "DBT_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {"CLEANUP_CONFIG": str(config)}


def once(command: str, environment: dict[str, str]) -> Took:
    """Run a command, and return what it took."""
    words = shlex.split(command)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run([str(BIN / words[0]), *words[1:]], check=True, env=environment, capture_output=True)  # noqa: S603
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Took(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def measure(rounds: int) -> dict[str, Took]:
    """Return the best round of everything, by the command as it is shown."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        environment = installation(home)
        commands = [command.format(root=home / "files") for command in (PEER, *IMPORTS, *COMMANDS, *JOBS)]
        for command in commands:  # bytecode, caches, and the database
            once(command, environment)
        times: dict[str, list[Took]] = {command: [] for command in commands}
        for _ in range(rounds):
            for command in commands:
                times[command].append(once(command, environment))
    return {
        command.replace(str(home), "..."): Took(*map(min, zip(*all_of_it, strict=True)))
        for command, all_of_it in times.items()
    }


def main() -> int:
    """Measure, print a table, and say whether the promise holds."""
    parser = argparse.ArgumentParser(description="Measure how long starting takes.")
    parser.add_argument("rounds", type=int, nargs="?", default=10)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    given = parser.parse_args()
    best = measure(given.rounds)
    peer = best[PEER].processor
    for command, took in best.items():
        share = took.processor / peer
        sys.stdout.write(f"{command:<55} {took.wall:5.2f} s wall  {took.processor:5.2f} s processor  {share:4.0%}\n")
    if given.json is not None:
        figures = {command: {**took._asdict(), "share": took.processor / peer} for command, took in best.items()}
        given.json.write_text(json.dumps({"rounds": given.rounds, "commands": figures}, indent=2) + "\n")
    promised = [command.format(root=".../files") for command in COMMANDS]
    return int(any(best[command].processor > MOST * peer for command in promised))


if __name__ == "__main__":
    sys.exit(main())
