"""The configuration: `cleanup.yaml` and the environment, checked before anything is touched.

The environment wins over the file, the file over the defaults. Which directories may be cleaned stands here and nowhere
else: the database, the page and the API change days and switches, never a path. Whatever is doubtful is refused, all of
it in one `ConfigError`.
"""

import difflib
import os
import re
import zoneinfo
from collections.abc import Callable, Mapping
from datetime import tzinfo
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, cast

import platformdirs
from pydantic import BaseModel, Field, SecretStr, ValidationError, ValidationInfo, field_validator

from cleanup_dagster.config_file import ConfigFileError, Key, dotted, read_mapping, shown, wording
from cleanup_dagster.cores import default_workers
from cleanup_dagster.environment import OVERRIDES, SWITCH, SWITCHES, Environment
from cleanup_dagster.retention.defaults import RETENTION_DAYS_MAX
from cleanup_dagster.retention.guardrails import Limits
from cleanup_dagster.roots import blocks_the_way, forbidden_root, forbidden_store, overlap
from cleanup_dagster.run_history.target import KIND, RunsTarget
from cleanup_dagster.targets import AbsolutePath, LimitKeys, Strict, Target, TargetLimits, WholeText, whole
from cleanup_dagster.watch_settings import Alerts, DiskPressure
from cleanup_dagster.web_settings import Web

#: The zone of times that name none; None is the host's own.
ZoneChoice: TypeAlias = tzinfo | None

_MONTHS: Mapping[str, int] = {
    name: month
    for month, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}
