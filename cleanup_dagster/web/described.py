"""What the API's own description says of answers: an example each, and the schema that the example shows."""

from typing import Any, cast

Described = dict[int | str, dict[str, Any]]

_ERRORS = {
    400: "The Host is not known here, or the body is not JSON",
    401: "No token, or one that is not known",
    403: "The role, the origin or the CSRF token does not allow it",
    404: "There is no such thing",
    405: "The method is not taken here",
    409: "Another run is at work, or the plan may not be applied",
    412: "Somebody else changed the policy meanwhile; `policy` is what it is now",
    413: "The body is longer than 64 KiB",
    415: "The body is not sent as JSON",
    422: "A value is not what it must be",
    429: "Too many attempts; Retry-After says how long to wait",
    502: "Dagster did not take the run",
    503: "The database, the configuration or Dagster cannot be used",
}
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
ERROR = {"success": False, "error": "run 1a2b3c4d is at work; wait for it"}


def ok(example: dict[str, Any], status: int = 200) -> Described:
    """Describe an answer by an example of its keys; `success` is added."""
    whole = {"success": True, **example}
    return {status: {"description": "Done", "content": _json(whole, schema_of(whole))}}


def errors() -> Described:
    """Describe what may go wrong anywhere."""
    schema = {"type": "object", "required": ["success", "error"], "properties": schema_of(ERROR)["properties"]}
    return {status: {"description": said, "content": _json(ERROR, schema)} for status, said in _ERRORS.items()}


def schema_of(example: Any) -> dict[str, Any]:
    """Return the schema that an example shows: its keys are all there, and any value but a list may be null."""
    if isinstance(example, dict):
        keys = cast("dict[str, Any]", example)
        properties = {key: schema_of(value) for key, value in keys.items()}
        return {"type": ["object", "null"], "required": list(properties), "properties": properties}
    if isinstance(example, list):
        items = cast("list[Any]", example)
        return {"type": "array", "items": schema_of(items[0]) if items else {}}
    return {} if example is None else {"type": [_TYPES[type(example)], "null"]}


def _json(example: object, schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"example": example, "schema": schema}}


HISTORY = {
    "run_id": "1a2b3c4d-0000-4000-8000-000000000000",
    "data_type": "dbt_logs",
    "cleanup_type": "manual",
    "outcome": "done",
    "records_deleted": 120,
    "space_freed": 7340032,
    "records_skipped": 0,
    "records_failed": 0,
    "backup_bytes": 7340032,
    "executed_at": "2026-01-31T02:00:05Z",
    "executed_by": "operator via login from 127.0.0.1",
    "message": "",
}
POLICY = {
    "data_type": "dbt_logs",
    "retention_days": 7,
    "enabled": True,
    "keep_last": 0,
    "description": "dbt logs and artifacts",
    "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-01T00:00:00Z",
    "problem": None,
    "version": "3f1c9a0b7d2e4c58",
    "targets": ["dbt_target"],
    "minimum": 1,
    "maximum": 36500,
}
FILE = {
    "file_path": "/srv/operations/operation_17.json",
    "file_size": 2048,
    "created_at": "2025-09-30T11:20:00Z",
    "modified_at": "2025-09-30T11:20:03Z",
    "age_days": 122.61,
    "status": "completed",
    "pipeline_name": "orders",
    "data_type": "completed_operations",
    "verdict": "delete",
    "reason": "expired",
    "sentence": "older than 90 days: it is 122.6 days old by its end_time",
}
RUN = {
    "run_id": "1a2b3c4d-0000-4000-8000-000000000000",
    "cleanup_type": "manual",
    "kind": "cleanup",
    "dry_run": True,
    "status": "done",
    "started_at": "2026-01-31T09:00:00Z",
    "finished_at": "2026-01-31T09:00:04Z",
    "executed_by": "operator via token from 127.0.0.1",
    "host": "data-1",
    "plan": None,
    "scanned_files": 1000,
    "expired_files": 120,
    "expired_bytes": 7340032,
    "deleted_files": 0,
    "freed_bytes": 0,
    "failed_files": 0,
    "message": "",
    "url": "http://127.0.0.1:3000/runs/1a2b3c4d-0000-4000-8000-000000000000",
}
BACKUPS = {
    "run_id": "1a2b3c4d-0000-4000-8000-000000000000",
    "target": "operations",
    "root": "/srv/operations",
    "directory": "/tmp/cleanup_backups",  # noqa: S108  an example
    "files": 120,
    "bytes": 7340032,
    "made_at": "2026-01-31T02:00:00Z",
    "expires_at": "2026-02-07T02:00:00Z",
}
HOLD = {
    "id": 1,
    "pattern": "/srv/operations/operation_audit_*.json",
    "data_type": None,
    "pipeline": None,
    "reason": "audit 2026",
    "placed_by": "operator via login from 127.0.0.1",
    "placed_at": "2026-01-31T09:00:00Z",
    "until": None,
    "active": True,
    "warning": None,
}
LAUNCHED = {"message": "the run was launched", "run_id": RUN["run_id"], "url": RUN["url"]}
