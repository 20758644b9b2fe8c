"""Holds: the promises that win over everything, emergency included."""

import re
from collections.abc import Iterable
from itertools import takewhile

from wcmatch import glob

from cleanup_dagster.retention.models import PIPELINE_LENGTH, Hold

#: Globs over whole directories in one pattern. Each multiplies the time that a deep path takes: on one of 60 names two
#: took 12 ms, three 260 ms, four 2.8 s.
_DEEP_MAX = 3
#: Stars in one name of a pattern. Before Python 3.11, whose expressions can do without going back, each multiplies the
#: time that a long name takes: three take 60 ms for one of 255 letters.
_STARS_MAX = 3

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


def normalise_pattern(pattern: str) -> str:
    """Return a pattern as paths are written: without a slash at the end, doubled ones and `/./`.

    Raises ValueError for one that could match no path in text form, or only in seconds.
    """
    if not pattern.startswith(("/", "**")):
        raise ValueError(f"the pattern {pattern!r} matches no absolute path; begin it with / or **")
    if not pattern.isprintable():
        raise ValueError(
            f"the pattern {pattern!r} holds a character that paths show as an escape; write it so (\\u000a)"
        )
    parts = [part for part in pattern.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise ValueError(f"the pattern {pattern!r} holds '..', which no recorded path does; write where it leads")
    if problem := slowness(pattern):
        raise ValueError(f"the pattern {pattern!r} {problem}")
    return ("/" if pattern.startswith("/") else "") + "/".join(parts)


def reaches(pattern: str, directory: str) -> bool:
    """Return whether a pattern could match a directory or something in it, be that there now or not.

    Both are absolute and in text form; a pattern may begin with `**`.
    """
    parts = [part for part in pattern.split("/") if part not in {"", "."}]
    begins = list(takewhile(lambda part: "**" not in part, parts[: directory.rstrip("/").count("/")]))
    return not begins or compile_pattern("/" + "/".join(begins)).match(directory) is not None


def slowness(pattern: str) -> str | None:
    """Say why matching a glob would take seconds for some paths, or None."""
    parts = pattern.split("/")
    if sum("**" in part for part in parts) > _DEEP_MAX:
        return f"holds more than {_DEEP_MAX} **, which takes seconds for a deep path"
    if any(_stars(part) > _STARS_MAX for part in parts):
        return f"holds more than {_STARS_MAX} * in one name, which takes seconds for a long one"
    return None


def _stars(part: str) -> int:
    return 0 if part == "**" else part.count("*")


def _widened(pattern: str) -> str:
    """Return a glob that is not slow and takes in whatever `pattern` does: by SQL, anything can be placed as a hold."""
    parts = ["*" if _stars(part) > _STARS_MAX else part for part in pattern.split("/")]
    parts = [part for part, before in zip(parts, ["", *parts], strict=False) if (part, before) != ("**", "**")]
    deep = [place for place, part in enumerate(parts) if "**" in part]
    if len(deep) > _DEEP_MAX:
        parts = [*parts[: deep[_DEEP_MAX - 1]], "**"]
    return "/".join(parts)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile an absolute path or glob in text form; a directory stands for everything below it."""
    literal = pattern.rstrip("/")
    # A backslash belongs to the text form of a name (\x0a) and a bracket may be part of one: so the literal path
    # counts too.
    escaped = _widened(literal).replace("\\", "\\\\")
    globs, _ = glob.translate([escaped, f"{escaped}/**"], flags=_FLAGS)
    return re.compile("|".join([re.escape(literal) + r"(?:/.*)?\Z", *globs]), re.DOTALL)
