"""What several test files of this room write into their configurations."""

from collections.abc import Callable
from pathlib import Path

Write = Callable[[str | bytes], Path]

LOGS = "name: logs, kind: files, data_type: system_logs, root: /data/logs"
OPERATIONS = "name: ops, kind: operations, root: /data/ops"


def one_target(extra: str, base: str = LOGS) -> str:
    """Return a configuration of one target: `base`, and what is `extra` or other than there."""
    keys = {part.split(":")[0].strip() for part in extra.split(", ") if not part.startswith(" ")}
    kept = [part for part in base.split(", ") if part.split(":")[0].strip() not in keys]
    return f"targets: [{{{', '.join([*kept, extra])}}}]"
