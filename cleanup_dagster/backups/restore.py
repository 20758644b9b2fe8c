"""Putting files back from their backups: to their original paths or nowhere, verified before anything is written.

Every path is walked again from an open root, one component per open, so a manifest that was tampered with cannot lead
out of it. A file appears whole or not at all and never replaces anything. It gets back owner, mode and mtime where
that is permitted, but no setuid, no setgid and no capability: a backup must not be a way to make a root shell.

    batch   verify, write to files without a name -> fsync each -> link each to its name -> fsync each directory once

A batch that dies leaves of each file nothing or all of it. Where the filesystem has no files without a name (some
network ones), they are written in the root's quarantine: there nobody can swap them, no scan takes them for garbage,
and `sweep` finds what a restore that died has left.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from cleanup_dagster.backups.files import FileBackups, begin_writing, write_blocks
from cleanup_dagster.filesystem.flushing import sync_each
from cleanup_dagster.filesystem.identity import OPEN_DIRECTORY, OPEN_FILE, hash_open
from cleanup_dagster.filesystem.names import split, to_os
from cleanup_dagster.filesystem.quarantine import Quarantine, left_quarantines, open_quarantine, reopen_quarantine
from cleanup_dagster.filesystem.syscalls import mount_id, rename_noreplace
from cleanup_dagster.filesystem.tree import join
from cleanup_dagster.retention.models import Receipt, Restored, RestoreState

#: Files of a batch, each open until it has its name. Two fsyncs for every file restored 70 to 300 a second, this 800.
BATCH_FILES = 128
#: What a batch writes at most, unless one file is larger: it is all lost with a batch that dies.
BATCH_BYTES = 64 << 20
_SMALL = 1 << 20  # a backup up to this size is read once and kept; larger ones are read for the hash and again to write

_NO_NAME = getattr(os, "O_TMPFILE", None)  # Linux only
#: What a filesystem, or a kernel, says that cannot make a file without a name.
_NAMES_NEEDED = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS})
#: What changing an owner says when we are not root, or in a container that does not know that user.
_NOT_OURS_TO_GIVE = frozenset({errno.EPERM, errno.EINVAL})
_DIRECTORY_MODE = 0o755
_UNFINISHED = ".restore-"  # no run id begins with a dot, so no slot of a run is called so


class _File(Struct):
    """One file of a batch: what it is written to while it has no name yet, and how it ended, once it has."""

    receipt: Receipt
    fd: int = -1
    temporary: str = ""
    detail: str = ""
    ended: Restored | None = None

    def end(self, state: RestoreState, detail: str = "") -> None:
        self.ended = _ended(self.receipt, state, detail)


class Restorer:
    """Restores into one open root. With `dry_run` it verifies and looks, and writes nothing."""

    def __init__(self, root_fd: int, store: FileBackups, *, dry_run: bool) -> None:
        self._root = root_fd
        self._store = store
        self._dry_run = dry_run
        self._held = contextlib.ExitStack()
        self._quarantine: Quarantine | None = None

    def close(self) -> None:
        """Remove the quarantine again, if one was needed."""
        self._held.close()

    def restore(self, receipts: Iterable[Receipt]) -> Iterator[Restored]:
        """Put files back, and yield what became of each once that is durable, in order.

        Everything that prevents it comes back as the state and detail of the result.
        """
        for batch in _batches(receipts):
            yield from self._restore_batch([_File(receipt) for receipt in batch])

    def _restore_batch(self, batch: list[_File]) -> list[Restored]:
        places = _Places(self._root, make=not self._dry_run)
        try:
            _each(batch, self._write, places)
            _sync(batch)
            places.close()  # walked again: one that was moved out of the root meanwhile must not be found
            _each(batch, self._give_name, places)
            _each(batch, _confirm, places)
            return [file.ended for file in batch if file.ended is not None]
        finally:
            places.close()
            self._let_go(batch)

    def _write(self, file: _File, places: "_Places") -> None:
        """Verify a backup, look at what has the name, and write the bytes to a file that nobody sees."""
        receipt = file.receipt
        content = self._verified(file)
        if file.ended is not None:
            return
        path, name = split(receipt.path)
        if name in {"", ".", ".."}:
            raise OSError("its path does not lie below the root")
        directory = places.open(path, receipt)
        present = None if directory is None else _present(directory, to_os(name), receipt.sha256)
        if present is not None:
            file.end(present, "" if present is RestoreState.PRESENT else "a newer file has its name")
        elif directory is None or self._dry_run:
            file.end(RestoreState.WOULD_RESTORE)
        else:
            self._open_new(file, directory)
            blocks = self._store.blocks(receipt) if content is None else [content]
            if write_blocks(blocks, file.fd) != receipt.sha256:
                raise OSError("its backup changed while it was read")
            file.detail = _give_back(file.fd, receipt)
            begin_writing(file.fd)  # so that the first fsync commits the blocks of all of them

    def _verified(self, file: _File) -> bytes | None:
        """Verify a backup, and return its bytes unless they are many; what is wrong with it ends the file."""
        receipt, digest = file.receipt, hashlib.sha256()
        if not receipt.backup:
            file.end(RestoreState.NO_BACKUP, "the run was told to skip backups")
            return None
        content: bytes | None = b""
        try:
            for block in self._store.blocks(receipt):
                digest.update(block)
                content = None if content is None or len(content) + len(block) > _SMALL else content + block
        except FileNotFoundError:
            file.end(RestoreState.MISSING, f"its backup {receipt.backup} is not there")
        except (OSError, ValueError) as error:
            file.end(RestoreState.DAMAGED, f"its backup {receipt.backup}: {_said(error)}")
        else:
            if digest.hexdigest() != receipt.sha256:
                file.end(RestoreState.DAMAGED, f"its backup {receipt.backup} has other bytes by now")
        return content

    def _open_new(self, file: _File, directory: int) -> None:
        """Open a new file, without a name where the filesystem can do that, else in the quarantine."""
        if _NO_NAME is not None:
            try:
                file.fd = os.open(".", _NO_NAME | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)
            except OSError as error:
                if error.errno not in _NAMES_NEEDED:
                    raise
            else:
                return
        if self._quarantine is None:
            self._quarantine = self._held.enter_context(open_quarantine(self._root))
        temporary = f"{_UNFINISHED}{secrets.token_hex(8)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file.fd = os.open(temporary, flags, 0o600, dir_fd=self._quarantine.fd)
        file.temporary = temporary

    def _give_name(self, file: _File, places: "_Places") -> None:
        path, name = split(file.receipt.path)
        directory = places.open(path, file.receipt)
        assert directory is not None, "a dry run gives no names"  # noqa: S101
        try:
            if self._quarantine is not None and file.temporary:
                source = self._quarantine.fd
                rename_noreplace(file.temporary, to_os(name), source_dir=source, destination_dir=directory)
            else:
                os.link(f"/proc/self/fd/{file.fd}", to_os(name), dst_dir_fd=directory, follow_symlinks=True)
        except FileExistsError:
            file.end(RestoreState.EXISTS, "a newer file has its name")
        else:
            places.touch(path)

    def _let_go(self, batch: list[_File]) -> None:
        """Close what is open, which takes a file that got no name with it, and remove what has a temporary one."""
        for file in batch:
            if file.fd >= 0:
                os.close(file.fd)
            if file.temporary and self._quarantine is not None:
                with contextlib.suppress(FileNotFoundError):
                    self._quarantine.remove(file.temporary)


def _batches(receipts: Iterable[Receipt]) -> Iterator[list[Receipt]]:
    batch: list[Receipt] = []
    size = 0
    for receipt in receipts:
        batch.append(receipt)
        size += receipt.identity.size
        if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _each(batch: list[_File], step: Callable[[_File, "_Places"], None], places: "_Places") -> None:
    """Do one step for each file that goes on. What goes wrong ends that file, and the others go on."""
    for file in batch:
        if file.ended is None:
            try:
                step(file, places)
            except (OSError, ValueError) as error:  # a ValueError is a name that no file can have
                file.end(RestoreState.FAILED, _said(error))


def _sync(batch: list[_File]) -> None:
    written = [file for file in batch if file.ended is None]
    for file, error in zip(written, sync_each([file.fd for file in written]), strict=True):
        if error is not None:
            file.end(RestoreState.FAILED, _said(error))


def _confirm(file: _File, places: "_Places") -> None:
    places.sync(split(file.receipt.path)[0])
    file.end(RestoreState.RESTORED, file.detail)


class _Places:
    """The directories of one batch, below the root and on its mount; those that are missing are made, with `make`."""

    def __init__(self, root_fd: int, *, make: bool) -> None:
        self._root = root_fd
        self._mount = mount_id(root_fd)
        self._make = make
        self._open: dict[str, int] = {}
        self._touched: set[str] = set()
        self._synced: dict[str, OSError | None] = {}

    def open(self, path: str, receipt: Receipt) -> int | None:
        """Return the descriptor of a directory until `close`; None when it is missing and not to be made."""
        if path not in self._open:
            fd = self._walk_to(path, receipt)
            if fd is None:
                return None
            self._open[path] = fd
        return self._open[path]

    def touch(self, path: str) -> None:
        """Note that a directory has new names, which `sync` is to make durable."""
        self._touched.add(path)

    def sync(self, path: str) -> None:
        """Make the new names in a directory and on the way to it durable. Raises OSError, for each of their files."""
        parts = path.split("/") if path else []
        for place in ("/".join(parts[:depth]) for depth in range(len(parts) + 1)):
            if place in self._touched and place not in self._synced:
                self._synced[place] = self._sync_once(place)
            error = self._synced.get(place)
            if error is not None:
                raise error

    def _sync_once(self, path: str) -> OSError | None:
        """Return what went wrong: a failed fsync must not be repeated, because the second one may say all is well."""
        try:
            fd = self._walk_to(path, None)
            if fd is not None:
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        except OSError as error:
            return error
        return None

    def close(self) -> None:
        """Close every directory; the next `open` walks again."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def _walk_to(self, path: str, receipt: Receipt | None) -> int | None:
        fd, made = os.dup(self._root), ""
        for part in path.split("/") if path else ():
            try:
                below = self._enter(fd, made, part, receipt)
            finally:
                os.close(fd)
            if below is None:
                return None
            fd, made = below, join(made, part)
        if mount_id(fd) != self._mount:
            os.close(fd)
            raise OSError(f"{path!r} lies on another mount now")
        return fd

    def _enter(self, fd: int, above: str, part: str, receipt: Receipt | None) -> int | None:
        if part in {"", ".", ".."}:
            raise OSError("its path does not lie below the root")
        name = to_os(part)
        try:
            return os.open(name, OPEN_DIRECTORY, dir_fd=fd)
        except FileNotFoundError:
            if receipt is None or not self._make:
                return None
        os.mkdir(name, 0o700, dir_fd=fd)
        self.touch(above)
        made = os.open(name, OPEN_DIRECTORY, dir_fd=fd)
        try:
            _give_directory(made, os.fstat(fd), receipt)
        except OSError:
            os.close(made)
            raise
        return made


