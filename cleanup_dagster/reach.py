"""Whether a path or glob that somebody names could mean anything in a configured target."""

from cleanup_dagster.filesystem.names import to_text
from cleanup_dagster.retention.holds import reaches
from cleanup_dagster.run_history.store import ROOT
from cleanup_dagster.run_history.target import RunsTarget
from cleanup_dagster.settings import Settings, Target


def out_of_reach(settings: Settings, pattern: str, data_type: str | None = None) -> str:
    """Say that a pattern can match nothing in any target, or in any of a data type; empty when it can.

    What lies there is not looked at: a file that is yet to be written counts.
    """
    within = [target for target in settings.all_targets if reaches(pattern, _root(target))]
    if any(data_type is None or data_type in target.data_types for target in within):
        return ""
    of = f" of data type {data_type}" if within else ""
    known = ", ".join(f"{target.name} ({_root(target)})" for target in settings.all_targets) or "none"
    return f"{pattern} lies in no target{of}; targets: {known}"


def _root(target: Target | RunsTarget) -> str:
    return ROOT if isinstance(target, RunsTarget) else to_text(str(target.root))
