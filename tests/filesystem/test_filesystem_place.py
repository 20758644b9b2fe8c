"""Whether a directory is on the filesystem that it was on, whatever the device is called today."""

import os
from pathlib import Path

import pytest

from cleanup_dagster.filesystem import syscalls
from cleanup_dagster.filesystem.place import Place, is_same_filesystem, place_of

THEN = Place(device=7, inode=2, born_ns=10, filesystem=99)


@pytest.mark.parametrize(
    ("now", "same"),
    [
        (THEN, True),
        (Place(8, 2, 10, 99), True),  # after a reboot
        (Place(8, 5, 11, 99), True),  # the root was made anew on the same filesystem
        (Place(7, 2, 10, 98), False),  # another disk got the number; both were formatted in the same second
        (Place(8, 2, 10, 0), True),  # no id: the very same directory
        (Place(8, 2, 11, 0), False),
        (Place(8, 5, 10, 0), False),
        (Place(7, 5, 0, 0), True),  # nothing but the number is known
        (Place(8, 2, 0, 0), False),
    ],
)
def test_what_tells_that_it_is_the_same(now: Place, same: bool) -> None:
    assert is_same_filesystem(THEN, now) is same
    assert is_same_filesystem(now, THEN) is same


def test_a_place_says_what_the_system_says(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        place, status = place_of(fd), os.fstat(fd)
        assert (place.device, place.inode) == (status.st_dev, status.st_ino)
        assert place.filesystem in {0, os.fstatvfs(fd).f_fsid}
        assert place.born_ns == 0 or abs(place.born_ns - status.st_ctime_ns) < 60 * 10**9
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(syscalls, "_statx", None)
            assert place_of(fd) == Place(place.device, place.inode, 0, place.filesystem)
    finally:
        os.close(fd)