def sweep(root_fd: int) -> None:
    """Remove what a restore that died had begun to write. Needs the lock of live runs; no whole file is lost by it."""
    for name in left_quarantines(root_fd):
        with reopen_quarantine(root_fd, name) as quarantine:
            if quarantine is not None:
                with os.scandir(quarantine.fd) as entries:
                    left = [entry.name for entry in entries if entry.name.startswith(_UNFINISHED)]
                for slot in left:
                    quarantine.remove(slot)


def _give_directory(made: int, above: os.stat_result, receipt: Receipt) -> None:
    """Give a directory that was missing to whom it most likely belonged, without giving anybody new rights.

    The file's owner gets it where he could have made it himself, else the owner of the directory above, who can replace
    it anyhow. Only when it is the very one that was made: the owner above may have swapped it meanwhile for another's.
    """
    status = os.fstat(made)
    with os.scandir(made) as entries:
        is_new = status.st_uid == os.geteuid() and not status.st_mode & 0o077 and next(entries, None) is None
    if not is_new:
        return
    identity, inherited = receipt.identity, status.st_mode & stat.S_ISGID
    own = above.st_uid == identity.uid or above.st_mode & stat.S_IWOTH
    uid, gid = (identity.uid, identity.gid) if own else (above.st_uid, above.st_gid)
    try:
        os.fchown(made, uid, status.st_gid if inherited else gid)
    except OSError as error:
        if error.errno not in _NOT_OURS_TO_GIVE:  # else the directory stays ours
            raise
    os.fchmod(made, _DIRECTORY_MODE | inherited)


def _said(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _give_back(fd: int, receipt: Receipt) -> str:
    """Restore owner, mode and mtime; return what could not be. Owner before mode: chown clears bits of the mode."""
    identity = receipt.identity
    said = ""
    try:
        os.fchown(fd, identity.uid, identity.gid)
    except OSError as error:
        if error.errno not in _NOT_OURS_TO_GIVE:
            raise
        said = f"the owner {identity.uid}:{identity.gid} could not be restored"
    os.fchmod(fd, stat.S_IMODE(identity.mode) & 0o777)
    os.utime(fd, ns=(identity.mtime_ns, identity.mtime_ns))
    return said


def _present(directory: int, name: str, sha256: str) -> RestoreState | None:
    """Say what already has the name: the same bytes, other ones, or nothing (None)."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return RestoreState.EXISTS
    fd = os.open(name, OPEN_FILE, dir_fd=directory)
    try:
        return RestoreState.PRESENT if hash_open(fd) == sha256 else RestoreState.EXISTS
    finally:
        os.close(fd)


def _ended(receipt: Receipt, state: RestoreState, detail: str) -> Restored:
    return Restored(receipt.path, receipt.data_type, state, receipt.identity.size, detail)
