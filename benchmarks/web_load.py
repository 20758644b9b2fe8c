# ruff: noqa: INP001, T201 - a script, no package
"""The page under load: so many readers at once on statistics and on files, over so many operation files on disk.

    .venv/bin/python benchmarks/web_load.py [files] [readers] [seconds]

Makes the files, lets the page scan and index them, and then lets the readers ask without pause: every fourth request is
`stats`, the others are pages of `files`, sorted, filtered and as deep as there are any. Shown are the time of a request
and the memory of the page's process. A directory in CLEANUP_BENCHMARK_HOME is kept and used again.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

BIN = Path(sys.executable).parent
TOKEN = "viewer-token-of-the-benchmark"  # noqa: S105
OPERATOR = "operator-token-of-the-benchmark"
DAY = 86_400
SORTS = ("age", "-age", "size", "-size", "path", "-path", "pipeline", "-pipeline")
FILTERS = ("", "&verdict=delete", "&data_type=completed_operations", "&data_type=failed_operations&verdict=delete")


def make_files(root: Path, number: int) -> None:
    """Write operation files of all ages and kinds, in one flat directory as the platform does."""
    chance = random.Random(1)  # noqa: S311  reproducible
    root.mkdir(parents=True)
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    now = time.time()
    for index in range(number):
        status = chance.choice(("completed", "completed", "completed", "failed", "running"))
        content = {"operation_id": index, "status": status, "pipeline_name": f"pipeline_{index % 40}"}
        name = f"operation_{chance.getrandbits(64):016x}.json"
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=directory)
        os.write(fd, json.dumps(content).encode())
        then = now - chance.random() * 200 * DAY
        os.utime(fd, (then, then))
        os.close(fd)
    os.close(directory)


class Reader:
    """One connection that asks again as soon as it is answered."""

    def __init__(self, port: int, files: int, seed: int) -> None:
        self._port = port
        self._files = files
        self._chance = random.Random(seed)  # noqa: S311
        self.took: dict[str, list[float]] = {"stats": [], "files": []}

    async def ask_until(self, deadline: float) -> None:
        """Ask until a moment of `perf_counter`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while time.perf_counter() < deadline:
            kind, path = self._next()
            began = time.perf_counter()
            request = f"GET /api/cleanup/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
            writer.write(request.encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            self.took[kind].append(time.perf_counter() - began)
            if not head.startswith(b"HTTP/1.1 200") or b'"success":true' not in body[:20]:
                raise AssertionError(head + body)
        writer.close()

    def _next(self) -> tuple[str, str]:
        if self._chance.random() < 0.25:
            return "stats", "stats"
        page = 1 + self._chance.randrange(max(1, self._files // 50 // 10))
        return "files", f"files?sort={self._chance.choice(SORTS)}&page={page}{self._chance.choice(FILTERS)}"


def memory(process: int) -> dict[str, float]:
    """Return the resident memory of a process in MB: all of it, and what is not the index mapped from the disk."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    fields = (line.split(":", 1) for line in lines if line.startswith(("VmRSS", "RssAnon")))
    return {name: int(value.split()[0]) / 1024 for name, value in fields}


async def load(port: int, files: int, readers: int, seconds: float) -> dict[str, list[float]]:
    """Let the readers ask, and return how long each request took, in seconds, by what it asked for."""
    asking = [Reader(port, files, seed) for seed in range(readers)]
    deadline = time.perf_counter() + seconds
    await asyncio.gather(*(reader.ask_until(deadline) for reader in asking))
    return {kind: sorted(t for reader in asking for t in reader.took[kind]) for kind in ("stats", "files")}


def serve(home: Path) -> tuple["subprocess.Popen[bytes]", int]:
    """Start the page, and return it with its port."""
    config = home / "cleanup.yaml"
    target = {"name": "operations", "kind": "operations", "root": str(home / "ops")}
    content = {"state_dir": str(home / "state"), "backup": {"directory": str(home / "backups")}, "targets": [target]}
    config.write_text(json.dumps(content))
    port = 20_000 + os.getpid() % 20_000
    foreign = ("CLEANUP_", "DAGSTER_", "DBT_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | {
        "CLEANUP_CONFIG": str(config),
        "CLEANUP_WEB_VIEWER_TOKEN": TOKEN,
        "CLEANUP_WEB_OPERATOR_TOKEN": OPERATOR,
        "DAGSTER_WEBSERVER_URL": "http://127.0.0.1:1",
    }
    command = [str(BIN / "cleanup-operations"), "serve", "--port", str(port)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL), port  # noqa: S603


def wait_for(client: httpx.Client, files: int) -> None:
    """Wait until the page answers and shows all files, asking it for a scan when it has none."""
    asked = False
    for _ in range(3_000):
        try:
            shown = client.get("/api/cleanup/files").json()["total_files"]
        except httpx.HTTPError:
            shown = None
        if shown == files:
            return
        if shown == 0 and not asked and not client.get("/api/cleanup/runs").json()["runs"]:
            client.post("/api/cleanup/files/refresh").raise_for_status()
            asked = True
        time.sleep(0.2)
    raise AssertionError(f"{shown} of {files} files are shown after ten minutes")


def main() -> int:
    """Measure, and print."""
    given = [int(word) for word in sys.argv[1:]]
    files, readers, seconds = given + [1_000_000, 50, 30][len(given) :]
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(os.environ.get("CLEANUP_BENCHMARK_HOME", scratch))
        if not (home / "ops").is_dir():
            began = time.perf_counter()
            make_files(home / "ops", files)
            print(f"{files:,} files made in {time.perf_counter() - began:.0f} s")
        page, port = serve(home)
        try:
            began = time.perf_counter()
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {OPERATOR}"}, timeout=30
            ) as client:
                wait_for(client, files)
            print(f"scanned and indexed in {time.perf_counter() - began:.0f} s")
            took = asyncio.run(load(port, files, readers, seconds))
            print(f"{readers} readers for {seconds} s: {sum(map(len, took.values())) / seconds:,.0f} requests a second")
            for kind, times in took.items():
                p50, p99 = (times[int(len(times) * share)] * 1_000 for share in (0.5, 0.99))
                share = f"{len(times):,} requests, p50 {p50:.0f} ms, p99 {p99:.0f} ms"
                print(f"  {kind}: {share}, max {times[-1] * 1_000:.0f} ms")
            held = ", ".join(f"{name} {value:.0f} MB" for name, value in memory(page.pid).items())
            print(f"memory of the page: {held}")
        finally:
            page.terminate()
            page.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
