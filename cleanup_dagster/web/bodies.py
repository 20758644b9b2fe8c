"""What may be sent: no key that is not known, no value bent into shape (`true` is no number, `"7"` neither)."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cleanup_dagster.database.policies import KEEP_LAST_MAX
from cleanup_dagster.retention.defaults import RETENTION_DAYS_MAX, RETENTION_DAYS_MIN

DataType = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$", examples=["dbt_logs"])]
Days = Annotated[int, Field(ge=RETENTION_DAYS_MIN, le=RETENTION_DAYS_MAX, examples=[14])]


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
    keep_last: int | None = Field(default=None, ge=0, le=KEEP_LAST_MAX)


class PolicyPreview(Body):
    """A policy as it might be."""

    data_type: DataType
    retention_days: Days | None = None
    enabled: bool | None = None


CleanupKind = Literal["automatic", "manual", "emergency"]
