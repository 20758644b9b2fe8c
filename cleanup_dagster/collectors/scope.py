"""What a scan knows of its target. No configuration: a worker process that imported it would lose 0.2 s."""

from pathlib import Path

from msgspec import Struct


class Scope(Struct, frozen=True):
    """Where to look, for what, and how to take its age; the fields are those of a configured target."""

    kind: str
    root: Path
    data_type: str | None
    recursive: bool
    patterns: tuple[str, ...]
    excludes: tuple[str, ...]
    max_depth: int
    age_from: str
    max_json_bytes: int
    delete_unreadable: bool
