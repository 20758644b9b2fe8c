"""Holds in the database: what people and restores promised to keep."""

from datetime import datetime, timezone
from typing import cast

from msgspec import Struct
from sqlalchemy import Connection, column, delete, insert, select, table
from sqlalchemy.types import NullType

from cleanup_dagster.database.moments import moment_or_none, readable_ns
from cleanup_dagster.database.tables import cleanup_holds, cleanup_policies
from cleanup_dagster.retention.defaults import DATA_TYPES
from cleanup_dagster.retention.holds import normalise_pattern
from cleanup_dagster.retention.models import Hold
from cleanup_dagster.retention.times import from_ns, to_ns

# Without types: a hold whose `until` nobody can read must still be loaded.
_RAW = table(
    "cleanup_holds",
    column("id", NullType()),
    column("pattern", NullType()),
    column("data_type", NullType()),
    column("pipeline", NullType()),
    column("reason", NullType()),
    column("until", NullType()),
    column("placed_by", NullType()),
    column("placed_at", NullType()),
)


_LAST_NS = to_ns(datetime.max.replace(tzinfo=timezone.utc))


class HoldRow(Struct, frozen=True):
    """One hold for people. `placed_ns` is None where the database has no moment that can be read."""

    hold: Hold
    placed_by: str
    placed_ns: int | None


class InvalidHold(ValueError):  # noqa: N818 - reads as what it says
    """A hold that would protect nothing."""


def load_holds(conn: Connection) -> list[Hold]:
    """Return every hold, expired ones too: the matcher knows the time.

    An `until` that cannot be read means for ever, and an empty data type or pipeline means any: in doubt, keep. For the
    same reason a pattern that is no text, which SQLite lets people write, holds everything.
    """
    return [listed.hold for listed in list_holds(conn)]


def list_holds(conn: Connection) -> list[HoldRow]:
    """Return every hold with who placed it, oldest first; otherwise as `load_holds` does."""
    return [
        HoldRow(
            Hold(
                id=row.id,
                pattern=row.pattern if isinstance(row.pattern, str) else "**",
                reason=str(row.reason),
                data_type=_text_or_none(row.data_type),
                pipeline=_text_or_none(row.pipeline),
                until_ns=readable_ns(row.until),
            ),
            str(row.placed_by or ""),
            readable_ns(row.placed_at),
        )
        for row in conn.execute(select(_RAW).order_by(_RAW.c.id))
    ]


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def add_hold(
    conn: Connection,
    *,
    pattern: str,
    reason: str,
    placed_by: str,
    now_ns: int,
    data_type: str | None = None,
    pipeline: str | None = None,
    until_ns: int | None = None,
) -> int:
    """Place a hold and return its id. Without `until_ns` it lasts until somebody removes it.

    Raises InvalidHold for one that could never protect anything.
    """
    try:
        pattern = normalise_pattern(pattern)
    except ValueError as error:
        raise InvalidHold(str(error)) from None
    if not reason.strip():
        raise InvalidHold("the reason is empty; say why, for whoever wonders later why something is kept")
    if until_ns is not None and until_ns > _LAST_NS:
        raise InvalidHold("the hold would end after the year 9999; leave its end out, and it lasts until it is removed")
    if until_ns is not None and until_ns <= now_ns:
        raise InvalidHold(f"the hold would end at {from_ns(until_ns)}, which has passed; name a later moment")
    if pipeline == "":
        raise InvalidHold("the pipeline is empty; name one, or leave it out, and every pipeline is held")
    if data_type is not None:
        require_known(conn, data_type)
    result = conn.execute(
        insert(cleanup_holds).values(
            pattern=pattern,
            data_type=data_type,
            pipeline=pipeline,
            reason=reason,
            placed_by=placed_by,
            placed_at=from_ns(now_ns),
            until=moment_or_none(until_ns),
        )
    )
    (hold_id,) = cast("tuple[int]", result.inserted_primary_key)
    return hold_id


def remove_hold(conn: Connection, hold_id: int) -> bool:
    """Remove a hold; False when there was none of that id."""
    return conn.execute(delete(cleanup_holds).where(cleanup_holds.c.id == hold_id)).rowcount == 1


def require_known(conn: Connection, *data_types: str) -> None:
    """Raise InvalidHold for a data type that has no policy and is no default."""
    known = {*DATA_TYPES, *conn.execute(select(cleanup_policies.c.data_type)).scalars()}
    for data_type in (name for name in data_types if name not in known):
        raise InvalidHold(f"there is no data type {data_type!r}; use one of {', '.join(sorted(known))}")
