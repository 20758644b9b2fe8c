"""Putting one file back from its backup: to its original path or nowhere, verified before anything is written.

The path is walked again from an open root, one component per open, so a manifest that was tampered with cannot lead
out of it. The file appears whole or not at all and never replaces anything. It gets back owner, mode and mtime where
that is permitted, but no setuid, no setgid and no capability: a backup must not be a way to make a root shell.

Where the filesystem has no files without a name (some network ones), the file is written in the root's quarantine:
there nobody can swap it, no scan takes it for garbage, and `sweep` finds what a restore that died has left.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import stat

from cleanup_dagster.backups.files import FileBackups, write_blocks
from cleanup_dagster.filesystem.identity import OPEN_DIRECTORY, OPEN_FILE, hash_open
from cleanup_dagster.filesystem.names import split, to_os
from cleanup_dagster.filesystem.quarantine import Quarantine, left_quarantines, open_quarantine, reopen_quarantine
from cleanup_dagster.filesystem.syscalls import mount_id, rename_noreplace
from cleanup_dagster.retention.models import Receipt, Restored, RestoreState

_NO_NAME = getattr(os, "O_TMPFILE", None)  # Linux only
#: What a filesystem, or a kernel, says that cannot make a file without a name.
_NAMES_NEEDED = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS})
#: What changing an owner says when we are not root, or in a container that does not know that user.
_NOT_OURS_TO_GIVE = frozenset({errno.EPERM, errno.EINVAL})
_DIRECTORY_MODE = 0o755
_UNFINISHED = ".restore-"  # no run id begins with a dot, so no slot of a run is called so


class Restorer:
    """Restores into one open root. With `dry_run` it verifies and looks, and writes nothing."""

    def __init__(self, root_fd: int, store: FileBackups, *, dry_run: bool) -> None:
        self._root = root_fd
        self._mount = mount_id(root_fd)
        self._store = store
        self._dry_run = dry_run
        self._held = contextlib.ExitStack()
        self._quarantine: Quarantine | None = None

    def close(self) -> None:
        """Remove the quarantine again, if one was needed."""
        self._held.close()

    def restore(self, receipt: Receipt) -> Restored:
        """Put one file back. Everything that prevents it comes back as the state and detail of the result."""
        if not receipt.backup:
            return _ended(receipt, RestoreState.NO_BACKUP, "the run was told to skip backups")
        digest = hashlib.sha256()
        try:
            for block in self._store.blocks(receipt):
                digest.update(block)
        except FileNotFoundError:
            return _ended(receipt, RestoreState.MISSING, f"its backup {receipt.backup} is not there")
        except (OSError, ValueError) as error:
            said = _said(error)
            return _ended(receipt, RestoreState.DAMAGED, f"its backup {receipt.backup}: {said}")
        if digest.hexdigest() != receipt.sha256:
            return _ended(receipt, RestoreState.DAMAGED, f"its backup {receipt.backup} has other bytes by now")
        try:
            return self._put_back(receipt)
        except (OSError, ValueError) as error:  # a ValueError is a name that no file can have
            return _ended(receipt, RestoreState.FAILED, _said(error))

    def _put_back(self, receipt: Receipt) -> Restored:
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
            return self._write(receipt, directory, to_os(name))
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
        os.mkdir(name, 0o700, dir_fd=fd)
        made = os.open(name, OPEN_DIRECTORY, dir_fd=fd)
        try:
            _give_directory(made, os.fstat(fd), receipt)
            os.fsync(fd)
        except OSError:
            os.close(made)
            raise
        return made

    def _write(self, receipt: Receipt, directory: int, name: str) -> Restored:
        fd, quarantine, temporary = self._open_new(directory)
        try:
            if write_blocks(self._store.blocks(receipt), fd) != receipt.sha256:
                raise OSError("its backup changed while it was read")
            owner = _give_back(fd, receipt)
            os.fsync(fd)
            if quarantine is None:
                os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=directory, follow_symlinks=True)
            else:
                rename_noreplace(temporary, name, source_dir=quarantine.fd, destination_dir=directory)
            os.fsync(directory)
        except FileExistsError:
            return _ended(receipt, RestoreState.EXISTS, "a newer file has its name")
        finally:
            os.close(fd)
            if quarantine is not None:
                with contextlib.suppress(FileNotFoundError):
                    quarantine.remove(temporary)
        return _ended(receipt, RestoreState.RESTORED, owner)

    def _open_new(self, directory: int) -> tuple[int, Quarantine | None, str]:
        """Open a new file, without a name where the filesystem can do that, else in the quarantine."""
        if _NO_NAME is not None:
            try:
                return os.open(".", _NO_NAME | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory), None, ""
            except OSError as error:
                if error.errno not in _NAMES_NEEDED:
                    raise
        if self._quarantine is None:
            self._quarantine = self._held.enter_context(open_quarantine(self._root))
        temporary = f"{_UNFINISHED}{secrets.token_hex(8)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(temporary, flags, 0o600, dir_fd=self._quarantine.fd), self._quarantine, temporary


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
