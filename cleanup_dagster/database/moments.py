"""Moments as the databases hand them out, and as nanoseconds."""

from datetime import datetime, timezone

from cleanup_dagster.retention.times import from_ns, read_moment, to_ns


def stored_moment(value: object) -> datetime:
    """Return what a column of moments held as aware UTC: a datetime, or the text and numbers people write into SQLite.

    Without a zone it is UTC. Raises ValueError for what is no moment.
    """
    if isinstance(value, datetime):
        # A table that the platform's first script made has `timestamp` columns without zone.
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)
    moment_ns = read_moment(value, timezone.utc)
    if moment_ns is None:
        raise ValueError(f"{value!r} in the database is no moment; write it as 2026-01-31 12:00:00 (UTC)")
    return from_ns(moment_ns)


def readable_ns(value: object) -> int | None:
    """Return a raw column value in nanoseconds; None when it is NULL or no moment at all."""
    try:
        return None if value is None else to_ns(stored_moment(value))
    except (ValueError, OverflowError):
        return None


def moment_or_none(moment_ns: int | None) -> datetime | None:
    """Return the datetime of `moment_ns`, or None for None."""
    return None if moment_ns is None else from_ns(moment_ns)


def ns_or_none(moment: datetime | None) -> int | None:
    """Return the nanoseconds of `moment`, or None for None."""
    return None if moment is None else to_ns(moment)
