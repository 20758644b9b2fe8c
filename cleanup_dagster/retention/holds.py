"""Holds: the promises that win over everything, emergency included."""

import re
from collections.abc import Iterable

from wcmatch import glob

from cleanup_dagster.retention.models import PIPELINE_LENGTH, Hold

_FLAGS = glob.GLOBSTAR | glob.DOTMATCH | glob.CASE | glob.FORCEUNIX


class HoldMatcher:
    """Holds compiled for one target.

    A hold names an absolute path or glob. A directory's hold covers everything below it: a person who protects
    `/data/logs` means what is in it. A hold by data type or pipeline alone has the pattern `**`.
    """

    def __init__(self, holds: Iterable[Hold], root: str, now_ns: int) -> None:
        self._root = root.rstrip("/")
        self._holds = [
            (hold, compile_pattern(hold.pattern)) for hold in holds if hold.until_ns is None or hold.until_ns > now_ns
        ]

    def first_match(self, path: str, data_type: str, pipeline: str | None) -> Hold | None:
        """Return the first hold over the item at `path` (text form, relative to the target's root), or None."""
        if not self._holds:
            return None
        absolute = f"{self._root}/{path}"
        for hold, pattern in self._holds:
            if hold.data_type is not None and hold.data_type != data_type:
                continue
            if hold.pipeline is not None and hold.pipeline[:PIPELINE_LENGTH] != pipeline:
                continue
            if pattern.match(absolute):
                return hold
        return None


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile an absolute path or glob in text form; a directory stands for everything below it."""
    literal = pattern.rstrip("/")
    # A backslash belongs to the text form of a name (\x0a) and a bracket may be part of one: so the literal path
    # counts too.
    escaped = literal.replace("\\", "\\\\")
    globs, _ = glob.translate([escaped, f"{escaped}/**"], flags=_FLAGS)
    return re.compile("|".join([re.escape(literal) + r"(?:/.*)?\Z", *globs]), re.DOTALL)
