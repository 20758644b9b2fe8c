"""The policies: read raw and judged, because people edit this table with plain SQL; changed only with a record."""

import hashlib
from collections.abc import Collection
from datetime import datetime, timezone
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Row, column, insert, select, table, update
from sqlalchemy.types import NullType

from cleanup_dagster.database.moments import readable_ns
from cleanup_dagster.database.tables import cleanup_policies, cleanup_policy_changes, insert_new
from cleanup_dagster.retention.defaults import DATA_TYPES, DEFAULT_POLICIES, RETENTION_DAYS_MAX, RETENTION_DAYS_MIN
from cleanup_dagster.retention.models import Policy, PolicyProblem

#: What the column holds on Postgres, and far more than anyone keeps.
KEEP_LAST_MAX = 2**31 - 1

_DAYS = f"set a whole number of days from {RETENTION_DAYS_MIN} to {RETENTION_DAYS_MAX}"
_SWITCH = "set true or false (in SQLite 1 or 0)"
_KEEP = f"set a whole number from 0 to {KEEP_LAST_MAX}"

# Without types: SQLAlchemy's Boolean raises on an odd value, where a message about that one row is needed.
_RAW = table(
    "cleanup_policies",
    column("data_type", NullType()),
    column("retention_days", NullType()),
    column("enabled", NullType()),
    column("keep_last", NullType()),
    column("description", NullType()),
    column("created_at", NullType()),
    column("updated_at", NullType()),
)


class UnknownDataType(ValueError):  # noqa: N818 - reads as what it says
    """There is no policy row of that data type."""


class InvalidPolicy(ValueError):  # noqa: N818 - reads as what it says
    """A change that would leave a policy that cannot be obeyed."""


class PolicyChanged(ValueError):  # noqa: N818 - reads as what it says
    """Somebody else changed the policy meanwhile; nothing was written. `row` is what it is now."""

    def __init__(self, row: "PolicyRow") -> None:
        said = row.problem or f"it is kept for {row.retention_days} days, {'on' if row.enabled else 'off'}"
        newest = f", and the newest {row.keep_last} stay" if row.keep_last else ""
        super().__init__(f"{row.data_type} was changed by somebody else meanwhile; now {said}{newest}")
        self.row = row


class PolicyRow(Struct, frozen=True):
    """One policy for people: a value that cannot be obeyed is None here, and `problem` says what it is.

    The moments are None where a person wrote something that is none. `version` is another one when what decides is.
    """

    data_type: str
    retention_days: int | None
    enabled: bool | None
    keep_last: int | None
    description: str
    created_ns: int | None
    updated_ns: int | None
    version: str
    problem: str | None = None


def load_policies(conn: Connection) -> dict[str, Policy | PolicyProblem]:
    """Return what each row says, by data type. A row that cannot be obeyed, enabled or not, is a PolicyProblem."""
    return {row.data_type: _policy(row) for row in list_policies(conn)}


def list_policies(conn: Connection) -> list[PolicyRow]:
    """Return every row, in the defaults' order, then other data types by name."""
    rows = [_view(row) for row in conn.execute(select(_RAW).where(_RAW.c.data_type.is_not(None)))]
    order = {name: number for number, name in enumerate(DATA_TYPES)}
    return sorted(rows, key=lambda row: (order.get(row.data_type, len(order)), row.data_type))


def change_policy(
    conn: Connection,
    data_type: str,
    *,
    retention_days: int | None = None,
    enabled: bool | None = None,
    keep_last: int | None = None,
    changed_by: str,
    versions: Collection[str] | None = None,
) -> PolicyRow:
    """Change what is given (None leaves a value), record old and new, and return the row as it is now.

    With `versions` a row that is at none of them is left alone. Raises UnknownDataType, PolicyChanged for such a row,
    or InvalidPolicy for a value out of bounds, for nothing to change, and for enabling a row whose other values cannot
    be obeyed. Disabling always works.
    """
    given = {"retention_days": retention_days, "enabled": enabled, "keep_last": keep_last}
    wanted = {name: value for name, value in given.items() if value is not None}
    _require_valid(wanted)
    row = conn.execute(select(_RAW).where(_RAW.c.data_type == data_type).with_for_update()).one_or_none()
    if row is None:
        raise UnknownDataType(_unknown(conn, data_type))
    if versions is not None and _view(row).version not in versions:
        raise PolicyChanged(_view(row))
    old = _values(row)
    new = old | wanted
    problem = _problem(new)
    if enabled and problem is not None:
        raise InvalidPolicy(f"{data_type} cannot be enabled: {problem}")
    if _differ(old, new):
        _write(conn, data_type, wanted)
        _record(conn, data_type, changed_by, "change", old, new)
    return _view(conn.execute(select(_RAW).where(_RAW.c.data_type == data_type)).one())


def reset_policies(conn: Connection, changed_by: str) -> list[str]:
    """Bring every default policy back, missing rows included, and return the data types that changed.

    Rows of other data types stay. Every change is recorded.
    """
    return [policy.data_type for policy in DEFAULT_POLICIES if _reset(conn, policy, changed_by)]


