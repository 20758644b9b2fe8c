"""What `cleanup.yaml` says about watching: when to raise an alert, and what to do when a disk fills up."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator

from cleanup_dagster.roots import forbidden_store
from cleanup_dagster.targets import AbsolutePath, Duration, Size, Strict, whole

_PERCENT_TEXT = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,3})?) ?%?")
_DAY = 86_400


def _percent(value: object) -> object:
    """Return the number that a text such as `90%` means; anything else as it is, for the strict check."""
    match = _PERCENT_TEXT.fullmatch(value) if isinstance(value, str) else None
    return float(match[1]) if match else value


def _duration(default: float, least: float, most: float, words: str) -> Duration:
    return Field(
        default=default,
        ge=least,
        le=most,
        description=f"a number of seconds, or text such as '30m', '26h' or '2d', from {words}",
    )


class Alerts(Strict):
    """When somebody is told. Where to, the webhook's URL, is a secret and stands in the environment."""

    silent_after: Duration = _duration(26 * 3_600.0, 3_600, 366 * _DAY, "1 hour to 366 days")
    overdue_grace: Duration = _duration(2.0 * _DAY, 0, 366 * _DAY, "0 to 366 days")
    repeat: Duration = _duration(1.0 * _DAY, 60, 366 * _DAY, "1 minute to 366 days")
    webhook_timeout: Duration = _duration(5.0, 0.1, 10, "0.1 to 10 seconds")
    webhook_attempts: int = whole(3, 1, 3)  # all attempts fit into the minute that Dagster gives a sensor


class DiskPressure(Strict):
    """When a filesystem counts as too full, and what a run does that is started for it."""

    used_percent: Annotated[float, BeforeValidator(_percent)] | None = Field(
        default=None, ge=1, le=99.999, description="a number from 1 to 99.999, or text such as '90%', or null"
    )
    free_bytes: Size | None = Field(
        default=None,
        ge=1,
        le=2**63 - 1,
        description="a size: a whole number of bytes, or text such as '10 GiB' or '500 MB', or null",
    )
    dry_run: bool = Field(default=True, description="true or false")
    cooldown: Duration = _duration(6 * 3_600.0, 60, 366 * _DAY, "1 minute to 366 days")
    backup_directory: AbsolutePath | None = Field(default=None, description="an absolute path, or null")

    @property
    def watched(self) -> bool:
        """Whether there is a threshold, without which nothing is watched."""
        return self.used_percent is not None or self.free_bytes is not None

    @field_validator("backup_directory")
    @classmethod
    def _check_directory(cls, value: Path | None) -> Path | None:
        if value is not None and (problem := forbidden_store(value)):
            raise ValueError(f"{str(value)!r} {problem}")
        return value
