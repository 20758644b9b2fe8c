"""Targets, the directories that may be cleaned, and the kinds of values that configurations are made of."""

import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from msgspec import structs
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

from cleanup_dagster.collectors.scope import Scope
from cleanup_dagster.config_file import shown
from cleanup_dagster.retention.defaults import RETENTION_DAYS_MAX, RETENTION_DAYS_MIN
from cleanup_dagster.retention.guardrails import GIB, Limits
from cleanup_dagster.retention.holds import slowness
from cleanup_dagster.retention.models import NS_PER_SECOND, OPERATION_DATA_TYPES
from cleanup_dagster.roots import forbidden_root, path_problem

#: What dbt writes for others to load: the next run, the docs, the state of a deferred build.
DBT_LOADED = ("manifest.json", "catalog.json", "run_results.json", "semantic_manifest.json", "partial_parse.msgpack")
#: What others have for themselves in a shared temporary directory: the /tmp of services, sockets of a desktop, and the
#: backups of another user's cleanups.
FOREIGN_TEMP = (
    "systemd-private-*",
    "snap-private-tmp",
    ".X11-unix",
    ".ICE-unix",
    ".XIM-unix",
    ".font-unix",
    "cleanup_backups",
)
_EXCLUDES = {"dbt_logs": DBT_LOADED, "temp_files": FOREIGN_TEMP}
MIB = 1024**2

_SIZE_TEXT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?([kmgtp]i?b|b)")
_DURATION_TEXT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?([smhdw])")
SLUG = re.compile(r"[a-z0-9_]{1,40}")
SLUG_TEXT = "1 to 40 lower-case letters, digits and _"
DAYS = f"a whole number of days from {RETENTION_DAYS_MIN} to {RETENTION_DAYS_MAX}"
_SIZE = "a size: a whole number of bytes, or text such as '10 GiB' or '500 MB'"
TRUTH = "true or false"
_SECONDS_PER = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_BYTES_PER = {"b": 1} | {
    f"{prefix}{i}b": (1024 if i else 1000) ** power for power, prefix in enumerate("kmgtp", 1) for i in ("", "i")
}


def _path(value: object) -> Path:
    if not isinstance(value, (str, Path)):
        raise ValueError(f"{shown(value)} is not an absolute path; write it as text")  # noqa: TRY004  pydantic knows ValueError
    if problem := path_problem(str(value)):
        raise ValueError(f"{str(value)!r} {problem}")
    return Path(value)


def _bytes(value: object) -> object:
    """Return the number that a text such as `1.5 GiB` means; anything else as it is, for the strict check."""
    match = _SIZE_TEXT.fullmatch(value.lower()) if isinstance(value, str) else None
    return int(Fraction(match[1]) * _BYTES_PER[match[2]]) if match else value


def _seconds(value: object) -> object:
    """Return the seconds that a text such as `2h` means; anything else as it is, for the strict check."""
    match = _DURATION_TEXT.fullmatch(value) if isinstance(value, str) else None
    return float(Fraction(match[1]) * _SECONDS_PER[match[2]]) if match else value


def _whole(value: object) -> object:
    """Return the number that a variable's text means; anything else as it is, for the strict check."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) else value


def _globs(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{shown(value)} is not a list of glob patterns; write ['*.log']")  # noqa: TRY004  as above
    items = tuple(cast("list[object]", value))
    for item in items:
        if not isinstance(item, str) or not item.strip():
            raise ValueError(f"{shown(item)} is not a glob pattern; write text such as '*.log'")
        if problem := slowness(item):
            raise ValueError(f"{shown(item)} {problem}")
        parts = item.split("/")
        if item.startswith("/") or ".." in parts:
            raise ValueError(
                f"{item!r} leads out of the root; write a pattern relative to it, without a leading / and .."
            )
        if "" in parts or "." in parts or "\0" in item:
            raise ValueError(f"{item!r} can match no file; write a pattern such as '*.log', 'logs/*' or 'logs/**'")
    return cast("tuple[str, ...]", items)


def whole(default: int, low: int, high: int, what: str = "a whole number") -> Any:
    """Return a field for an integer between two bounds, both allowed."""
    return Field(default=default, ge=low, le=high, description=f"{what} from {low} to {high}")


AbsolutePath = Annotated[Path, BeforeValidator(_path)]
Size = Annotated[int, BeforeValidator(_bytes)]
Duration = Annotated[float, BeforeValidator(_seconds)]
WholeText = Annotated[int, BeforeValidator(_whole)]
Globs = Annotated[tuple[str, ...], BeforeValidator(_globs)]
TargetLimits = Annotated[Limits, PlainSerializer(structs.asdict)]


class Strict(BaseModel):
    """Frozen, without unknown keys, and no value is bent into shape: `7` is a number and `"7"` is not."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True
    )


class LimitKeys(Strict):
    """The keys of `limits:`, here for their checks; what comes of them is a `Limits`."""

    max_files: int = whole(100_000, 1, 10**12)
    max_bytes: Size = Field(default=100 * GIB, ge=1, le=2**63 - 1, description=_SIZE)
    max_share: float = Field(default=0.5, gt=0, le=1, description="a fraction above 0 and up to 1, such as 0.5")
    max_growth: float = Field(default=10.0, ge=1, le=10**6, description="a factor from 1 to 1000000, such as 10")
    free_space_reserve: Size = Field(default=GIB, ge=0, le=2**63 - 1, description=_SIZE)
    allow_volatile_backup: bool = Field(default=False, description=TRUTH)


