"""What may be sent: no key that is not known, no value bent into shape (`true` is no number, `"7"` neither)."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cleanup_dagster.database.policies import KEEP_LAST_MAX
from cleanup_dagster.retention.defaults import RETENTION_DAYS_MAX, RETENTION_DAYS_MIN

DataType = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$", examples=["dbt_logs"])]
Days = Annotated[int, Field(ge=RETENTION_DAYS_MIN, le=RETENTION_DAYS_MAX, examples=[14])]
KeepLast = Annotated[int, Field(ge=0, le=KEEP_LAST_MAX, examples=[3])]


class Body(BaseModel):
    """A JSON object, strictly."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Nothing(Body):
    """An empty object: there is nothing to say."""


class Login(Body):
    """A token, for which a session is given."""

    token: str = Field(min_length=1, max_length=512)


class PolicyChange(Body):
    """What to change about one policy; what is left out stays."""

    data_type: DataType
    retention_days: Days | None = None
    enabled: bool | None = None
    keep_last: KeepLast | None = None


class PolicyPreview(Body):
    """A policy as it might be."""

    data_type: DataType
    retention_days: Days | None = None
    enabled: bool | None = None
    keep_last: KeepLast | None = None


CleanupKind = Literal["automatic", "manual", "emergency"]
RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,80}$", examples=["1a2b3c4d-0000-4000-8000-000000000000"])]
Text = Annotated[str, Field(min_length=1, max_length=1_000, pattern=r"^[^\u0000]*$")]


class CleanupRequest(Body):
    """A cleanup to launch. Dry unless told otherwise."""

    cleanup_type: CleanupKind = "manual"
    dry_run: bool = True
    skip_backup: bool = False


class RestoreRequestBody(Body):
    """What to put back: everything of a run, or what matches one of the paths and data types."""

    run_id: RunId
    paths: list[Text] = Field(default=[], max_length=500)
    data_types: list[DataType] = Field(default=[], max_length=50)
    dry_run: bool = True


class HoldRequest(Body):
    """A promise that something stays: an absolute path or a glob, and why. `until` is ISO 8601 with a zone."""

    pattern: Text = Field(examples=["/srv/operations/operation_audit_*.json"])
    reason: Text = Field(examples=["audit 2026"])
    data_type: DataType | None = None
    pipeline: Text | None = None
    until: str | None = Field(default=None, max_length=40, examples=["2027-01-31T00:00:00Z"])
