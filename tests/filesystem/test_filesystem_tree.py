"""Walking below a root and nowhere else."""

import gc
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

import pytest
from filesystem_helpers import as_nobody, descriptors, mounted

from cleanup_dagster.filesystem.tree import (
    Closed,
    Directories,
    Found,
    RootError,
    RootMissingError,
    open_root,
    walk,
)
from cleanup_dagster.retention.models import Reason


def nothing_is_own(_: os.stat_result) -> bool:
    return False


def walked(
    root: Path,
    *,
    recursive: bool = True,
    max_depth: int = 64,
    is_own: Callable[[os.stat_result], bool] = nothing_is_own,
) -> tuple[list[str], dict[str, tuple[Reason, str]]]:
    """Return what was found, and what was not entered and why."""
    found: list[str] = []
    closed: dict[str, tuple[Reason, str]] = {}
    with open_root(root) as fd:
        for item in walk(fd, recursive=recursive, max_depth=max_depth, is_own=is_own):
            if isinstance(item, Closed):
                closed[item.path] = (item.reason, item.detail)
            else:
                found.append(f"{item.directory}/{item.entry.name}".lstrip("/"))
    return sorted(found), closed


def make(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def test_recursive_finds_every_file_below(tmp_path: Path) -> None:
    make(tmp_path, "a", "d/b", "d/e/c", ".hidden/x")
    assert walked(tmp_path) == ([".hidden/x", "a", "d/b", "d/e/c"], {})


def test_not_recursive_looks_at_the_root_alone(tmp_path: Path) -> None:
    make(tmp_path, "a", "d/b")
    assert walked(tmp_path, recursive=False) == (["a", "d"], {})


def test_a_symlinked_directory_is_an_entry_and_is_not_followed(tmp_path: Path) -> None:
    make(tmp_path, "outside/secret", "root/a")
    (tmp_path / "root/link").symlink_to(tmp_path / "outside")
    assert walked(tmp_path / "root") == (["a", "link"], {})


def test_hostile_directory_names_are_text(tmp_path: Path) -> None:
    make(tmp_path, "a\nb\udcff/x")
    with open_root(tmp_path) as fd:
        items = list(walk(fd, recursive=True, max_depth=4, is_own=nothing_is_own))
    assert [item.directory for item in items if isinstance(item, Found)] == [r"a\u000ab\xff"]


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_another_mount_is_not_entered(tmp_path: Path, kind: str) -> None:
    make(tmp_path, "outside/secret", "root/a", "root/d/m/hidden-below")
    with mounted(kind, tmp_path / "outside", tmp_path / "root/d/m"):
        assert walked(tmp_path / "root") == (["a"], {"d/m": (Reason.OTHER_MOUNT, "")})


@pytest.mark.parametrize("alias", ["renamed", pytest.param("bind", marks=pytest.mark.needs_root)])
def test_our_own_directory_is_known_under_any_name(tmp_path: Path, alias: str) -> None:
    make(tmp_path, "backups/a.backup", "root/a", "root/other/b")
    own = (tmp_path / "backups").stat()

    def is_own(status: os.stat_result) -> bool:
        return os.path.samestat(status, own)

    there = tmp_path / "root/other/looks harmless"
    expected = (["a", "other/b"], {"other/looks harmless": (Reason.OWN_DIRECTORY, "")})
    if alias == "renamed":
        (tmp_path / "backups").rename(there)
        assert walked(tmp_path / "root", is_own=is_own) == expected
        return
    there.mkdir()
    with mounted("bind", tmp_path / "backups", there):
        assert walked(tmp_path / "root", is_own=is_own) == expected


def test_a_quarantine_of_anybody_is_not_entered(tmp_path: Path) -> None:
    make(tmp_path, ".cleanup-q-0/x", "d/.cleanup-q-1000-abc/y", "a")
    found, closed = walked(tmp_path)
    assert found == ["a"]
    assert closed == {
        ".cleanup-q-0": (Reason.OWN_DIRECTORY, "a quarantine"),
        "d/.cleanup-q-1000-abc": (Reason.OWN_DIRECTORY, "a quarantine"),
    }


def test_what_lies_too_deep_is_reported_and_the_rest_is_walked(tmp_path: Path) -> None:
    make(tmp_path, "1/2/3/x", "1/2/y", "1/z")
    assert walked(tmp_path, max_depth=2) == (["1/2/y", "1/z"], {"1/2/3": (Reason.TOO_DEEP, "")})


@pytest.fixture
def abyss() -> Generator[Path]:
    """A tree of 5,000 levels, deeper than any path can say; in memory, where it is gone again at once."""
    memory = "/dev/shm"  # noqa: S108
    top = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    fd = os.open(top, os.O_RDONLY)
    for _ in range(5_000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    yield top
    subprocess.run(["rm", "-rf", str(top)], check=True)  # Python's own removal would not get through


def test_five_thousand_levels_take_no_time_and_no_stack(abyss: Path) -> None:
    make(abyss, "a")
    began = time.process_time()
    found, closed = walked(abyss, max_depth=64)
    assert time.process_time() - began < 2
    assert found == ["a"]
    assert closed == {"/".join(["d"] * 65): (Reason.TOO_DEEP, "")}


def test_a_walk_that_is_broken_off_leaves_no_descriptor(tmp_path: Path) -> None:
    make(tmp_path, "a/b/c/x", "a/b/c/y")
    with open_root(tmp_path) as fd:
        before = descriptors()
        for item in walk(fd, recursive=True, max_depth=64, is_own=nothing_is_own):
            assert isinstance(item, Found)
            assert descriptors() > before
            break
        gc.collect()
        assert descriptors() == before


_WALK = """
with open_root(Path(sys.argv[1])) as fd:
    for item in walk(fd, recursive=True, max_depth=9, is_own=lambda status: False):
        if isinstance(item, Closed):
            print(item.path, item.reason.value, item.detail, sep=": ")
        else:
            print(item.entry.name)
"""
_IMPORT = "from cleanup_dagster.filesystem.tree import Closed, Directories, RootError, open_root, walk"


@pytest.mark.needs_root
def test_a_directory_that_may_not_be_read_is_reported(shared_path: Path) -> None:
    make(shared_path, "open/a", "private/b")
    (shared_path / "private").chmod(0o700)
    assert sorted(as_nobody(_IMPORT, _WALK, shared_path).splitlines()) == [
        "a",
        "private: unreadable: Permission denied",
    ]


@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (0o700, "{root}/below cannot be reached: no permission to enter 'below'"),
        (0o711, "{root}/below cannot be read; run as a user who may list it, or change its mode"),
    ],
)
def test_a_root_without_permission_is_refused(shared_path: Path, mode: int, message: str) -> None:
    (shared_path / "below").mkdir(mode=0o700)
    (shared_path / "below").chmod(0o711 if mode == 0o711 else 0o755)
    shared_path.chmod(0o700 if mode == 0o700 else 0o755)
    code = """
try:
    with open_root(Path(sys.argv[1])):
        print("opened")
except RootError as error:
    print(error)
"""
    assert as_nobody(_IMPORT, code, shared_path / "below") == message.format(root=shared_path)


