"""The private directory through which everything leaves a root."""

import os
import stat
from collections.abc import Generator
from pathlib import Path

import pytest
from filesystem_helpers import NOBODY, as_nobody, mounted

from cleanup_dagster.filesystem import syscalls
from cleanup_dagster.filesystem.quarantine import (
    ConflictError,
    left_quarantines,
    open_quarantine,
    reopen_quarantine,
)

USUAL = f".cleanup-q-{os.geteuid()}"


@pytest.fixture
def root(tmp_path: Path) -> Generator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_a_file_is_taken_and_put_back(tmp_path: Path, root: int) -> None:
    (tmp_path / "file").write_text("content")
    with open_quarantine(root) as quarantine:
        quarantine.take(root, "file", "run.t.0")
        assert names(tmp_path) == [USUAL]
        assert (tmp_path / USUAL / "run.t.0").read_text() == "content"
        assert quarantine.numbers("run.t")
        assert not quarantine.numbers("other.t")
        quarantine.put_back("run.t.0", root, "file")
        assert not quarantine.numbers("run.t")
    assert names(tmp_path) == ["file"]


def test_a_file_is_removed(tmp_path: Path, root: int) -> None:
    (tmp_path / "file").write_text("content")
    with open_quarantine(root) as quarantine:
        quarantine.take(root, "file", "s.0")
        quarantine.remove("s.0")
        quarantine.sync()
    assert names(tmp_path) == []


def test_what_cannot_go_back_stays_whole(tmp_path: Path, root: int) -> None:
    (tmp_path / "file").write_text("old")
    with open_quarantine(root) as quarantine:
        quarantine.take(root, "file", "s.0")
        (tmp_path / "file").write_text("new")
        with pytest.raises(ConflictError, match=rf"{USUAL}/s\.0"):
            quarantine.put_back("s.0", root, "file")
    assert (tmp_path / "file").read_text() == "new"
    assert (tmp_path / USUAL / "s.0").read_text() == "old"
    assert left_quarantines(root) == [USUAL]


@pytest.mark.parametrize("kind", ["directory", "symlink", "fifo"])
def test_whatever_has_the_name_is_taken_and_goes_back_as_it_was(tmp_path: Path, root: int, kind: str) -> None:
    if kind == "directory":
        (tmp_path / "x/y").mkdir(parents=True)
    elif kind == "symlink":
        (tmp_path / "x").symlink_to("/etc")
    else:
        os.mkfifo(tmp_path / "x")
    before = (tmp_path / "x").lstat()
    with open_quarantine(root) as quarantine:
        quarantine.take(root, "x", "s.0")
        quarantine.put_back("s.0", root, "x")
    assert os.path.samestat((tmp_path / "x").lstat(), before)


def test_nobody_else_may_enter(tmp_path: Path, root: int) -> None:
    with open_quarantine(root):
        assert stat.S_IMODE((tmp_path / USUAL).stat().st_mode) == 0o700


@pytest.mark.needs_root
def test_nobody_else_can_open_what_is_in_it(shared_path: Path) -> None:
    (shared_path / "file").write_text("content")
    (shared_path / "file").chmod(0o666)
    root = os.open(shared_path, os.O_RDONLY)
    with open_quarantine(root) as quarantine:
        quarantine.take(root, "file", "s.0")
        code = """
try:
    open(sys.argv[1], "a")
except PermissionError:
    print("refused")
"""
        assert as_nobody("", code, shared_path / USUAL / "s.0") == "refused"
        quarantine.remove("s.0")
    os.close(root)


def hostile(tmp_path: Path, kind: str) -> None:
    if kind == "symlink":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        (tmp_path / USUAL).symlink_to("elsewhere")
    elif kind == "file":
        (tmp_path / USUAL).touch()
    else:
        (tmp_path / USUAL).mkdir(mode=0o700)
        if kind == "open":
            (tmp_path / USUAL).chmod(0o777)
        else:
            os.chown(tmp_path / USUAL, NOBODY, NOBODY)


@pytest.mark.parametrize("kind", ["symlink", "file", "open", pytest.param("foreign", marks=pytest.mark.needs_root)])
def test_a_hostile_one_is_left_alone_and_another_name_is_not_to_be_guessed(
    tmp_path: Path, root: int, kind: str
) -> None:
    hostile(tmp_path, kind)
    (tmp_path / "file").write_text("content")
    used: set[str] = set()
    for _ in range(2):
        with open_quarantine(root) as quarantine:
            used.add(quarantine.name)
            quarantine.take(root, "file", "s.0")
            assert left_quarantines(root) == sorted([USUAL, quarantine.name])
            quarantine.put_back("s.0", root, "file")
    assert len(used) == 2
    assert all(name.startswith(f"{USUAL}-") and len(name) == len(USUAL) + 17 for name in used)
    assert (tmp_path / USUAL).lstat()  # still there
    assert (tmp_path / "file").read_text() == "content"
    assert names(tmp_path / "elsewhere") == [] if kind == "symlink" else True


@pytest.mark.needs_root
def test_one_on_another_mount_is_not_used(tmp_path: Path, root: int) -> None:
    (tmp_path / USUAL).mkdir(mode=0o700)
    with mounted("tmpfs", "none", tmp_path / USUAL):
        (tmp_path / USUAL).chmod(0o700)
        with open_quarantine(root) as quarantine:
            assert quarantine.name != USUAL


def test_one_left_by_a_dead_run_is_found_again(tmp_path: Path, root: int) -> None:
    left = f"{USUAL}-0123456789abcdef"
    (tmp_path / left).mkdir(mode=0o700)
    (tmp_path / left / "run.t.3").write_text("content")
    assert left_quarantines(root) == [left]
    with reopen_quarantine(root, left) as quarantine:
        assert quarantine is not None
        assert quarantine.numbers("run.t")
        quarantine.put_back("run.t.3", root, "file")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("kind", ["symlink", "file", "open", pytest.param("foreign", marks=pytest.mark.needs_root)])
def test_a_hostile_one_is_not_reopened(tmp_path: Path, root: int, kind: str) -> None:
    hostile(tmp_path, kind)
    with reopen_quarantine(root, USUAL) as quarantine:
        assert quarantine is None
    assert (tmp_path / USUAL).lstat()


def test_reopening_one_that_is_gone_makes_none(tmp_path: Path, root: int) -> None:
    with reopen_quarantine(root, USUAL) as quarantine:
        assert quarantine is None
    assert names(tmp_path) == []


def test_a_put_back_by_link_that_died_half_way_is_finished(
    tmp_path: Path, root: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscalls, "_rename", None)  # a filesystem that cannot rename without replacing
    (tmp_path / "file").write_text("content")
    with open_quarantine(root) as quarantine:
        quarantine.take(root, "file", "s.0")
        os.link("s.0", "file", src_dir_fd=quarantine.fd, dst_dir_fd=root)  # and here the process was killed
        quarantine.put_back("s.0", root, "file")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").stat().st_nlink == 1


@pytest.mark.needs_root
def test_a_root_that_cannot_be_written_to(shared_path: Path) -> None:
    code = """
root = os.open(sys.argv[1], os.O_RDONLY)
try:
    with open_quarantine(root):
        print("opened")
except OSError as error:
    print(error)
"""
    imports = "import os\nfrom cleanup_dagster.filesystem.quarantine import open_quarantine"
    said = as_nobody(imports, code, shared_path)
    assert said.startswith("nothing can be moved out of the root without permission to write there")
