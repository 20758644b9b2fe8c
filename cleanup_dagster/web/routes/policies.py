"""The retention policies: how long, whether at all, and what a change would mean."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from cleanup_dagster.database.policies import InvalidPolicy, PolicyChanged, PolicyRow, UnknownDataType
from cleanup_dagster.documents import Document, iso, of_policy
from cleanup_dagster.retention.defaults import RETENTION_DAYS_MAX, RETENTION_DAYS_MIN
from cleanup_dagster.retention.models import NS_PER_DAY, Reason, Tally
from cleanup_dagster.settings import Settings
from cleanup_dagster.web.auth import visitor_of
from cleanup_dagster.web.bodies import Nothing, PolicyChange, PolicyPreview
from cleanup_dagster.web.described import FILE, POLICY, ok
from cleanup_dagster.web.errors import Refusal, reply
from cleanup_dagster.web.index import Facet, FileIndex, Row
from cleanup_dagster.web.parts import API, parts_of
from cleanup_dagster.web.platform import Platform
from cleanup_dagster.web.routes.files import of_row

router = APIRouter(prefix=f"{API}/policies", tags=["policies"])

Match = Annotated[str | None, Header(alias="If-Match", max_length=200)]
_EXAMPLES = 10
_TALLY = {"files": 40, "bytes": 81920}
#: Why a file stays that another number of days, another switch or a smaller `keep_last` would let go.
_KEPT_BY_POLICY = frozenset({Reason.NOT_EXPIRED.value, Reason.POLICY_DISABLED.value, Reason.KEEP_LAST.value})
#: What takes a place among the newest: whatever has no obstacle.
_RANKED = _KEPT_BY_POLICY | {
    reason.value
    for reason in (Reason.EXPIRED, Reason.HELD, Reason.PUT_BACK, Reason.RECENTLY_MODIFIED, Reason.STILL_ACTIVE)
}


@router.get("", responses=ok({"policies": [POLICY]}))
def policies(request: Request) -> Response:
    """Return every policy, with the targets that it governs and the bounds that they set."""
    return reply({"success": True, "policies": _policies(parts_of(request).platform)})


@router.post("", responses=ok({"message": "dbt_logs is now kept for 7 days", "policy": POLICY}))
def change(request: Request, body: PolicyChange, if_match: Match = None) -> Response:
    """Change one policy. What is left out stays; old and new are recorded with who changed it.

    With `If-Match: "<version>"`, the `version` of the policy as it was seen, nothing that somebody else changed
    meanwhile is overwritten: the answer is 412 then, with the policy as it is now.
    """
    platform = parts_of(request).platform
    _require_within(platform.settings, body.data_type, body.retention_days)
    try:
        (row,) = platform.records.change_policies(
            [body.data_type],
            visitor_of(request).actor,
            retention_days=body.retention_days,
            enabled=body.enabled,
            keep_last=body.keep_last,
            versions=_versions(if_match),
        )
    except PolicyChanged as error:
        policy = _with_targets(error.row, platform.settings)
        raise Refusal(HTTPStatus.PRECONDITION_FAILED, str(error), policy=policy) from None
    said = "disabled" if row.enabled is False else f"kept for {row.retention_days} days"
    if row.enabled and row.keep_last:
        said += f", and the newest {row.keep_last} of each pipeline always"
    policy = _with_targets(row, platform.settings)
    document = {"success": True, "message": f"{row.data_type} is now {said}", "policy": policy}
    return reply(document, headers={"ETag": f'"{row.version}"'})


@router.post(
    "/preview",
    responses=ok(
        {
            "newly_expired": _TALLY,
            "no_longer_expired": _TALLY,
            "scanned_at": "2026-01-31T09:00:00Z",
            "examples": [FILE],
        }
    ),
)
def preview(request: Request, body: PolicyPreview) -> Response:
    """Say what a change would let go, and what it would save, by the last scan. Changes nothing.

    What was put back and equals an unexpired backup may be among it, and stays until that backup expires.
    """
    parts = parts_of(request)
    _require_within(parts.platform.settings, body.data_type, body.retention_days)
    found = [row for row in parts.platform.records.policies() if row.data_type == body.data_type]
    if not found:
        raise UnknownDataType(f"there is no policy for the data type {body.data_type!r}")
    days = found[0].retention_days if body.retention_days is None else body.retention_days
    enabled = found[0].enabled if body.enabled is None else body.enabled
    keep = found[0].keep_last if body.keep_last is None else body.keep_last
    if days is None or enabled is None or keep is None:
        raise InvalidPolicy(f"{body.data_type}: {found[0].problem}")
    current = parts.snapshots.current
    if current is None:
        raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "there is no finished scan yet; make a dry run first")
    index = current.index
    cutoff_ns = index.made_ns - days * NS_PER_DAY

    def would_go(facet: Facet) -> bool:
        return facet.data_type == body.data_type and facet.reason in _KEPT_BY_POLICY and not facet.guarded

    def goes(facet: Facet) -> bool:
        return facet.data_type == body.data_type and facet.goes

    going = index.tally(goes)
    if not enabled:
        still, newly, examples = Tally(), Tally(), []
    else:
        still, _ = _expired(index, cutoff_ns, goes, keep)
        newly, examples = _expired(index, cutoff_ns, would_go, keep)
    return reply(
        {
            "success": True,
            "newly_expired": {"files": newly.files, "bytes": newly.bytes},
            "no_longer_expired": {"files": going.files - still.files, "bytes": going.bytes - still.bytes},
            "scanned_at": iso(index.made_ns),
            "examples": [of_row(row, index.made_ns) for row in examples],
        }
    )


@router.post(
    "/reset",
    responses=ok({"message": "1 policy is as it was made", "changed": ["dbt_logs"], "policies": [POLICY]}),
)
def reset(request: Request, _: Nothing | None = None) -> Response:
    """Bring the default policies back, and return every policy as it is then."""
    platform = parts_of(request).platform
    changed = platform.records.reset_policies(visitor_of(request).actor)
    if not changed:
        said = "every policy is as it was made already"
    else:
        said = "1 policy is as it was made" if len(changed) == 1 else f"{len(changed)} policies are as they were made"
    return reply({"success": True, "message": said, "changed": changed, "policies": _policies(platform)})


def _expired(index: FileIndex, cutoff_ns: int, wanted: Callable[[Facet], bool], keep: int) -> tuple[Tally, list[Row]]:
    """Return what is older than a moment and not among the newest `keep`, with the oldest as examples."""
    if not keep:
        return index.older_than(cutoff_ns, wanted), index.oldest(cutoff_ns, wanted, _EXAMPLES)
    data_types = {facet.data_type for facet in index.facets if wanted(facet)}

    def ranked(facet: Facet) -> bool:
        return facet.data_type in data_types and facet.reason in _RANKED

    return index.older_beyond_newest(cutoff_ns, wanted, ranked, keep, _EXAMPLES)


def _bounds(settings: Settings, data_type: str) -> tuple[int, int]:
    """Return the days that the configuration of every target of a data type allows."""
    targets = [target for target in settings.all_targets if data_type in target.data_types]
    least = max((target.retention_days_min for target in targets), default=RETENTION_DAYS_MIN)
    return least, min((target.retention_days_max for target in targets), default=RETENTION_DAYS_MAX)


def _require_within(settings: Settings, data_type: str, days: int | None) -> None:
    least, most = _bounds(settings, data_type)
    if days is not None and not least <= days <= most:
        raise InvalidPolicy(f"retention_days is {days}, but the configuration allows {least} to {most} for {data_type}")


def _versions(if_match: str | None) -> frozenset[str] | None:
    """Return which versions a change is meant for; None means whichever it is."""
    if if_match is None or if_match.strip() == "*":
        return None
    return frozenset(tag.strip().strip('"') for tag in if_match.split(","))


def _policies(platform: Platform) -> list[Document]:
    return [_with_targets(row, platform.settings) for row in platform.records.policies()]


def _with_targets(row: PolicyRow, settings: Settings) -> Document:
    least, most = _bounds(settings, row.data_type)
    targets = [target.name for target in settings.all_targets if row.data_type in target.data_types]
    return {**of_policy(row), "version": row.version, "targets": targets, "minimum": least, "maximum": most}
