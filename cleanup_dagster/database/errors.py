"""What goes wrong between us and the database. Each message is one sentence saying what to do, without a password."""

#: What brings a configured database to this version, in every message that asks for it.
UPGRADE = "cleanup-operations db upgrade"


class DatabaseUnavailable(Exception):  # noqa: N818 - what the caller reads in a log line, not what it is in Python
    """The database cannot be reached, opened or used as the configured user. Nothing may be deleted then."""


class DatabaseNotReady(DatabaseUnavailable):
    """Nothing answers there yet, or the server is starting: it may be over in a moment."""


class SchemaMismatch(Exception):  # noqa: N818 - as above
    """The database's tables are absent, older, newer or incomplete for this version of the package."""