def test_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(RootMissingError, match=r"/no/where does not exist$"), open_root(tmp_path / "no/where"):
        pass


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    make(tmp_path, "file")
    with pytest.raises(RootError, match=r"/file is not a directory$"), open_root(tmp_path / "file"):
        pass


@pytest.mark.parametrize("below", ["", "/d"])
def test_a_symlink_in_the_root_is_refused_and_the_real_path_is_named(tmp_path: Path, below: str) -> None:
    make(tmp_path, "real/d/a")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(RootError) as refusal, open_root(Path(f"{tmp_path}/link{below}")):
        pass
    named = f"name {tmp_path}/real{below}"
    assert str(refusal.value) == f"{tmp_path}/link{below} leads through the symbolic link 'link'; {named}"


@pytest.fixture
def directories(tmp_path: Path) -> Generator[Directories]:
    make(tmp_path, "a/b/c/x", "d/x", "e/x")
    with open_root(tmp_path) as fd, closing(Directories(fd, limit=2)) as opened:
        yield opened


def test_a_directory_is_found_by_its_path(tmp_path: Path, directories: Directories) -> None:
    for path in ("", "a", "a/b/c"):
        assert os.path.samestat(os.fstat(directories.open(path)), (tmp_path / path).stat())


def test_the_most_recently_used_stay_open(directories: Directories) -> None:
    first = directories.open("a")
    second = directories.open("d")
    assert directories.open("a") == first  # now d is the oldest
    directories.open("e")
    assert directories.open("a") == first
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(second)


def test_no_descriptor_stays_behind(directories: Directories) -> None:
    before = descriptors()
    for path in ("a", "a/b", "a/b/c", "d", "e"):
        directories.open(path)
    assert descriptors() == before + 2
    directories.close()
    assert descriptors() == before


@pytest.mark.parametrize("path", ["..", "a/..", "a/../d", ".", "a//b", "/a", "a/"])
def test_a_path_that_is_not_below_the_root(directories: Directories, path: str) -> None:
    with pytest.raises(OSError, match="is not a path below the root"):
        directories.open(path)


def test_an_escaped_way_out_is_refused(directories: Directories) -> None:
    with pytest.raises(ValueError, match="escape"):
        directories.open(r"a\u002f..\u002f..")


def test_a_symlink_on_the_way_is_refused(tmp_path: Path, directories: Directories) -> None:
    (tmp_path / "a/link").symlink_to("b")
    for path in ("a/link", "a/link/c"):
        with pytest.raises(NotADirectoryError):
            directories.open(path)


@pytest.mark.needs_root
def test_a_mount_that_appeared_is_refused(tmp_path: Path, directories: Directories) -> None:
    with (
        mounted("bind", tmp_path / "d", tmp_path / "a/b"),
        pytest.raises(OSError, match="lies on another mount now"),
    ):
        directories.open("a/b")


def test_a_forgotten_directory_is_looked_up_again(tmp_path: Path, directories: Directories) -> None:
    directories.open("d")
    shutil.rmtree(tmp_path / "d")
    directories.forget("d")
    directories.forget("d")
    with pytest.raises(FileNotFoundError):
        directories.open("d")
