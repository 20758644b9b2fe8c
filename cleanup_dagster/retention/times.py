"""Reading the moments that files write about themselves.

The rule behind all of it: a time that cannot be trusted must never make a file look older than it is.
"""

import math
import re
from datetime import date, datetime, time, timedelta, timezone, tzinfo

import msgspec

from cleanup_dagster.retention.models import NS_PER_DAY, NS_PER_SECOND

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
#: Nothing we clean was written before this; an earlier time is a default or a mistake (a zero, a bad unit).
EARLIEST_NS = 946_684_800 * NS_PER_SECOND
#: From here on a number must be milliseconds: as seconds it is the year 5138, as milliseconds March 1973.
FIRST_MILLISECONDS = 100_000_000_000

_EPOCH_TEXT = re.compile(r"\d{9,}(\.\d+)?", re.ASCII)


def to_ns(moment: datetime) -> int:
    """Return an aware datetime as nanoseconds since the epoch, exactly (a float would lose the microseconds)."""
    since = moment - EPOCH
    return since.days * NS_PER_DAY + since.seconds * NS_PER_SECOND + since.microseconds * 1_000


def from_ns(moment_ns: int) -> datetime:
    """Return the UTC datetime of `moment_ns`, cut to microseconds."""
    return EPOCH + timedelta(microseconds=moment_ns // 1_000)


def read_moment(value: object, naive_zone: tzinfo | None) -> int | None:
    """Return the moment `value` names, or None when it names none.

    Understood are ISO 8601 with or without zone and epoch seconds or milliseconds, as numbers or as text. A naive
    time belongs to `naive_zone`, or to the host's zone when that is None: platforms write their own local time. A date
    alone names its last instant, since nothing says that what it dates is older.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return _from_epoch(value)
    if isinstance(value, str):
        text = value.strip()
        return _from_epoch(float(text)) if _EPOCH_TEXT.fullmatch(text) else _from_iso(text, naive_zone)
    return None


def _from_epoch(value: float) -> int | None:
    per_second = 1_000 if value >= FIRST_MILLISECONDS else 1
    if isinstance(value, int):
        return value * (NS_PER_SECOND // per_second)
    microseconds = value * (1_000_000 // per_second)
    return round(microseconds) * 1_000 if math.isfinite(microseconds) else None


def _from_iso(text: str, naive_zone: tzinfo | None) -> int | None:
    moment = _parse_iso(text)
    if moment is None:
        return None
    try:
        if moment.tzinfo is not None:
            return to_ns(moment)
        # An hour that the clocks repeat names two instants; the later one makes the file younger.
        return max(_localised(moment.replace(fold=fold), naive_zone) for fold in (0, 1))
    except (OverflowError, OSError, ValueError):  # years that the platform's zone rules cannot reach
        return None


def _localised(naive: datetime, zone: tzinfo | None) -> int:
    return to_ns(naive.astimezone(timezone.utc) if zone is None else naive.replace(tzinfo=zone))


def _parse_iso(text: str) -> datetime | None:
    try:
        return msgspec.convert(text, datetime)  # RFC 3339, on Python 3.10 too, whose fromisoformat knows no "Z"
    except ValueError:
        pass
    try:
        return datetime.combine(date.fromisoformat(text), time.max)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
