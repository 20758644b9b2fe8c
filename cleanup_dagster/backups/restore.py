"""Putting one file back from its backup: to its original path or nowhere, verified before anything is written.

The path is walked again from an open root, one component per open, so a manifest that was tampered with cannot lead
out of it. The file appears whole or not at all and never replaces anything. It gets back owner, mode and mtime where
that is permitted, but no setuid, no setgid and no capability: a backup must not be a way to make a root shell.
"""

import contextlib
import os
import secrets
import stat

from cleanup_dagster.backups.files import FileBackups, copy_bytes
from cleanup_dagster.filesystem.identity import OPEN_DIRECTORY, OPEN_FILE, hash_open
from cleanup_dagster.filesystem.names import split, to_os
from cleanup_dagster.filesystem.syscalls import mount_id, rename_noreplace
from cleanup_dagster.retention.models import Receipt, Restored, RestoreState

_NO_NAME = getattr(os, "O_TMPFILE", None)  # Linux only
_DIRECTORY_MODE = 0o755


class Restorer:
    """Restores into one open root. With `dry_run` it verifies and looks, and writes nothing."""

    def __init__(self, root_fd: int, store: FileBackups, *, dry_run: bool) -> None:
        self._root = root_fd
        self._mount = mount_id(root_fd)
        self._store = store
        self._dry_run = dry_run

    def restore(self, receipt: Receipt) -> Restored:
        """Put one file back. Everything that prevents it comes back as the state and detail of the result."""
        if not receipt.backup:
            return _ended(receipt, RestoreState.NO_BACKUP, "the run was told to skip backups")
        try:
            copy = self._store.open_copy(receipt.backup)
        except OSError as error:
            return _ended(receipt, RestoreState.MISSING, f"its backup {receipt.backup}: {error.strerror or error}")
        try:
            if hash_open(copy) != receipt.sha256:
                return _ended(receipt, RestoreState.DAMAGED, f"its backup {receipt.backup} has other bytes by now")
            return self._put_back(receipt, copy)
        except OSError as error:
            return _ended(receipt, RestoreState.FAILED, f"{error.strerror or error}")
        finally:
            os.close(copy)

    def _put_back(self, receipt: Receipt, copy: int) -> Restored:
        path, name = split(receipt.path)
        if name in {"", ".", ".."}:
            return _ended(receipt, RestoreState.FAILED, "its path does not lie below the root")
        directory = self._directory(path, receipt)
        if directory is None:  # a dry run, and the directory is to be made
            return _ended(receipt, RestoreState.WOULD_RESTORE, "")
        try:
            present = _present(directory, to_os(name), receipt.sha256)
            if present is not None:
                return _ended(receipt, present, "" if present is RestoreState.PRESENT else "a newer file has its name")
            if self._dry_run:
                return _ended(receipt, RestoreState.WOULD_RESTORE, "")
            return self._write(receipt, copy, directory, to_os(name))
        finally:
            os.close(directory)

    def _directory(self, path: str, receipt: Receipt) -> int | None:
        fd = os.dup(self._root)
        for part in path.split("/") if path else ():
            try:
                below = self._enter(fd, part, receipt)
            finally:
                os.close(fd)
            if below is None:
                return None
            fd = below
        if mount_id(fd) != self._mount:
            os.close(fd)
            raise OSError(f"{path!r} lies on another mount now")
        return fd

    def _enter(self, fd: int, part: str, receipt: Receipt) -> int | None:
        if part in {"", ".", ".."}:
            raise OSError("its path does not lie below the root")
        name = to_os(part)
        try:
            return os.open(name, OPEN_DIRECTORY, dir_fd=fd)
        except FileNotFoundError:
            if self._dry_run:
                return None
        os.mkdir(name, _DIRECTORY_MODE, dir_fd=fd)
        os.fsync(fd)
        made = os.open(name, OPEN_DIRECTORY, dir_fd=fd)
        with contextlib.suppress(PermissionError):  # not root: the directory stays ours
            os.fchown(made, receipt.identity.uid, receipt.identity.gid)
        return made

    def _write(self, receipt: Receipt, copy: int, directory: int, name: str) -> Restored:
        temporary = f".cleanup-r-{secrets.token_hex(8)}"
        fd, unnamed = _open_new(directory, temporary)
        try:
            digest, _ = copy_bytes(copy, fd, receipt.identity.size)
            if digest != receipt.sha256:
                raise OSError("its backup changed while it was read")
            owner = _give_back(fd, receipt)
            os.fsync(fd)
            if unnamed:
                os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=directory, follow_symlinks=True)
            else:
                rename_noreplace(temporary, name, source_dir=directory, destination_dir=directory)
            os.fsync(directory)
        except FileExistsError:
            return _ended(receipt, RestoreState.EXISTS, "a newer file has its name")
        finally:
            os.close(fd)
            if not unnamed:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=directory)
        return _ended(receipt, RestoreState.RESTORED, owner)


def _open_new(directory: int, temporary: str) -> tuple[int, bool]:
    """Open a new file, without a name where the filesystem can do that."""
    if _NO_NAME is not None:
        with contextlib.suppress(OSError):  # some network and overlay filesystems
            return os.open(".", _NO_NAME | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory), True
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(temporary, flags, 0o600, dir_fd=directory), False


def _give_back(fd: int, receipt: Receipt) -> str:
    """Restore owner, mode and mtime; return what could not be. Owner before mode: chown clears bits of the mode."""
    identity = receipt.identity
    said = ""
    try:
        os.fchown(fd, identity.uid, identity.gid)
    except PermissionError:
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
