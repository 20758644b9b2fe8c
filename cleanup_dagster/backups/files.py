"""Backups of format `files`: one plain copy per file, `<path below the root>.backup`, restorable with `cp` alone.

A copy is written into a staging directory, made durable, read back from the device and compared, entered in the
receipts, and only then gets its name: whatever ends in `.backup` is whole. Copies, not hard links: a link frees no
space, stays writable for whoever has the file open, and marks the original for ever.
"""

import contextlib
import hashlib
import itertools
import os
import shutil
import stat
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from cleanup_dagster.backups.archive import FRAME_BYTES, read_member, unpack_small
from cleanup_dagster.backups.manifest import WHOLE, Part
from cleanup_dagster.backups.source import SourceError, read_source
from cleanup_dagster.backups.staged import Staged
from cleanup_dagster.filesystem.flushing import sync_each, syncs_whole
from cleanup_dagster.filesystem.identity import OPEN_DIRECTORY, OPEN_FILE
from cleanup_dagster.filesystem.names import split, to_os
from cleanup_dagster.filesystem.private import private_directory
from cleanup_dagster.filesystem.syscalls import rename_noreplace, sync_filesystem
from cleanup_dagster.filesystem.tree import Directories, join
from cleanup_dagster.retention.models import Frame, Identity, Receipt

_BLOCK = 1 << 20
_HOLE = 1 << 16  # zeros from this length on are worth a hole
_NAME_MAX = 255  # bytes, of every Linux filesystem in use
_SUFFIX = ".backup"
_STAGING_PREFIX = ".staging-"
_REPLICAS = ".manifests"
#: What else lies there: the logs of runs.
LOGS = "cleanup_*.log"


class BackupError(Exception):
    """The store cannot be relied on (full, failing, or not what was written): nothing may be deleted on its account."""


