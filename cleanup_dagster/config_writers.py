"""Who can change `cleanup.yaml`: he names the directories in which files are deleted, by somebody else's rights.

A file that everybody can write stops live runs. One that belongs to another user, or that a group can write, is only
warned of: modes do not tell who that is, and in a container it is often the user who looks after the deployment.
"""

from pathlib import Path

from cleanup_dagster.filesystem.private import Opening, openings


def others(file: Path | None) -> list[Opening]:
    """Return where others than root and this process's user can change the configuration. Raises OSError."""
    return [] if file is None else list(openings(file.absolute()))


def open_to_all(file: Path | None) -> str:
    """Say that everybody can change the configuration and what to do about it; empty when not. Raises OSError."""
    found = [opening for opening in others(file) if opening.anybody]
    if not found:
        return ""
    said, advice = "; ".join(one.said for one in found), "; ".join(one.advice for one in found)
    return f"anybody can change what is deleted: {said}; {advice}"
