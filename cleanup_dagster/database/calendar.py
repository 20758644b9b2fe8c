"""Moments that Postgres knows and Python does not: its calendar begins before Christ and ends in the year 294276."""

from datetime import datetime, timezone
from typing import Any

from psycopg2.extensions import PYDATETIME, PYDATETIMETZ, register_type
from psycopg2.extensions import new_type as _new_type  # pyright: ignore[reportUnknownVariableType]  its stub is partial

_LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)
_FAR_AWAY = datetime.max.replace(tzinfo=timezone.utc)


def take_every_year(connection: Any) -> None:
    """Have a connection read a moment beyond Python's calendar as its first or last, as it reads infinity.

    One mistyped year in a hold (12026) would otherwise be an error in every run, and say nothing of where it is.
    """
    for kind in (PYDATETIME, PYDATETIMETZ):
        register_type(_new_type(kind.values, kind.name, _reader(kind)), connection)


def _reader(kind: Any) -> Any:
    def read(value: "str | None", cursor: Any) -> Any:
        try:
            return kind(value, cursor)
        except ValueError:
            return _LONG_AGO if value is not None and value.endswith("BC") else _FAR_AWAY

    return read