class FileBackups:
    """An open backup directory, and the store of plain copies in it, for one run."""

    #: Copies stay open until they are durable, so a batch must stay well below 1,024 descriptors.
    batch_files = 256
    #: Copies from which one call for the whole filesystem is quicker than an fsync of each: 5 us a copy, not 280. It
    #: waits for whatever the neighbours have written, too, so a few files are left to their own.
    worth_whole = 32

    def __init__(self, fd: int, path: Path, run_id: str, part: Part = WHOLE) -> None:
        self.path = path
        self._fd = fd
        self._run = run_id
        self._part = part
        self._parts = 0
        self._staging: int | None = None
        self._open: set[int] = set()
        self._directories = Directories(fd)
        self._syncs_whole = syncs_whole(fd)
        self._frame = ("", 0, b"")

    def stage(self, source: int, identity: Identity, path: str = "") -> Staged:  # noqa: ARG002 an archive names its members
        """Copy an open file of `identity.size` bytes, hashing what is read. Holes stay holes.

        Raises BackupError, or SourceError when it is the file itself that cannot be read.
        """
        part = f"{self._part.number}-{self._parts}.part"
        self._parts += 1
        try:
            fd = os.open(
                part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._staging_directory()
            )
        except OSError as error:
            raise BackupError(f"no copy can be made in {self.path}: {error.strerror}") from None
        self._open.add(fd)
        try:
            digest, copied = copy_bytes(source, fd, identity.size)
            return Staged(digest, copied, os.fstat(fd).st_ino, fd=fd, part=part)
        except SourceError:
            self.discard(Staged("", 0, fd=fd, part=part))
            raise
        except OSError as error:
            raise BackupError(f"the copy in {self.path} failed: {error.strerror}") from None

    def discard(self, staged: Staged) -> None:
        """Forget one copy, because its source changed while it was read."""
        self._close(staged.fd)
        with contextlib.suppress(OSError):  # sweep() takes what stays
            os.unlink(staged.part, dir_fd=self._staging_directory())

    def make_durable(self, batch: Iterable[Staged]) -> None:
        """Bring staged copies to the device, read them back from there and compare, and close them.

        Write all, then sync all: 20 times the rate of syncing after every file. A sync that failed is never repeated,
        because the kernel may already have dropped the pages. Raises BackupError.
        """
        batch = list(batch)
        try:
            self._sync(batch)
            for staged in batch:
                begin_reading(staged.fd)
            for staged in batch:
                if _read_back(staged) != staged.sha256:
                    raise BackupError(f"a copy in {self.path} does not read back as written; the disk is failing")
        except OSError as error:
            raise BackupError(f"a copy in {self.path} cannot be made durable: {error.strerror}") from None
        finally:
            for staged in batch:
                self._close(staged.fd)

    def _sync(self, batch: list[Staged]) -> None:
        if self._syncs_whole and len(batch) >= self.worth_whole:
            sync_filesystem(self._fd)  # open since before the first copy, so it tells of every write that failed
            return
        for staged in batch:
            begin_writing(staged.fd)  # so that the first fsync commits the blocks of all of them
        for problem in sync_each([staged.fd for staged in batch]):
            if problem is not None:
                raise problem

    def choose_place(self, path: str, taken: set[str]) -> str:
        """Return a free place for the copy of the file at `path` (text form), and add it to those `taken`.

        Raises BackupError when the store cannot be looked into.
        """
        try:
            place = next(place for place in self._places(path) if self._is_free(place, taken))
        except OSError as error:
            raise BackupError(f"no place can be found in {self.path}: {error.strerror or error}") from None
        taken.add(place)
        taken.update(f"{directory}/" for directory in _directories_of(place))
        return place

    def _places(self, path: str) -> Iterator[str]:
        directory, name = split(path)
        if len(os.fsencode(to_os(name))) + len(_SUFFIX) > _NAME_MAX:
            name = hashlib.sha256(name.encode()).hexdigest()
        for candidate in (f"{name}{_SUFFIX}", f"{name}.{self._run[:8]}{_SUFFIX}"):
            if len(os.fsencode(to_os(candidate))) <= _NAME_MAX:
                yield join(directory, candidate)
        for number in itertools.count():  # several targets of one run may have files of the same relative path
            yield f"{hashlib.sha256(f'{self._run}/{number}/{path}'.encode()).hexdigest()}{_SUFFIX}"

    def publish(self, places: Iterable[tuple[Staged, str]]) -> None:
        """Give durable copies their names, and make the names durable. Raises BackupError; never replaces anything."""
        touched: set[str] = set()
        try:
            for staged, place in places:
                directory, name = split(place)
                if directory not in touched:
                    self._make_directory(directory)
                    touched.add(directory)
                rename_noreplace(
                    staged.part,
                    to_os(name),
                    source_dir=self._staging_directory(),
                    destination_dir=self._directories.open(directory),
                )
            for directory in touched:
                os.fsync(self._directories.open(directory))
        except OSError as error:
            raise BackupError(f"a copy in {self.path} cannot be given its name: {error.strerror or error}") from None

    def remove(self, place: str, inode: int | None = None) -> bool:
        """Remove one copy by its place, and the directories that become empty; False when it was not there.

        With `inode`, only that very copy: somebody else's may have got the place that this run had meant to use.
        """
        directory, name = split(place)
        try:
            fd = self._directories.open(directory)
            if inode is not None and os.stat(to_os(name), dir_fd=fd, follow_symlinks=False).st_ino != inode:
                return False
            os.unlink(to_os(name), dir_fd=fd)
        except FileNotFoundError:
            return False
        while directory:
            parent, name = split(directory)
            try:
                os.rmdir(to_os(name), dir_fd=self._directories.open(parent))
            except OSError:  # not empty
                break
            self._directories.forget(directory)
            directory = parent
        return True

    def keep_replica(self, receipts: Path, target: str) -> None:
        """Keep the finished receipts beside the copies: with them the store explains itself. Raises BackupError."""
        name = replica_of(self.path, self._run, target).name
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(_REPLICAS, 0o700, dir_fd=self._fd)
            directory = self._directories.open(_REPLICAS)
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
            with receipts.open("rb") as source, os.fdopen(fd, "wb") as replica:
                shutil.copyfileobj(source, replica)
                replica.flush()
                os.fsync(fd)
            os.fsync(directory)
            os.fsync(self._fd)
        except OSError as error:
            raise BackupError(f"the receipts cannot be kept in {self.path}: {error.strerror}") from None

    def remove_replica(self, target: str) -> None:
        """Remove the replica of a target's receipts, if there is one. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(replica_of(self.path, self._run, target).name, dir_fd=self._directories.open(_REPLICAS))

    def open_copy(self, place: str) -> int:
        """Open one copy for reading. Raises OSError when it is not there, or is no regular file."""
        directory, name = split(place)
        copy = os.open(to_os(name), OPEN_FILE, dir_fd=self._directories.open(directory))
        if not stat.S_ISREG(os.fstat(copy).st_mode):
            os.close(copy)
            raise OSError("it is no regular file any more")
        return copy

    def blocks(self, receipt: Receipt) -> Iterator[bytes]:
        """Yield the bytes of one file's backup. Raises OSError when it is not there, or an archive is not whole."""
        if receipt.frame is not None and receipt.identity.size <= FRAME_BYTES:
            yield self._packed(receipt.backup, receipt.frame, receipt.identity.size)
            return
        copy = self.open_copy(receipt.backup)
        try:
            if receipt.frame is not None:
                yield from read_member(copy, receipt.frame, receipt.identity.size)
                return
            while block := os.read(copy, _BLOCK):
                yield block
        finally:
            os.close(copy)

    def _packed(self, archive: str, frame: Frame, size: int) -> bytes:
        """Return a small member. Its neighbours share the frame, so the last one stays unpacked (1.2 ms for each)."""
        if self._frame[:2] != (archive, frame.offset):
            copy = self.open_copy(archive)
            try:
                self._frame = (archive, frame.offset, unpack_small(copy, frame))
            finally:
                os.close(copy)
        content = self._frame[2][frame.inner : frame.inner + size]
        if len(content) != size:
            raise OSError("the archive ends before the file does")
        return content

    def problem(self, receipt: Receipt) -> str | None:
        """Read a backup again and say what is wrong with it, or None when it is what was written."""
        digest = hashlib.sha256()
        try:
            for block in self.blocks(receipt):
                digest.update(block)
        except OSError as error:
            return f"it cannot be read: {error.strerror or error}"
        return None if digest.hexdigest() == receipt.sha256 else "its bytes are not what was written"

    def finish(self) -> None:
        """Do nothing: plain copies are complete one by one."""

    def create(self, name: str) -> int:
        """Create a file of the store itself, mode 0600, and make its name durable. Raises OSError."""
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._fd)
        os.fsync(self._fd)
        return fd

    def written_ns(self, place: str, default: int) -> int:
        """Return when a copy was written, or `default` when it is not there."""
        directory, name = split(place)
        try:
            return os.stat(to_os(name), dir_fd=self._directories.open(directory), follow_symlinks=False).st_mtime_ns
        except FileNotFoundError:
            return default

    def sweep(self) -> None:
        """Remove what this run, or this part of it, staged and did not publish."""
        if self._staging is not None:
            os.close(self._staging)
            self._staging = None
        name = f"{_STAGING_PREFIX}{self._run}"
        try:
            fd = os.open(name, OPEN_DIRECTORY, dir_fd=self._fd)
        except FileNotFoundError:
            return
        try:
            ours = "" if self._part == WHOLE else f"{self._part.number}-"
            with os.scandir(fd) as entries:
                for entry in entries:
                    if entry.name.startswith(ours):
                        os.unlink(entry.name, dir_fd=fd)
        finally:
            os.close(fd)
        if self._part == WHOLE:  # else other parts may be about to use it
            os.rmdir(name, dir_fd=self._fd)

    def close(self) -> None:
        """Sweep and close."""
        for fd in list(self._open):  # staged in a batch that was never made durable
            self._close(fd)
        try:
            with contextlib.suppress(OSError):  # a failing disk must not hide what was already decided
                self.sweep()
        finally:
            self._directories.close()

    def _staging_directory(self) -> int:
        if self._staging is None:
            name = f"{_STAGING_PREFIX}{self._run}"
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=self._fd)
            self._staging = os.open(name, OPEN_DIRECTORY, dir_fd=self._fd)
        return self._staging

    def _close(self, fd: int) -> None:
        self._open.discard(fd)
        os.close(fd)

    def _is_free(self, place: str, taken: set[str]) -> bool:
        # `a` is copied to `a.backup`, which a file in a directory of that name needs as a directory.
        if place in taken or f"{place}/" in taken or any(above in taken for above in _directories_of(place)):
            return False
        directory, name = split(place)
        try:
            os.stat(to_os(name), dir_fd=self._directories.open(directory), follow_symlinks=False)
        except FileNotFoundError:
            return True
        except NotADirectoryError:  # a copy has the name that this directory would need
            return False
        return False

    def _make_directory(self, path: str) -> None:
        made = ""
        for part in path.split("/") if path else ():
            parent = self._directories.open(made)
            with contextlib.suppress(FileExistsError):
                os.mkdir(to_os(part), 0o700, dir_fd=parent)
                os.fsync(parent)
            made = join(made, part)


