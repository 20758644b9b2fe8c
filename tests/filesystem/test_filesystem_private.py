"""Directories that nobody else can read, change or swap."""

import os
import re
import stat
from collections.abc import Generator
from pathlib import Path

import pytest
from filesystem_helpers import NOBODY, descriptors

from cleanup_dagster.filesystem.private import UnsafeDirectoryError, private_directory


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(UnsafeDirectoryError) as refusal, private_directory(path, "backup directory"):
        pass
    assert str(refusal.value) == f"the backup directory {path} {message}"


@pytest.fixture(params=[0o000, 0o002, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Generator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_it_and_its_parents_are_created_for_us_alone(tmp_path: Path) -> None:
    with private_directory(tmp_path / "a/b/c", "backup directory") as fd:
        assert os.path.samestat(os.fstat(fd), (tmp_path / "a/b/c").stat())
    assert [mode_of(tmp_path / path) for path in ("a", "a/b", "a/b/c")] == [0o700] * 3


def test_it_is_used_again(tmp_path: Path) -> None:
    for _ in range(2):
        with private_directory(tmp_path / "a", "backup directory") as fd:
            os.close(os.open("x", os.O_CREAT, dir_fd=fd))
    assert (tmp_path / "a/x").exists()


def test_one_that_vanished_or_came_meanwhile_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_there(_: Path) -> bool:
        return False

    (tmp_path / "a").mkdir(mode=0o755)
    monkeypatch.setattr(os.path, "lexists", not_there)  # as if it were made just now
    assert_refused(tmp_path / "a", "has mode 0755, open to others; chmod 700 it or name another")


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o750, 0o701])
def test_one_that_is_open_to_others(tmp_path: Path, mode: int) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(mode)
    assert_refused(tmp_path / "a", f"has mode {mode:04o}, open to others; chmod 700 it or name another")


@pytest.mark.needs_root
def test_one_that_somebody_else_made_first(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    os.chown(tmp_path / "a", NOBODY, NOBODY)
    assert_refused(tmp_path / "a", "belongs to uid 65534, not to this process (uid 0); remove it or name another")


@pytest.mark.parametrize("target", ["real", "nowhere"])
def test_a_symlink(tmp_path: Path, target: str) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "a").symlink_to(target)
    assert_refused(tmp_path / "a", "is a symbolic link; remove it or name another")
    assert not (tmp_path / "nowhere").exists()


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert_refused(tmp_path / "a", "is not a directory; remove it or name another")


@pytest.mark.parametrize("depth", ["a", "b/a"])
def test_below_one_that_everybody_may_change(tmp_path: Path, depth: str) -> None:
    tmp_path.chmod(0o777)
    assert_refused(
        tmp_path / depth,
        f"lies below {tmp_path}, which others can change (uid {os.getuid()}, mode 0777); "
        "name a directory below one that only root or you can change",
    )
    assert list(tmp_path.iterdir()) == []


def test_below_one_that_is_sticky(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with private_directory(tmp_path / "a", "backup directory"):
        assert mode_of(tmp_path / "a") == 0o700


@pytest.mark.needs_root
def test_below_one_that_belongs_to_somebody_else(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    tmp_path.chmod(0o755)
    assert_refused(
        tmp_path / "a",
        f"lies below {tmp_path}, which others can change (uid 65534, mode 0755); "
        "name a directory below one that only root or you can change",
    )


@pytest.mark.needs_root
def test_below_one_that_a_foreign_group_may_change(tmp_path: Path) -> None:
    os.chown(tmp_path, 0, NOBODY)
    tmp_path.chmod(0o775)
    with pytest.raises(UnsafeDirectoryError, match=re.escape("others can change (uid 0, mode 0775)")):
        private_directory(tmp_path / "a", "backup directory").__enter__()


def test_a_symlink_on_the_way_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to("open")
    with pytest.raises(UnsafeDirectoryError, match="/open, which others can change"):
        private_directory(tmp_path / "link/a", "backup directory").__enter__()


@pytest.mark.needs_root
def test_a_symlink_on_the_way_that_somebody_else_made(tmp_path: Path) -> None:
    """It leads to a place of ours today, and wherever he wants at any moment."""
    (tmp_path / "ours").mkdir(mode=0o700)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    link = tmp_path / "shared/link"
    link.symlink_to(tmp_path / "ours")
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    said = f"leads through the symbolic link {link} of uid 65534, who can turn it elsewhere; name the real path"
    assert_refused(link / "a", said)
    (tmp_path / "by-another").symlink_to("shared/../shared/link")
    assert_refused(tmp_path / "by-another/a", said)
    assert list((tmp_path / "ours").iterdir()) == []


@pytest.mark.needs_root
def test_a_symlink_that_only_we_could_make_again_is_followed_whoever_has_it(tmp_path: Path) -> None:
    """As `chown -R` leaves one in a directory that its owner may not write to."""
    (tmp_path / "ours").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("ours")
    os.chown(tmp_path / "link", NOBODY, NOBODY, follow_symlinks=False)
    with private_directory(tmp_path / "link/a", "backup directory"):
        assert mode_of(tmp_path / "ours/a") == 0o700


def test_a_symlink_of_ours_in_a_directory_that_others_may_change(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir(mode=0o700)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open/link").symlink_to(tmp_path / "ours")
    with pytest.raises(UnsafeDirectoryError, match="/open, which others can change"):
        private_directory(tmp_path / "open/link/a", "backup directory").__enter__()


def test_a_symlink_of_ours_on_the_way_is_followed(tmp_path: Path) -> None:
    (tmp_path / "deep/ours").mkdir(mode=0o700, parents=True)
    (tmp_path / "deep/link").symlink_to("../deep/ours")
    with private_directory(tmp_path / "deep/link/a/b", "backup directory"):
        assert mode_of(tmp_path / "deep/ours/a/b") == 0o700


def test_symlinks_that_lead_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    with pytest.raises(UnsafeDirectoryError, match="cannot be reached: Too many levels of symbolic links"):
        private_directory(tmp_path / "one/a", "backup directory").__enter__()


def test_what_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnsafeDirectoryError, match=r"Not a directory at|is not a directory"):
        private_directory(tmp_path / "file/a/b", "backup directory").__enter__()


def test_no_descriptor_stays_behind(tmp_path: Path) -> None:
    before = descriptors()
    with private_directory(tmp_path / "a", "backup directory"):
        pass
    (tmp_path / "a").chmod(0o755)
    assert_refused(tmp_path / "a", "has mode 0755, open to others; chmod 700 it or name another")
    assert descriptors() == before
