"""Small ext4 disks on loop devices whose power can be cut: what was not yet on the disk at that moment is gone.

The ioctl is the one xfstests uses for the same purpose. It models a lost cache: every write is either on the disk or
not, none is torn, and a disk that acknowledged a flush has flushed.
"""

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
_NO_LOG_FLUSH = struct.pack("I", 2)
_NEW_NAMESPACE = 0x00020000  # CLONE_NEWNS
_PRIVATE = 1 << 18 | 1 << 14  # MS_PRIVATE | MS_REC
#: No commit of the journal on its own, and none of ext4's precautions for programs that do not fsync.
_OPTIONS = b"commit=600,noauto_da_alloc"
_MIB = 1 << 20
_NOTED = "attached"

_libc = ctypes.CDLL(None, use_errno=True)


def why_impossible() -> str:
    """Say why there can be no such disks here, or return an empty string."""
    if os.geteuid() != 0:
        return "mounting needs root"
    if shutil.which("mkfs.ext4") is None or shutil.which("losetup") is None:
        return "mkfs.ext4 or losetup is missing"
    if subprocess.run(["losetup", "--find"], capture_output=True, check=False).returncode != 0:
        return "there are no loop devices here"
    return ""


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


class Disk:
    """One ext4 filesystem in a file, with a state to go back to."""

    def __init__(self, at: Path, image: Path, device: str) -> None:
        self.at = at
        self._image = image
        self._device = device
        self._start = b""

    def mount(self) -> None:
        """Mount it, which replays its journal."""
        _check(_libc.mount(self._device.encode(), os.fsencode(self.at), b"ext4", 0, _OPTIONS), f"mounting at {self.at}")

    def unmount(self) -> None:
        """Unmount it; with nobody left who has it open, the kernel forgets everything it had cached of it."""
        _check(_libc.umount2(os.fsencode(self.at), 0), f"unmounting {self.at}")

    def remember(self) -> None:
        """Take what is on the disk now, unmounted, as the state to go back to."""
        self._start = self._image.read_bytes()

    def reset(self) -> None:
        """Go back to it."""
        with self._image.open("r+b") as image:
            image.write(self._start)


class Disks:
    """Several disks that share one power supply."""

    def __init__(self, disks: Sequence[Disk]) -> None:
        self._disks = disks

    def mount(self) -> None:
        """Mount all."""
        self._side_by_side(Disk.mount)

    def unmount(self) -> None:
        """Unmount all."""
        self._side_by_side(Disk.unmount)

    def _side_by_side(self, act: Callable[[Disk], None]) -> None:
        """Do something with all at once: most of the time the kernel only waits, and then once for all."""
        with ThreadPoolExecutor(len(self._disks)) as threads:
            list(threads.map(act, self._disks))

    def remember(self) -> None:
        """Take what is on them, unmounted, as the state to go back to."""
        for disk in self._disks:
            disk.remember()

    def reset(self) -> None:
        """Go back to it."""
        for disk in self._disks:
            disk.reset()

    def switch(self, written_back: Iterable[str]) -> Callable[[], None]:
        """Return what cuts the power, after the kernel happened to write back the disks of those names."""
        opened = {disk.at.name: os.open(disk.at, os.O_RDONLY | os.O_DIRECTORY) for disk in self._disks}
        synced = [opened[name] for name in written_back]

        def cut() -> None:
            for fd in synced:
                _check(_libc.syncfs(fd), "syncfs")
            for fd in opened.values():
                fcntl.ioctl(fd, _SHUTDOWN, _NO_LOG_FLUSH)

        return cut


def in_memory(directory: Path) -> TextIO:
    """Lay memory over a directory, for this process alone: its mounts go with it, however it ends.

    /dev/shm will not do, because no target may lie below /dev. Returns a file below the memory, where whoever started
    this process finds the devices that it could not detach any more.
    """
    noted = (directory / _NOTED).open("w")
    _check(_libc.unshare(_NEW_NAMESPACE), "unshare")
    _check(_libc.mount(None, b"/", None, _PRIVATE, None), "making mounts private")
    _check(_libc.mount(b"none", os.fsencode(directory), b"tmpfs", 0, b"mode=755"), f"mounting at {directory}")
    return noted


@contextmanager
def disks(home: Path, names: Iterable[str], noted: TextIO, mib: int = 6) -> Generator[Disks]:
    """Make empty disks to be mounted at these names below `home`, noting their devices until they are detached."""
    with ExitStack() as stack:
        stack.callback(noted.truncate, 0)
        made = [_disk(stack, home / name, home / f"{name}.image", noted, mib) for name in names]
        yield Disks(made)


def _disk(stack: ExitStack, at: Path, image: Path, noted: TextIO, mib: int) -> Disk:
    at.mkdir()
    with image.open("wb") as file:
        file.truncate(mib * _MIB)
    make = ["mkfs.ext4", "-q", "-F", "-b", "1024", "-J", "size=1", "-m", "0", str(image)]
    subprocess.run(make, check=True, capture_output=True)
    attach = ["losetup", "--find", "--show", str(image)]
    device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
    noted.write(f"{device}\n")
    noted.flush()
    stack.callback(subprocess.run, ["losetup", "--detach", device], check=True)
    return Disk(at, image, device)


def detach_leftovers(directory: Path) -> None:
    """Detach what a program left attached that was killed in this directory."""
    noted = directory / _NOTED
    for device in noted.read_text().split() if noted.exists() else ():
        subprocess.run(["losetup", "--detach", device], check=False)
