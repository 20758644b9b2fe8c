"""Other processes, other users and other mounts, as several test files of this room need them."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65_534
_WAIT = "\nprint('ready', flush=True)\nsys.stdin.read()\n"
_AS_NOBODY = f"""
import os
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
"""


@contextmanager
def other_process(code: str, *arguments: object) -> Generator["subprocess.Popen[str]"]:
    """Run Python code in another process up to its end, and keep that process there while the block runs."""
    command = [sys.executable, "-c", "import sys\n" + code + _WAIT, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def as_nobody(imports: str, code: str, *arguments: object) -> str:
    """Run Python code as an unprivileged user, after the imports, and return what it printed."""
    script = f"import sys\nfrom pathlib import Path\n{imports}\n{_AS_NOBODY}\n{code}"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@contextmanager
def mounted(kind: str, source: Path | str, at: Path) -> Generator[None]:
    """Mount something (`bind` or a type of filesystem) while the block runs."""
    how = ["--bind"] if kind == "bind" else ["-t", kind]
    subprocess.run(["mount", *how, str(source), str(at)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)  # a failing test may have something open on it