def _reset(conn: Connection, policy: Policy, changed_by: str) -> bool:
    new: dict[str, Any] = {
        "retention_days": policy.retention_days,
        "enabled": policy.enabled,
        "keep_last": policy.keep_last,
    }
    added = conn.execute(
        insert_new(conn, cleanup_policies).values(
            data_type=policy.data_type, description=policy.description, created_at=_now(), updated_at=_now(), **new
        )
    )
    if added.rowcount == 1:
        _record(conn, policy.data_type, changed_by, "reset", None, new)
        return True
    row = conn.execute(select(_RAW).where(_RAW.c.data_type == policy.data_type).with_for_update()).one()
    old = _values(row)
    if not _differ(old, new):
        return False
    _write(conn, policy.data_type, new)
    _record(conn, policy.data_type, changed_by, "reset", old, new)
    return True


def _policy(row: PolicyRow) -> Policy | PolicyProblem:
    if row.problem is not None or row.retention_days is None or row.enabled is None or row.keep_last is None:
        return PolicyProblem(row.data_type, row.problem or "")
    return Policy(row.data_type, row.retention_days, row.enabled, row.keep_last, row.description)


def _view(row: Row[Any]) -> PolicyRow:
    values = _values(row)
    return PolicyRow(
        data_type=str(row.data_type),
        retention_days=row.retention_days if _days_problem(row.retention_days) is None else None,
        enabled=values["enabled"] if isinstance(values["enabled"], bool) else None,
        keep_last=row.keep_last if _keep_problem(row.keep_last) is None else None,
        description="" if row.description is None else str(row.description),
        created_ns=readable_ns(row.created_at),
        updated_ns=readable_ns(row.updated_at),
        version=hashlib.sha256(_json(values).encode()).hexdigest()[:16],
        problem=_problem(values),
    )


def _values(row: Row[Any]) -> dict[str, Any]:
    """Return what decides, with SQLite's 1 and 0 for a switch as what they mean, and anything else as it is."""
    switch = bool(row.enabled) if type(row.enabled) is int and row.enabled in {0, 1} else row.enabled
    return {"retention_days": row.retention_days, "enabled": switch, "keep_last": row.keep_last}


def _problem(values: dict[str, Any]) -> str | None:
    return (
        _days_problem(values["retention_days"])
        or _switch_problem(values["enabled"])
        or _keep_problem(values["keep_last"])
    )


def _days_problem(value: object) -> str | None:
    fits = type(value) is int and RETENTION_DAYS_MIN <= value <= RETENTION_DAYS_MAX
    return None if fits else f"retention_days is {_shown(value)}; {_DAYS}"


def _switch_problem(value: object) -> str | None:
    return None if isinstance(value, bool) else f"enabled is {_shown(value)}; {_SWITCH}"


def _keep_problem(value: object) -> str | None:
    fits = type(value) is int and 0 <= value <= KEEP_LAST_MAX
    return None if fits else f"keep_last is {_shown(value)}; {_KEEP}"


def _shown(value: object) -> str:
    return "NULL" if value is None else repr(value)[:80]


def _require_valid(wanted: dict[str, Any]) -> None:
    if not wanted:
        raise InvalidPolicy("nothing to change: give retention_days, enabled or keep_last")
    checks = {"retention_days": _days_problem, "enabled": _switch_problem, "keep_last": _keep_problem}
    for name, value in wanted.items():
        problem = checks[name](value)
        if problem is not None:
            raise InvalidPolicy(problem)


def _unknown(conn: Connection, data_type: str) -> str:
    if data_type in DATA_TYPES:
        return f"the policy of {data_type} was deleted from the database; `policies reset` brings it back"
    known = ", ".join(row.data_type for row in list_policies(conn))
    return f"there is no policy for the data type {data_type!r}; there are: {known}"


def _differ(old: dict[str, Any], new: dict[str, Any]) -> bool:
    # By type as well: 30.0 == 30 and True == 1, but only one of each can be obeyed.
    return any(type(old[name]) is not type(new[name]) or old[name] != new[name] for name in new)


def _write(conn: Connection, data_type: str, values: dict[str, Any]) -> None:
    statement = update(cleanup_policies).where(cleanup_policies.c.data_type == data_type)
    conn.execute(statement.values(updated_at=_now(), **values))


def _record(
    conn: Connection, data_type: str, changed_by: str, action: str, old: dict[str, Any] | None, new: dict[str, Any]
) -> None:
    conn.execute(
        insert(cleanup_policy_changes).values(
            data_type=data_type,
            changed_by=changed_by,
            changed_at=_now(),
            action=action,
            old=None if old is None else _json(old),
            new=_json(new),
        )
    )


def _json(values: dict[str, Any]) -> str:
    return msgspec.json.encode(values).decode()


def _now() -> datetime:
    return datetime.now(timezone.utc)