_WEEKDAYS: Mapping[str, int] = {name: day for day, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_CRON: tuple[tuple[int, int, Mapping[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, _MONTHS),
    (0, 7, _WEEKDAYS),
)


class ConfigError(Exception):
    """The configuration is refused. The text has one line for each of its `problems`."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[list[str]]]:
        return type(self), (list(self.problems),)


def _zone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        near = difflib.get_close_matches(value, sorted(zoneinfo.available_timezones()), n=1)
        right = f"did you mean {near[0]!r}?" if near else "write one such as 'Europe/Berlin' or 'UTC'"
        raise ValueError(f"{value!r} is not the IANA name of a time zone; {right}") from None
    return value


def _cron_number(text: str, names: Mapping[str, int]) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,2}", text) else names.get(text.lower())


def _is_cron_field(text: str, low: int, high: int, names: Mapping[str, int]) -> bool:
    for item in text.split(","):
        span, slash, step = item.partition("/")
        if slash and not (re.fullmatch(r"[0-9]{1,2}", step) and int(step)):
            return False
        if span == "*":
            continue
        bounds = [_cron_number(part, names) for part in span.split("-")]
        numbers = [number for number in bounds if number is not None and low <= number <= high]
        if len(numbers) != len(bounds) or len(bounds) > 2 or numbers != sorted(numbers):
            return False
    return True


def _cron_field(default: str) -> Any:
    return Field(default=default, description=f"a cron expression in text, such as {default!r}")


class Backup(Strict):
    """Where copies go before anything is deleted, and how long they stay."""

    directory: AbsolutePath = Field(
        default=Path("/tmp/cleanup_backups"),  # noqa: S108  the platform's place; made 0700 or refused
        description="an absolute path",
    )
    retention_days: int = whole(7, 1, 3650, "a whole number of days")
    restore_hold_days: int = whole(7, 1, 3650, "a whole number of days")

    @field_validator("directory")
    @classmethod
    def _check_directory(cls, value: Path) -> Path:
        if problem := forbidden_store(value):
            raise ValueError(f"{str(value)!r} {problem}")
        return value


class Schedule(Strict):
    """When the daily run, the checks and the verification of backups start, and on whose clock."""

    cron: str = _cron_field("0 2 * * *")
    checks_cron: str = _cron_field("30 * * * *")
    verify_cron: str = _cron_field("0 4 * * 0")
    started: bool = Field(default=False, description="true or false")
    timezone: str = Field(default="UTC", description="the IANA name of a time zone, such as 'Europe/Berlin'")

    @field_validator("cron", "checks_cron", "verify_cron")
    @classmethod
    def _check_cron(cls, value: str) -> str:
        fields = value.split()
        if len(fields) != len(_CRON) or not all(map(_is_cron_field, fields, *zip(*_CRON, strict=True))):
            right = "write five fields (minute, hour, day, month, weekday), such as '0 2 * * *'"
            raise ValueError(f"{value!r} is not a cron expression; {right}")
        return value

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, value: str) -> str:
        return _zone(value)


class Settings(Strict):
    """Everything that is configured. Made by `load_settings`, and never changed."""

    state_dir: AbsolutePath = Field(description="an absolute path")
    backup: Backup = Field(
        default_factory=Backup, description="a mapping with directory, retention_days and restore_hold_days"
    )
    schedule: Schedule = Field(default_factory=Schedule, description="a mapping with cron and timezone")
    web: Web = Field(default_factory=Web, description="a mapping with host, port, dagster_url and their kin")
    alerts: Alerts = Field(default_factory=Alerts, description="a mapping with silent_after, overdue_grace and others")
    disk_pressure: DiskPressure = Field(
        default_factory=DiskPressure, description="a mapping with used_percent, free_bytes, dry_run and others"
    )
    naive_timezone: str | None = Field(
        default=None, description="the IANA name of a time zone, such as 'Europe/Berlin', or null"
    )
    executor: Literal["in_process", "multiprocess"] = Field(
        default="in_process", description="in_process or multiprocess"
    )
    workers: int = Field(default_factory=default_workers, ge=1, le=64, description="a whole number from 1 to 64")
    clock_skew_seconds: int = whole(300, 1, 86_400)
    database_wait_seconds: WholeText = whole(30, 0, 3_600)
    plan_retention_hours: int = whole(24, 1, 8_760)
    manifest_retention_days: int = whole(365, 1, RETENTION_DAYS_MAX)
    limits: TargetLimits = Limits()
    targets: tuple[Target, ...]
    dagster_runs: RunsTarget | None = None
    database_url: SecretStr | None = None
    operator_token: SecretStr | None = None
    viewer_token: SecretStr | None = None
    alert_webhook: SecretStr | None = None
    dagster_home: Path | None = None
    config_file: Path | None = None

    @property
    def all_targets(self) -> tuple[Target | RunsTarget, ...]:
        """The directories, and Dagster's runs where they are a target."""
        return (*self.targets, self.dagster_runs) if self.dagster_runs else self.targets

    @property
    def naive_zone(self) -> ZoneChoice:
        """`naive_timezone` as an object."""
        return None if self.naive_timezone is None else zoneinfo.ZoneInfo(self.naive_timezone)

    @property
    def backup_directories(self) -> tuple[Path, ...]:
        """Every place where copies may be: the ordinary one first, then that of runs under disk pressure."""
        extra = self.disk_pressure.backup_directory
        return (self.backup.directory, *([extra] if extra and extra != self.backup.directory else []))

    def root_problem(self, target: Target) -> str | None:
        """Return why `target` may not be cleaned as the file system is now, or None."""
        return forbidden_root(target.root, self.dagster_home, recursive=target.recursive)

    @field_validator("state_dir")
    @classmethod
    def _check_state_dir(cls, value: Path) -> Path:
        if problem := forbidden_store(value):
            raise ValueError(f"{str(value)!r} {problem}")
        return value

    @field_validator("naive_timezone")
    @classmethod
    def _check_naive_timezone(cls, value: str | None) -> str | None:
        return None if value is None else _zone(value)

    @field_validator("manifest_retention_days")
    @classmethod
    def _check_manifests(cls, value: int, info: ValidationInfo) -> int:
        backup = cast("Backup | None", info.data.get("backup"))
        if backup and value < backup.retention_days:
            raise ValueError(
                f"{value} is less than backup.retention_days, {backup.retention_days}; "
                "a backup cannot be restored without its manifest, so write at least as many"
            )
        return value


#: Known only from the environment, so that no password lies in a file that many may read.
NOT_IN_FILE = frozenset(
    {"database_url", "alert_webhook", "dagster_home", "config_file", "operator_token", "viewer_token"}
)
_NO_KEYS = NOT_IN_FILE | {"dagster_runs"}  # which stands among the targets

_Model = TypeVar("_Model", bound=BaseModel)


def load_settings(environ: Mapping[str, str] | None = None, config_file: Path | None = None) -> Settings:
    """Return the configuration: `environ` (default: this process's), over the file, over the defaults.

    The file is `config_file`, else the one that CLEANUP_CONFIG names; without either, the defaults hold.

    Raises:
        ConfigError: anything in it is wrong or doubtful; the text names every such thing.
    """
    return _Loader(Environment(os.environ if environ is None else environ), config_file).load()


class _Loader:
    """Puts one configuration together, and collects what is wrong with it."""

    def __init__(self, environment: Environment, config_file: Path | None) -> None:
        self.environment = environment
        self.problems = environment.problems
        named = environment.get("CLEANUP_CONFIG")
        self.file = config_file or (Path(named) if named else None)
        self.origins: dict[Key, str] = {}
        self.dagster_home = environment.dagster_home()
        self.runs: RunsTarget | None = None

    def load(self) -> Settings:
        content = self._content()
        for key in sorted(NOT_IN_FILE & content.keys()):
            del content[key]
            self.problems.append(
                f"{self._label((key,))}: is no key of this file; set it in the environment "
                "(CLEANUP_DATABASE_URL, CLEANUP_ALERT_WEBHOOK_URL, DAGSTER_HOME, CLEANUP_CONFIG, "
                "CLEANUP_WEB_OPERATOR_TOKEN and _VIEWER_TOKEN)"
            )
        if content.pop("dagster_runs", None) is not None:
            self.problems.append(
                f"{self._label(('dagster_runs',))}: is no key; write a target of kind dagster_runs among the targets"
            )
        limits = self._limits(content.pop("limits", {}), ("limits",))
        targets = (
            self._targets(content.pop("targets"), limits) if "targets" in content else self._default_targets(limits)
        )
        self._override(content)
        merged = {
            **content,
            "limits": Limits(**limits),
            "targets": tuple(target for _, target in targets),
            "dagster_runs": self.runs,
            "database_url": self.environment.database_url(),
            "operator_token": self.environment.token("CLEANUP_WEB_OPERATOR_TOKEN"),
            "viewer_token": self.environment.token("CLEANUP_WEB_VIEWER_TOKEN"),
            "alert_webhook": self.environment.webhook(),
            "dagster_home": self.dagster_home,
            "config_file": self.file,
        }
        settings = self._valid(Settings, merged, self._label)
        self._compare(targets)
        if settings is not None:
            self._check_stores(settings)
        if settings is None or self.problems:
            raise ConfigError(self.problems)
        return settings

    def _content(self) -> dict[str, Any]:
        if self.file is None:
            return {}
        try:
            return dict(read_mapping(self.file))
        except ConfigFileError as error:
            problem = f"{self.file}: {error}"
        raise ConfigError([problem])

    def _label(self, key: Key) -> str:
        """Return where a value stands: its variable, or the file and the key."""
        if key in self.origins:
            return self.origins[key]
        return f"{self.file.name}: {dotted(key)}" if self.file else dotted(key)

    def _override(self, content: dict[str, Any]) -> None:
        """Lay the environment's values over the file's."""
        for variable, key in OVERRIDES.items():
            value = self.environment.get(variable)
            if value is None:
                continue
            place = content
            for part in key[:-1]:
                inner = place.get(part, {})
                if not isinstance(inner, dict):
                    break  # the file is wrong there, which is reported
                place[part] = dict(cast("dict[str, Any]", inner))
                place = place[part]
            else:
                place[key[-1]] = SWITCH.get(value, value) if variable in SWITCHES else value
                self.origins[key] = variable
        if "state_dir" not in content:
            content["state_dir"] = str(
                self.dagster_home / "cleanup" if self.dagster_home else platformdirs.user_state_path("cleanup_dagster")
            )

    def _valid(self, model: type[_Model], content: object, label: Callable[[Key], str]) -> _Model | None:
        try:
            return model.model_validate(content, context={"dagster_home": self.dagster_home})
        except ValidationError as error:
            self.problems.extend(wording(error, model, content, label, _NO_KEYS))
            return None

    def _limits(self, content: object, key: Key) -> dict[str, Any]:
        """Return the limits that `content` sets; those it leaves open come from elsewhere."""
        checked = self._valid(LimitKeys, content, lambda inner: self._label(key + inner))
        return {} if checked is None else checked.model_dump(exclude_unset=True)

    def _targets(self, content: object, limits: Mapping[str, Any]) -> list[tuple[str, Target]]:
        if not isinstance(content, list):
            self.problems.append(f"{self._label(('targets',))}: {shown(content)} is not a list of targets")
            return []
        found: list[tuple[str, Target]] = []
        for index, item in enumerate(cast("list[object]", content)):
            key = ("targets", index)
            if isinstance(item, dict):
                entry = dict(cast("dict[str, Any]", item))
                entry["limits"] = self._target_limits(entry, limits, key)
                if entry.get("kind") == KIND:
                    self._add_runs(entry, lambda inner, key=key: self._label(key + inner))
                    continue
            else:
                entry = item
            target = self._valid(Target, entry, lambda inner, key=key: self._label(key + inner))
            if target is not None:
                found.append((self._label(key), target))
        return found

    def _add_runs(self, entry: dict[str, Any], label: Callable[[Key], str]) -> None:
        runs = self._valid(RunsTarget, entry, label)
        if runs is not None and self.runs is not None:
            self.problems.append(
                f"{label(('kind',))}: {KIND!r} is the kind of target {self.runs.name!r} already; "
                "there is one instance, so keep one of them"
            )
        self.runs = self.runs or runs

    def _target_limits(self, entry: dict[str, Any], limits: Mapping[str, Any], key: Key) -> Limits:
        by_type: dict[str, Any] = {"max_share": 1.0} if entry.get("data_type") == "temp_files" else {}
        return Limits(**{**by_type, **limits, **self._limits(entry.get("limits", {}), (*key, "limits"))})

    def _default_targets(self, limits: Mapping[str, Any]) -> list[tuple[str, Target]]:
        found: list[tuple[str, Target]] = []
        for default in self.environment.default_targets():
            where = default.variable or f"default target {default.content['name']}"
            entry = {**default.content, "limits": self._target_limits(default.content, limits, ())}
            if entry["kind"] == KIND:
                self._add_runs(entry, lambda _, where=where: where)
                continue
            target = self._valid(Target, entry, lambda _, where=where: where)
            if target is not None:
                found.append((where, target))
        return found

    def _compare(self, targets: list[tuple[str, Target]]) -> None:
        for where, target in targets:
            if self.runs is not None and target.name == self.runs.name:
                self.problems.append(f"{where}.name: {target.name!r} names the runs already; choose another name")
        for (_, first), (where, second) in combinations(targets, 2):
            if first.name == second.name:
                self.problems.append(f"{where}.name: {second.name!r} names another target already; choose another name")
            if problem := overlap(second, first):
                self.problems.append(f"{where}: {problem}")

    def _check_stores(self, settings: Settings) -> None:
        """Refuse a store of ours that a target lies in: cleaning it would be cleaning the proof."""
        stores: list[tuple[Key, Path]] = [
            (("backup", "directory"), settings.backup.directory),
            (("state_dir",), settings.state_dir),
        ]
        if settings.disk_pressure.backup_directory:
            stores.append((("disk_pressure", "backup_directory"), settings.disk_pressure.backup_directory))
        for key, directory in stores:
            for target in settings.targets:
                if blocks_the_way(directory, target.root):
                    self.problems.append(
                        f"{self._label(key)}: {str(directory)!r} is the root of target {target.name!r} or leads to it "
                        f"({target.root}); name a directory of its own"
                    )
