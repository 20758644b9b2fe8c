"""Exit codes, and which error ends with which."""

DONE = 0
SOME_FAILED = 1
USAGE = 2
REFUSED = 3
UNUSABLE = 4
INTERRUPTED = 130

#: For `--help` and the documentation.
EXIT_CODES = (
    (DONE, "done"),
    (SOME_FAILED, "some items failed; the rest is done"),
    (USAGE, "the command was not understood, or not confirmed; nothing was changed"),
    (REFUSED, "refused by a guardrail, a lock or another rule that protects"),
    (UNUSABLE, "the database, state directory or configuration cannot be used"),
    (INTERRUPTED, "interrupted, at a safe point"),
)


class CliError(Exception):
    """What ends a command, in words for people, with its exit code."""

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code = code


def code_of(error: BaseException) -> int | None:
    """Return the exit code for an error that a command may end with, or None for a bug."""
    from cleanup_dagster.backups.files import BackupError
    from cleanup_dagster.backups.manifest import ManifestError
    from cleanup_dagster.database.errors import DatabaseUnavailable, SchemaMismatch
    from cleanup_dagster.database.holds import InvalidHold
    from cleanup_dagster.database.policies import InvalidPolicy, UnknownDataType
    from cleanup_dagster.explaining import OutsideError
    from cleanup_dagster.filesystem.private import UnsafeDirectoryError
    from cleanup_dagster.filesystem.tree import RootError
    from cleanup_dagster.installation import RunRefusedError
    from cleanup_dagster.records import RunNotFoundError
    from cleanup_dagster.settings import ConfigError
    from cleanup_dagster.workers import WorkerError

    if isinstance(error, CliError):
        return error.code
    if isinstance(error, (ConfigError, DatabaseUnavailable, SchemaMismatch, UnsafeDirectoryError)):
        return UNUSABLE
    if isinstance(error, (InvalidHold, InvalidPolicy, OutsideError, RunNotFoundError, UnknownDataType)):
        return USAGE
    if isinstance(error, RunRefusedError):
        return REFUSED
    if isinstance(error, (BackupError, ManifestError, RootError, WorkerError, OSError)):
        return SOME_FAILED
    return None