def _directories_of(place: str) -> Iterator[str]:
    while place := split(place)[0]:
        yield place


def why_away(directory: Path) -> str | None:
    """Say why the copies in a backup directory seem to be on a disk that is not mounted, or None."""
    if not directory.is_dir():
        return "is not there"
    if all(fnmatch(path.name, LOGS) for path in directory.iterdir()):
        return "is empty, as a mount point is whose disk is away"
    return None


def replica_of(directory: Path, run_id: str, target: str) -> Path:
    """Return where a backup directory keeps the receipts of a run's target."""
    return directory / _REPLICAS / f"{run_id}.{target}.receipts.jsonl.zst"


def write_blocks(blocks: Iterable[bytes], destination: int) -> str:
    """Write blocks to an open new file, whole blocks of zeros as holes, and return the sha256 of all of them."""
    digest = hashlib.sha256()
    size = 0
    for block in blocks:
        digest.update(block)
        size += len(block)
        if len(block) >= _HOLE and block.count(0) == len(block):
            os.lseek(destination, len(block), os.SEEK_CUR)
        else:
            _write_all(destination, block)
    os.ftruncate(destination, size)
    return digest.hexdigest()


def copy_bytes(source: int, destination: int, size: int) -> tuple[str, int]:
    """Copy an open file of `size` bytes from where it stands, holes as holes; return the sha256 and the bytes copied.

    One byte more than `size` is copied when there is more, so that a file that grew is told by its length.
    Raises SourceError when the source cannot be read, OSError when the copy cannot be written.
    """
    digest = hashlib.sha256()
    copied = 0
    sparse = os.fstat(source).st_blocks * 512 < size
    while block := read_source(source, min(_BLOCK, size + 1 - copied)):
        digest.update(block)
        copied += len(block)
        if sparse and block.count(0) == len(block):
            os.lseek(destination, len(block), os.SEEK_CUR)
        else:
            _write_all(destination, block)
        if copied > size:  # it grew; the caller sees that by its identity
            break
    if sparse:
        os.ftruncate(destination, copied)
    return digest.hexdigest(), copied


def _write_all(fd: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(fd, view) :]


def begin_writing(fd: int) -> None:
    """Have the kernel begin to write an open file out, where it can be told to (not on macOS), and drop its pages."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def begin_reading(fd: int) -> None:
    """Drop the pages of an open file that is on the device, and have the kernel begin to read it from there again."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)


def _read_back(staged: Staged) -> str:
    digest = hashlib.sha256()
    position = 0
    while block := os.pread(staged.fd, min(_BLOCK, staged.size + 1 - position), position):
        digest.update(block)
        position += len(block)
    return digest.hexdigest()


@contextmanager
def open_file_backups(path: Path, run_id: str, part: Part = WHOLE) -> Generator[FileBackups]:
    """Open the backup directory for a run, or a part of it, creating it.

    Raises UnsafeDirectoryError when it is not ours alone.
    """
    with private_directory(path, "backup directory") as fd:
        store = FileBackups(fd, path, run_id, part)
        try:
            yield store
        finally:
            store.close()
