"""Where others can change a file of ours: in itself, on the way to it, by a link; and where they cannot get to it."""

import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from filesystem_helpers import NOBODY

from cleanup_dagster.filesystem.private import Opening, openings

GROUP = 1_234


@pytest.fixture
def home() -> Generator[Path]:
    """A directory that everybody can enter: what lies in pytest's own is closed to others whatever its mode."""
    home = Path(tempfile.mkdtemp()).resolve()
    home.chmod(0o755)
    (home / "conf").mkdir(mode=0o755)
    (home / "conf/cleanup.yaml").touch(mode=0o644)
    yield home
    shutil.rmtree(home)


def test_a_file_that_only_its_owner_writes_has_none(home: Path) -> None:
    assert list(openings(home / "conf/cleanup.yaml")) == []


@pytest.mark.parametrize("place", ["conf/cleanup.yaml", "conf", ""])
def test_what_everybody_can_write(home: Path, place: str) -> None:
    (home / place).chmod(0o666 | 0o111)
    (found,) = openings(home / "conf/cleanup.yaml")
    assert found == Opening(
        f"{home / place} can be written by everybody (mode 0777)", f"chmod o-w {home / place}", True
    )


@pytest.mark.needs_root
@pytest.mark.parametrize("place", ["conf/cleanup.yaml", "conf"])
def test_what_a_group_can_write(home: Path, place: str) -> None:
    (home / place).chmod(0o775)
    assert list(openings(home / "conf/cleanup.yaml")) == []  # our own group, root's
    os.chown(home / place, 0, GROUP)
    (found,) = openings(home / "conf/cleanup.yaml")
    said = f"{home / place} can be written by group {GROUP} (mode 0775)"
    assert found == Opening(said, f"chmod g-w {home / place}")


@pytest.mark.needs_root
@pytest.mark.parametrize("place", ["conf/cleanup.yaml", "conf"])
def test_what_belongs_to_somebody_else(home: Path, place: str) -> None:
    os.chown(home / place, NOBODY, 0)
    (found,) = openings(home / "conf/cleanup.yaml")
    assert found == Opening(f"{home / place} belongs to uid {NOBODY}", f"chown 0 {home / place}")


def test_in_a_sticky_directory_our_own_file_is_safe(home: Path) -> None:
    (home / "conf").chmod(0o1777)
    assert list(openings(home / "conf/cleanup.yaml")) == []


@pytest.mark.needs_root
def test_in_a_sticky_directory_the_link_of_somebody_else_can_be_turned(home: Path) -> None:
    link = home / "link.yaml"
    link.symlink_to(home / "conf/cleanup.yaml")
    os.lchown(link, NOBODY, NOBODY)
    assert list(openings(link)) == []  # only who may write the directory can turn it
    home.chmod(0o1777)
    (found,) = openings(link)
    assert found == Opening(f"the symbolic link {link} belongs to uid {NOBODY}", f"chown -h 0 {link}")


def test_the_way_that_a_link_leads_counts(home: Path) -> None:
    (home / "link").symlink_to("conf")
    (home / "conf").chmod(0o777)
    (found,) = openings(home / "link/cleanup.yaml")
    assert found.said.startswith(f"{home}/conf can be written by everybody")


def test_what_others_cannot_get_to_is_closed_to_them(home: Path) -> None:
    (home / "conf/cleanup.yaml").chmod(0o666)
    (home / "conf").chmod(0o700)
    assert list(openings(home / "conf/cleanup.yaml")) == []
    (home / "conf").chmod(0o710)
    assert [found.anybody for found in openings(home / "conf/cleanup.yaml")] == [False]


def test_on_a_mount_that_is_read_only_here_it_is_nobody_in_particular(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ReadOnly:
        f_flag = os.ST_RDONLY

    def statvfs(_: object) -> ReadOnly:
        return ReadOnly()

    (home / "conf/cleanup.yaml").chmod(0o666)
    monkeypatch.setattr(os, "statvfs", statvfs)
    assert [found.anybody for found in openings(home / "conf/cleanup.yaml")] == [False]


def test_a_file_that_is_not_there_is_told(home: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(openings(home / "nothing"))
