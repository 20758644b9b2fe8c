"""What is over and goes at the end of a live run: backups, plans, manifests and logs, each by its own retention."""

import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from cleanup_dagster.backups.files import LOGS, BackupError, open_file_backups
from cleanup_dagster.backups.manifest import ManifestError, ManifestRef, read_header, read_manifest, verify_manifest
from cleanup_dagster.backups.pruning import prune_copies
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.run_targets import KeptBackups, mark_pruned, unpruned_backups
from cleanup_dagster.filesystem.private import UnsafeDirectoryError, private_directory
from cleanup_dagster.handles import Pruned
from cleanup_dagster.installation import Installation
from cleanup_dagster.inventory import kept_backups
from cleanup_dagster.retention.models import NS_PER_DAY, NS_PER_SECOND, Receipt, Tally
from cleanup_dagster.retention.times import from_ns


def prune_all(installation: Installation, run_ns: int) -> Pruned:
    """Remove everything whose time was over at `run_ns`, when the run began. One part that fails lets the others go on.

    A clock that jumps ahead in mid-run then takes nothing, least of all the copies that this run has just made.

    Raises DatabaseUnavailable when it cannot be known what is over.
    """
    now_ns = min(run_ns, installation.clock())
    over = kept_backups(installation, before_ns=now_ns - installation.settings.backup.retention_days * NS_PER_DAY)
    removed, problems = Tally(), list[str]()
    for backups in over:
        try:
            gone = _prune_backups(installation, backups, now_ns)
            removed = removed.plus(gone.files, gone.bytes)
        except (BackupError, ManifestError, OSError, UnsafeDirectoryError) as error:
            problems.append(f"the backups of run {backups.run_id} in {backups.directory} were not pruned: {error}")
    problems += _prune_files(installation, now_ns)
    return Pruned(removed, tuple(problems))


def _prune_backups(installation: Installation, backups: KeptBackups, now_ns: int) -> Tally:
    directory = Path(backups.directory)
    if not directory.is_dir():
        raise BackupError("the directory is not there; mount it again, or put it back")
    receipts = Path(backups.manifest)
    verify_manifest(ManifestRef(backups.manifest, backups.sha256, backups.rows))
    written = read_header(receipts).backup_directory
    if written != backups.directory:  # whoever can write the database must not name a directory to remove from
        raise ManifestError(f"the receipts tell of copies in {written or 'no directory'}")
    with open_file_backups(directory, backups.run_id) as store:
        gone = prune_copies(read_manifest(receipts, Receipt), store, backups.finished_ns)
        store.remove_replica(backups.target)
    with installation.database.begin() as conn:
        mark_pruned(conn, backups.run_id, backups.target, now_ns)
    return gone


def _prune_files(installation: Installation, now_ns: int) -> Iterator[str]:
    settings, state = installation.settings, installation.state
    manifests_before_ns = now_ns - settings.manifest_retention_days * NS_PER_DAY
    try:
        for directory in state.runs_with("plans", now_ns - settings.plan_retention_hours * 3_600 * NS_PER_SECOND):
            state.remove(directory)
        with reading(installation.database) as conn:  # a copy without its receipts could neither be restored nor pruned
            needed = {backups.run_id for backups in unpruned_backups(conn, from_ns(now_ns))}
        for directory in state.runs_with("manifests", manifests_before_ns):
            if directory.name not in needed:
                state.remove(directory)
        for place in settings.backup_directories:
            _prune_logs(place, manifests_before_ns)
    except (OSError, UnsafeDirectoryError) as error:
        yield f"old plans, manifests or logs were not pruned: {error}"


def _prune_logs(directory: Path, before_ns: int) -> None:
    if not any(directory.glob(LOGS)):
        return
    # Somebody may have made the directory, or a link to another, while there were no backups: only ours is pruned.
    with private_directory(directory, "backup directory") as fd, os.scandir(fd) as entries:
        for log in [entry for entry in entries if fnmatch(entry.name, LOGS)]:
            status = log.stat(follow_symlinks=False)
            if status.st_mtime_ns < before_ns and status.st_uid == os.geteuid():
                os.unlink(log.name, dir_fd=fd)
