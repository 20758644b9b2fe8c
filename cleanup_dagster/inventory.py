"""What backups there are, until when, and whether every byte of them is what was written."""

import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct, structs

from cleanup_dagster.backups.files import BackupError, open_file_backups, replica_of
from cleanup_dagster.backups.manifest import ManifestError, ManifestRef, read_manifest, verify_manifest
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.run_targets import KeptBackups, unpruned_backups
from cleanup_dagster.filesystem.names import to_text
from cleanup_dagster.filesystem.private import UnsafeDirectoryError
from cleanup_dagster.installation import Installation, Progress
from cleanup_dagster.retention.defaults import together
from cleanup_dagster.retention.models import NS_PER_DAY, NS_PER_SECOND, Receipt, Tally
from cleanup_dagster.retention.times import from_ns
from cleanup_dagster.run_history.store import is_runs_root


class BackupSet(Struct, frozen=True):
    """The backups of one target of one run, and when they expire."""

    run_id: str
    target: str
    root: str
    directory: str
    files: int
    bytes: int
    made_ns: int
    expires_ns: int


def things_in(sets: Iterable[BackupSet]) -> str:
    """Return what some backups are of: `files`, `runs`, or `files and runs`."""
    return together("runs" if is_runs_root(one.root) else "files" for one in sets)


class BackupFile(Struct, frozen=True):
    """One file that a run backed up: where it was, and where its copy lies. Paths are in text form."""

    target: str
    path: str
    data_type: str
    bytes: int
    sha256: str
    copy: str


class Damage(Struct, frozen=True):
    """One copy that cannot be relied on, and why."""

    run_id: str
    path: str
    backup: str
    problem: str


class Verification(Struct, frozen=True):
    """What re-reading every byte of the backups found."""

    sound: Tally
    damaged: tuple[Damage, ...]


def kept_backups(
    installation: Installation, of_run: str | None = None, before_ns: int | None = None
) -> list[KeptBackups]:
    """Return the backups of this host that are not pruned yet, of runs before a moment, oldest first.

    They are those of this state directory, and of one that was lost when the replicas beside the copies are there.
    Raises DatabaseUnavailable.
    """
    with reading(installation.database) as conn:
        kept = unpruned_backups(conn, from_ns(before_ns or installation.clock() + NS_PER_SECOND))
    here = (_found_here(installation, backups) for backups in kept if of_run in {None, backups.run_id})
    return [backups for backups in here if backups is not None]


def _found_here(installation: Installation, kept: KeptBackups) -> KeptBackups | None:
    """Return backups with their receipts, from the state directory or beside the copies.

    The database is not believed where they are: whoever can write it, and a file of his own, would name copies to
    remove.
    """
    ours = kept.state_id == installation.state.id
    try:
        receipts = installation.state.kept_receipts(kept.run_id, kept.target)
    except ValueError:  # no run and no target of ours is called so
        return None
    if not ours and kept.host != socket.gethostname():
        return None
    replica = replica_of(Path(kept.directory), kept.run_id, kept.target)
    places = [receipts, replica] if ours else [replica]
    if kept.manifest == str(replica):  # recovery found the others damaged
        places.reverse()
    there = [place for place in places if place.is_file()]
    return structs.replace(kept, manifest=str((there or places)[0])) if there or ours else None


def list_backups(installation: Installation, of_run: str | None = None) -> list[BackupSet]:
    """Return what backups there are and until when. Raises DatabaseUnavailable."""
    retention_ns = installation.settings.backup.retention_days * NS_PER_DAY
    return [
        BackupSet(
            kept.run_id,
            kept.target,
            kept.root,
            kept.directory,
            kept.files,
            kept.bytes,
            kept.run_started_ns,
            kept.run_started_ns + retention_ns,
        )
        for kept in kept_backups(installation, of_run)
    ]


def files_of(installation: Installation, of_run: str) -> Iterator[BackupFile]:
    """Yield each file that a run backed up. Raises ManifestError for a manifest that is not the recorded one."""
    for kept in kept_backups(installation, of_run):
        verify_manifest(ManifestRef(kept.manifest, kept.sha256, kept.rows))
        root, directory = to_text(kept.root), to_text(kept.directory)
        for receipt in read_manifest(Path(kept.manifest), Receipt):
            if receipt.backup:
                yield BackupFile(
                    kept.target,
                    f"{root}/{receipt.path}",
                    receipt.data_type,
                    receipt.identity.size,
                    receipt.sha256,
                    f"{directory}/{receipt.backup}",
                )


def verify_backups(installation: Installation, progress: Progress, of_run: str | None = None) -> Verification:
    """Read every byte of the backups again, and name each copy that is missing or not what was written.

    A manifest that is not the recorded one, or a backup directory that cannot be used, is named as damage of its whole
    set. Raises DatabaseUnavailable.
    """
    sound = Tally()
    damaged: list[Damage] = []
    for kept in kept_backups(installation, of_run):
        try:
            for receipt, problem in _examined(kept):
                if problem is None:
                    sound = sound.plus(1, receipt.identity.size)
                else:
                    damaged.append(Damage(kept.run_id, receipt.path, receipt.backup, problem))
                progress(1)
        except (BackupError, ManifestError, OSError, UnsafeDirectoryError) as error:  # the other runs' are still read
            whole = f"none of the {kept.files:,} backups of target {kept.target} can be vouched for: {error}"
            damaged.append(Damage(kept.run_id, kept.root, kept.directory, whole))
    return Verification(sound, tuple(damaged))


def _examined(kept: KeptBackups) -> Iterator[tuple[Receipt, str | None]]:
    verify_manifest(ManifestRef(kept.manifest, kept.sha256, kept.rows))
    if not Path(kept.directory).is_dir():  # opening would make it
        raise BackupError("the backup directory is not there")
    with open_file_backups(Path(kept.directory), kept.run_id) as store:
        for receipt in read_manifest(Path(kept.manifest), Receipt):
            if receipt.backup:
                yield receipt, store.problem(receipt)