class Governed(Strict):
    """What every target has, of whatever kind: a name, and the bounds of what policies and runs may do there."""

    name: str = Field(description=SLUG_TEXT)
    min_age: Duration = Field(
        default=0.0,
        ge=0,
        le=RETENTION_DAYS_MAX * 86_400,
        description="a number of seconds, or text such as '30m', '2h' or '1d', up to 36500 days",
    )
    retention_days_min: int = Field(
        default=RETENTION_DAYS_MIN, ge=RETENTION_DAYS_MIN, le=RETENTION_DAYS_MAX, description=DAYS
    )
    retention_days_max: int = Field(
        default=RETENTION_DAYS_MAX, ge=RETENTION_DAYS_MIN, le=RETENTION_DAYS_MAX, description=DAYS
    )
    limits: TargetLimits = Limits()

    @property
    def min_age_ns(self) -> int:
        """`min_age` in nanoseconds, rounded up."""
        return math.ceil(Fraction(self.min_age) * NS_PER_SECOND)

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not SLUG.fullmatch(value):
            raise ValueError(f"{shown(value)} is not a name of {SLUG_TEXT}")
        return value

    @field_validator("retention_days_max")
    @classmethod
    def _check_retention(cls, value: int, info: ValidationInfo) -> int:
        least = info.data.get("retention_days_min", value)
        if value < least:
            raise ValueError(f"{value} is less than retention_days_min, {least}; exchange them")
        return value


class Target(Governed):
    """One directory that may be cleaned: what in it, and within which bounds.

    `patterns` and `excludes` are globs: without a slash they match a name at any depth, with one the path below the
    root. An exclude that matches a directory, with or without `/**`, excludes everything in it.
    """

    kind: Literal["operations", "files"] = Field(description="operations, files or dagster_runs")
    data_type: str | None = Field(default=None, validate_default=True, description=SLUG_TEXT)
    recursive: bool = Field(description=TRUTH)
    root: AbsolutePath = Field(description="an absolute path")
    patterns: Globs
    excludes: Globs
    max_depth: int = whole(64, 1, 200)
    remove_empty_dirs: bool = Field(default=False, description=TRUTH)
    age_from: Literal["mtime", "newest"] = Field(default="mtime", description="mtime or newest")
    max_json_bytes: Size = Field(default=MIB, ge=1, le=64 * MIB, description=_SIZE + ", up to 64 MiB")
    delete_unreadable: bool = Field(default=False, description=TRUTH)
    format: Literal["files", "archive"] = Field(description="files or archive")
    optional: bool = Field(default=False, description=TRUTH)

    @property
    def data_types(self) -> tuple[str, ...]:
        """The data types whose policies govern this target's files."""
        return OPERATION_DATA_TYPES if self.data_type is None else (self.data_type,)

    @property
    def scope(self) -> Scope:
        """What a scan of this target needs to know."""
        return Scope(
            self.kind,
            self.root,
            self.data_type,
            self.recursive,
            self.patterns,
            self.excludes,
            self.max_depth,
            self.age_from,
            self.max_json_bytes,
            self.delete_unreadable,
        )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: object) -> object:
        """Fill in what depends on the kind of target."""
        if not isinstance(data, dict):
            return data
        given = cast("dict[str, object]", data)
        operations = given.get("kind") == "operations"
        return {
            "patterns": ["operation_*.json"] if operations else ["*"],
            "excludes": _EXCLUDES.get(str(given.get("data_type")), ()),
            "recursive": not operations,
            "format": "files" if operations else "archive",
            **given,
        }

    @field_validator("data_type")
    @classmethod
    def _check_data_type(cls, value: str | None, info: ValidationInfo) -> str | None:
        kind = info.data.get("kind")
        if kind == "operations" and value is not None:
            raise ValueError(
                f"{shown(value)} does not belong to kind operations, whose files say their type; remove it"
            )
        if kind == "files" and (value is None or not SLUG.fullmatch(value)):
            right = f"write system_logs, dbt_logs, temp_files or one of your own of {SLUG_TEXT}"
            raise ValueError(f"{shown(value)} is not a data type; {right}")
        if kind == "files" and value in OPERATION_DATA_TYPES:
            raise ValueError(
                f"{shown(value)} is decided by what the files say; write kind: operations, without data_type"
            )
        if kind == "files" and value == "dagster_runs":
            raise ValueError("'dagster_runs' lives in Dagster's database, not in files; remove this target")
        return value

    @field_validator("root")
    @classmethod
    def _check_root(cls, value: Path, info: ValidationInfo) -> Path:
        home = cast("dict[str, Path | None]", info.context or {}).get("dagster_home")
        if problem := forbidden_root(value, home, recursive=info.data.get("recursive", True)):
            raise ValueError(f"{str(value)!r} {problem}")
        return value

    @field_validator("patterns")
    @classmethod
    def _check_patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("[] matches nothing; write at least one pattern such as '*.log', or remove the key")
        return value

    @field_validator("age_from")
    @classmethod
    def _check_files_only(cls, value: Any, info: ValidationInfo) -> Any:
        return _only_for("files", value, info)

    @field_validator("max_json_bytes", "delete_unreadable")
    @classmethod
    def _check_operations_only(cls, value: Any, info: ValidationInfo) -> Any:
        return _only_for("operations", value, info)


def _only_for(kind: str, value: object, info: ValidationInfo) -> object:
    if info.data.get("kind") not in (kind, None):
        raise ValueError(
            f"{shown(value)} has no meaning for kind {info.data['kind']}; remove it, it belongs to kind {kind}"
        )
    return value
