"""Which filesystem a directory lies on, told in a way that holds over a reboot.

A device number alone does not: loop devices, btrfs, NFS and hot-plugged disks get another one with the next mount.
"""

import os

from msgspec import Struct

from cleanup_dagster.filesystem.syscalls import born_ns


class Place(Struct, frozen=True, array_like=True):
    """A directory: its device, inode and moment of creation, and its filesystem's own id. 0 where that is not known."""

    device: int
    inode: int
    born_ns: int
    filesystem: int


def place_of(fd: int) -> Place:
    """Return the place of an open directory."""
    status, filesystem = os.fstat(fd), os.statvfs(fd).f_fsid
    # XFS calls itself by its device's number, which is no id.
    return Place(status.st_dev, status.st_ino, born_ns(fd), 0 if filesystem == status.st_dev else filesystem)


def is_same_filesystem(then: Place, now: Place) -> bool:
    """Tell whether two places, of which one may have been recorded before a reboot, are on the same filesystem.

    The filesystem's id says so, where it has one (ext4, btrfs, tmpfs). Elsewhere the directory has to be the very same
    one, by inode and moment of creation, or at least on a device of the same number.
    """
    if then.filesystem and now.filesystem:
        return then.filesystem == now.filesystem
    same_directory = then.inode == now.inode and then.born_ns == now.born_ns != 0
    return same_directory or then.device == now.device
