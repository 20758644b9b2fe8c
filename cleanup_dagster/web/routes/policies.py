"""The retention policies: how long, and whether at all."""

from fastapi import APIRouter, Request, Response

from cleanup_dagster.database.policies import PolicyRow
from cleanup_dagster.documents import Document, of_policy
from cleanup_dagster.retention.defaults import RETENTION_DAYS_MAX, RETENTION_DAYS_MIN
from cleanup_dagster.settings import Settings
from cleanup_dagster.web.auth import visitor_of
from cleanup_dagster.web.bodies import Nothing, PolicyChange
from cleanup_dagster.web.errors import reply
from cleanup_dagster.web.parts import API, parts_of

router = APIRouter(prefix=f"{API}/policies", tags=["policies"])


@router.get("")
def policies(request: Request) -> Response:
    """Return every policy, with the targets that it governs and the bounds that they set."""
    platform = parts_of(request).platform
    rows = platform.records.policies()
    return reply({"success": True, "policies": [with_targets(row, platform.settings) for row in rows]})


@router.post("")
def change(request: Request, body: PolicyChange) -> Response:
    """Change one policy. What is left out stays; old and new are recorded with who changed it."""
    platform = parts_of(request).platform
    (row,) = platform.records.change_policies(
        [body.data_type],
        visitor_of(request).actor,
        retention_days=body.retention_days,
        enabled=body.enabled,
        keep_last=body.keep_last,
    )
    said = "disabled" if row.enabled is False else f"kept for {row.retention_days} days"
    return reply(
        {
            "success": True,
            "message": f"{row.data_type} is {said} now",
            "policy": with_targets(row, platform.settings),
        }
    )


@router.post("/reset")
def reset(request: Request, _: Nothing | None = None) -> Response:
    """Bring the default policies back."""
    changed = parts_of(request).platform.records.reset_policies(visitor_of(request).actor)
    said = f"{len(changed)} policies are as they were made" if changed else "all policies are as they were made already"
    return reply({"success": True, "message": said, "changed": changed})


def with_targets(row: PolicyRow, settings: Settings) -> Document:
    """Return a policy with the targets that it governs and the days that their configuration allows."""
    targets = [target for target in settings.targets if row.data_type in target.data_types]
    least = max((target.retention_days_min for target in targets), default=RETENTION_DAYS_MIN)
    most = min((target.retention_days_max for target in targets), default=RETENTION_DAYS_MAX)
    return {**of_policy(row), "targets": [target.name for target in targets], "minimum": least, "maximum": most}
