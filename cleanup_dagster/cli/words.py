"""How moments, ages and numbers are written, for people and in JSON."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cleanup_dagster.retention.models import Tally

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _moment(moment_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=moment_ns // 1_000)


def when(moment_ns: int | None, otherwise: str = "never") -> str:
    """Return a moment to the minute, in UTC: `2026-01-31 02:00 UTC`."""
    return otherwise if moment_ns is None else f"{_moment(moment_ns):%Y-%m-%d %H:%M} UTC"


def minute(moment_ns: int | None, otherwise: str = "never") -> str:
    """Return a moment to the minute for a column whose title says UTC."""
    return otherwise if moment_ns is None else f"{_moment(moment_ns):%Y-%m-%d %H:%M}"


def files(number: int, data_types: Iterable[str] = ()) -> str:
    """Return `1 file` or `1,234 files`; `5 runs` when that is what the data types are about."""
    from cleanup_dagster.retention.defaults import counted, things

    return counted(number, things(data_types))


def days(number: int | None) -> str:
    """Return `1 day` or `30 days`."""
    return "" if number is None else f"{number:,} {'day' if number == 1 else 'days'}"


def tally(value: Tally) -> dict[str, int]:
    """Return a number of files and their bytes for JSON."""
    return {"files": value.files, "bytes": value.bytes}


def short(run_id: str) -> str:
    """Return as much of a run id as people type."""
    return run_id[:8]
