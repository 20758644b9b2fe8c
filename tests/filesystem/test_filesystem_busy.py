"""Who is seen to be using a file, and who is not."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filesystem_helpers import NOBODY, as_nobody, other_process

from cleanup_dagster.filesystem import busy
from cleanup_dagster.filesystem.busy import BusyError, OpenCheck, claim, still_claimed

linux = pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("content")
    return path


@contextmanager
def opened(path: Path) -> Generator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


@linux
def test_nobody_uses_it(file: Path) -> None:
    with opened(file) as fd:
        assert claim(fd) is OpenCheck.LEASE
        assert still_claimed(fd)


@linux
@pytest.mark.parametrize(
    "code",
    [
        "f = open(sys.argv[1], 'a')",
        "f = open(sys.argv[1], 'r+')",
        "import mmap; f = open(sys.argv[1], 'r+'); m = mmap.mmap(f.fileno(), 0); f.close()",
    ],
    ids=["append", "update", "shared memory"],
)
def test_another_process_has_it_open_for_writing(file: Path, code: str) -> None:
    with other_process(code, file), opened(file) as fd, pytest.raises(BusyError, match="has it open for writing"):
        claim(fd)


@pytest.mark.parametrize("how", ["LOCK_EX", "LOCK_SH"])
def test_another_process_has_it_locked(file: Path, how: str) -> None:
    code = f"import fcntl; f = open(sys.argv[1]); fcntl.flock(f, fcntl.{how})"
    with other_process(code, file), opened(file) as fd, pytest.raises(BusyError, match="holds a lock on it"):
        claim(fd)


@linux
def test_readers_are_no_obstacle(file: Path) -> None:
    with other_process("f = open(sys.argv[1])", file), opened(file), opened(file) as fd:
        assert claim(fd) is OpenCheck.LEASE


@linux
def test_closing_lets_go(file: Path) -> None:
    with opened(file) as fd:
        claim(fd)
    with other_process("import os; os.close(os.open(sys.argv[1], os.O_WRONLY | os.O_NONBLOCK))", file):
        pass
    with opened(file) as fd:
        assert claim(fd) is OpenCheck.LEASE


CLAIM = """
import os, subprocess, sys
from pathlib import Path
from cleanup_dagster.filesystem.busy import claim, still_claimed
file = Path(sys.argv[1])
fd = os.open(file, os.O_RDONLY)
claim(fd)
writer = subprocess.Popen([sys.executable, "-c", "import sys; open(sys.argv[1], 'a').write('!')", str(file)])
while still_claimed(fd):
    assert writer.poll() is None
assert file.read_text() == "content"  # it waits
os.close(fd)
assert writer.wait() == 0
"""


@linux
def test_who_opens_a_claimed_file_for_writing_is_seen_and_waits_and_kills_nobody(file: Path) -> None:
    # In a process of its own, because by default the kernel would end the one that holds the claim (SIGIO).
    assert subprocess.run([sys.executable, "-c", CLAIM, str(file)], check=False).returncode == 0
    assert file.read_text() == "content!"


@linux
@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("owner", "expected"), [(0, OpenCheck.FLOCK), (NOBODY, OpenCheck.LEASE)], ids=["another's", "own"]
)
def test_a_lease_is_for_the_owner_and_others_have_flock(shared_path: Path, owner: int, expected: OpenCheck) -> None:
    file = shared_path / "file"
    file.touch(mode=0o644)
    os.chown(file, owner, owner)
    imports = "import os\nfrom cleanup_dagster.filesystem.busy import claim"
    assert as_nobody(imports, "print(claim(os.open(sys.argv[1], os.O_RDONLY)).value)", file) == expected.value


def test_a_filesystem_that_cannot_lock_vouches_for_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    monkeypatch.setattr(fcntl, "fcntl", unsupported)
    with opened(file) as fd:
        assert claim(fd) is OpenCheck.NONE


def test_a_system_without_leases_has_flock(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_SETLEASE", "_SETSIG", "_GETLEASE"):
        monkeypatch.setattr(busy, name, None)
    with opened(file) as fd:
        assert claim(fd) is OpenCheck.FLOCK
        assert still_claimed(fd)
