# ruff: noqa: INP001 - a script, no package
"""How long commands take that execute no job, side by side with `dagster --help`.

    .venv/bin/python benchmarks/startup.py [rounds]

Each round runs every command once, in turn, and the best round of each command counts: what else the machine did
meanwhile is not its fault. Shown are wall time and processor time. The commands find an installation of their own in a
temporary directory. Exit code 1 when one of them takes more than half of the processor time of `dagster --help`.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = Path(sys.executable).parent
PEER = "dagster --help"
COMMANDS = (
    PEER,
    "cleanup-operations --version",
    "cleanup-operations --help",
    "cleanup-operations policies list",
    "cleanup-operations holds list",
    "cleanup-operations stats",
    "cleanup-operations history",
    "cleanup-operations backups list",
    "cleanup-operations explain {root}/operation_1.json",
)


def installation(home: Path) -> dict[str, str]:
    """Make a small installation below `home`, and return the environment that leads to it."""
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


def once(command: str, environment: dict[str, str]) -> tuple[float, float]:
    """Run a command, and return its wall time and its processor time in seconds."""
    words = command.split()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run([str(BIN / words[0]), *words[1:]], check=True, env=environment, capture_output=True)  # noqa: S603
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Measure, print a table, and say whether the promise holds."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        environment = installation(home)
        commands = [command.format(root=home / "files") for command in COMMANDS]
        for command in commands:  # bytecode, caches, and the database
            once(command, environment)
        times: dict[str, list[tuple[float, float]]] = {command: [] for command in commands}
        for _ in range(rounds):
            for command in commands:
                times[command].append(once(command, environment))
    best = {command: tuple(map(min, zip(*both, strict=True))) for command, both in times.items()}
    peer = best[PEER]
    slow = False
    for command, (wall, processor) in best.items():
        share = processor / peer[1]
        slow |= command != PEER and share > 0.5
        name = command.replace(str(home), "...")
        sys.stdout.write(f"{name:<55} {wall:5.2f} s wall  {processor:5.2f} s processor  {share:4.0%}\n")
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
