"""The store of format `archive`: one `.tar.zst` per target, run and worker, in the backup directory of plain copies."""

import os
from collections.abc import Iterable

from cleanup_dagster.backups.archive import ArchiveWriter
from cleanup_dagster.backups.files import BackupError, FileBackups
from cleanup_dagster.backups.manifest import WHOLE, Part
from cleanup_dagster.backups.staged import Staged
from cleanup_dagster.filesystem.names import to_os
from cleanup_dagster.retention.models import Identity

#: More archives than a target's run can have: the settings allow as many worker processes.
_PARTS_MAX = 64


def archive_name(run_id: str, target: str, part: Part = WHOLE) -> str:
    """Return the name of the archive of a run's target, or of a part of it."""
    return f"{target}.{run_id}.tar.zst" if part == WHOLE else f"{target}.{run_id}.{part.number}.tar.zst"


def remove_archives(directory: FileBackups, run_id: str, target: str) -> None:
    """Remove all archives of a run's target, those that no receipt names yet, too. Raises OSError."""
    directory.remove(archive_name(run_id, target))
    for number in range(_PARTS_MAX):
        directory.remove(archive_name(run_id, target, Part(number, _PARTS_MAX)))


class ArchiveBackups:
    """Packs the files of one target into one archive. Its copies have their place from the start."""

    #: About 8 MB of ordinary small files between two commits.
    batch_files = 8_192

    def __init__(self, directory: FileBackups, run_id: str, target: str, part: Part = WHOLE) -> None:
        """Create the archive. Raises BackupError."""
        self._name = archive_name(run_id, target, part)
        self._where = directory.path / self._name
        try:
            self._fd = directory.create(self._name)
        except OSError as error:
            raise BackupError(f"no archive can be made at {self._where}: {error.strerror}") from None
        self._writer = ArchiveWriter(self._fd)

    def stage(self, source: int, identity: Identity, path: str) -> Staged:
        """Pack an open file under its path (text form). Raises BackupError or SourceError."""
        try:
            return self._writer.add(to_os(path), identity, source)
        except OSError as error:
            raise BackupError(f"the archive {self._where} cannot be written: {error.strerror or error}") from None

    def discard(self, staged: Staged) -> None:
        """Forget the file packed last, because it changed while it was read."""
        self._writer.take_back(staged)

    def make_durable(self, batch: Iterable[Staged]) -> None:  # noqa: ARG002 whatever was packed is in one file
        """Bring the archive to the device, read it back from there and compare. Raises BackupError."""
        try:
            self._writer.commit()
        except OSError as error:
            raise BackupError(f"the archive {self._where} cannot be made durable: {error.strerror or error}") from None

    def choose_place(self, path: str, taken: set[str]) -> str:  # noqa: ARG002 all members share the archive's place
        """Return the archive's name."""
        return self._name

    def publish(self, places: Iterable[tuple[Staged, str]]) -> None:
        """Do nothing: the archive has had its name since it was made."""

    def finish(self) -> None:
        """End the archive as tar wants it ended. Raises BackupError."""
        try:
            self._writer.finish()
        except OSError as error:
            raise BackupError(f"the archive {self._where} cannot be finished: {error.strerror or error}") from None

    def close(self) -> None:
        """Close the archive, as it is."""
        os.close(self._fd)
