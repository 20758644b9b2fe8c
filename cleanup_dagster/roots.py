"""Which directories a target, the backups and our own state may live in, and whether two targets could take one file.

The answers are predicates for people: None when all is well, otherwise the rest of a sentence that begins with the path
(`'/etc' lies in the system directory /etc; name ...`). They look at the file system as it is now, so a run asks again.
"""

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from wcmatch import glob

TEMPORARY = Path("/tmp")  # noqa: S108  the platform writes its operation files there; a target may name it

_SYSTEM = tuple(map(Path, ("/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/run", "/sbin", "/sys", "/usr")))
_SHARED = (Path("/var"), Path("/opt"))
_HOMES = (Path("/home"), Path("/Users"), Path("/root"))
_NO_HOMES = frozenset({"", "/", "/nonexistent"})
#: Files that mark the data directory of Postgres and of MySQL.
_DATABASE_MARKS = ("PG_VERSION", "ibdata1")
_FIRST_UID_OF_PEOPLE = 1000

_ROOT_REASON = "is the root of the file system; name a directory of your own"
#: What may not stand in a part of a glob that is taken literally. Wider than any one glob dialect, on purpose.
_GLOB_SPECIAL = frozenset("*?[]{}()!@+")
_NEVER_LITERAL = frozenset("\\|/~")


def path_problem(text: str) -> str | None:
    """Return why `text` is not an absolute path in its normal form, or None."""
    if not text:
        return "is empty; write an absolute path"
    try:
        raw = os.fsencode(text)
    except UnicodeEncodeError:
        return "holds characters that no file name can; write an absolute path"
    if b"\0" in raw:
        return "holds a NUL character, which no path can; write an absolute path"
    if not text.startswith("/"):
        return "is not an absolute path; write it in full, from / on"
    if ".." in text.split("/"):
        return "holds '..'; write the path it means, without it"
    normal = "/" + os.path.normpath(text).lstrip("/")  # POSIX lets two leading slashes stand
    return None if text == normal else f"is not written in its normal form; write {normal!r}"


def forbidden_root(root: Path, dagster_home: Path | None = None, *, recursive: bool = True) -> str | None:
    """Return why nothing may ever be cleaned in `root`, or None.

    A directory that merely contains `dagster_home` is allowed when the target does not descend.
    """
    return (
        path_problem(str(root))
        or _system_problem(root)
        or _component_problem(root)
        or _home_problem(root, recursive=recursive)
        or _database_problem(root)
        or _dagster_problem(root, dagster_home, recursive=recursive)
    )


def forbidden_store(directory: Path) -> str | None:
    """Return why neither backups nor anything else of ours may be written to `directory`, or None."""
    if problem := path_problem(str(directory)):
        return problem
    real = Path(os.path.realpath(directory))
    return _within_system_reason(real) if _inside_system(directory) or _inside_system(real) else None


def blocks_the_way(directory: Path, root: Path) -> bool:
    """Return whether `directory` is `root` or one of the directories that lead to it, by name or really."""
    return any(_is_at_or_above(place, root) for place in (directory, Path(os.path.realpath(directory))))


def _is_at_or_above(upper: Path, lower: Path) -> bool:
    return lower.is_relative_to(upper)


def _inside_system(path: Path) -> bool:
    if path == Path("/") or (len(path.parts) > 1 and path.parts[1].startswith("lib")):
        return True
    return any(_is_at_or_above(place, path) for name in _SYSTEM for place in _both_names(name))


def _within_system_reason(path: Path) -> str:
    if path == Path("/"):
        return _ROOT_REASON
    return f"lies in the system directory {Path(*path.parts[:2])}; name a directory of your own"


def _both_names(path: Path) -> tuple[Path, Path]:
    return path, Path(os.path.realpath(path))


def _system_problem(root: Path) -> str | None:
    if _inside_system(root):
        return _within_system_reason(root)
    for name in _SYSTEM:
        if any(_is_at_or_above(root, place) for place in _both_names(name)):
            return f"holds the system directory {name}; name a directory of your own"
    for name in _SHARED:
        if root in _both_names(name):
            return f"is shared by the whole system; name a directory of your own below {name}"
    return None


def _component_problem(root: Path) -> str | None:
    for part in (*reversed(root.parents), root):
        try:
            mode = part.lstat().st_mode
        except (FileNotFoundError, PermissionError):
            return None  # a run cannot get there either, and says so; there is nothing to look at below
        except OSError as error:
            return f"cannot be looked at ({error.strerror}); name an existing directory"
        if stat.S_ISLNK(mode):
            return f"leads through the symbolic link {part}; name the real path, {os.path.realpath(root)!r}"
        if not stat.S_ISDIR(mode):
            return f"is no directory, because {part} is none; name a directory"
    return None


def _home_problem(root: Path, *, recursive: bool) -> str | None:
    if not recursive and root in _both_names(TEMPORARY):
        return None
    for home in _homes():
        if root == home:
            return "is a home directory or holds them; name a directory below a home, such as its project's logs"
        if _is_at_or_above(root, home):
            return f"holds the home directory {home}; name a directory of your own"
    return None


def _homes() -> Iterator[Path]:
    for home in _HOMES:
        yield from _both_names(home)
    real_parents: dict[str, str] = {}  # /home may be a link; the homes themselves may be slow automounts, left alone
    for entry in pwd.getpwall():
        uid, text = entry.pw_uid, entry.pw_dir
        if text in _NO_HOMES or not (uid == 0 or uid >= _FIRST_UID_OF_PEOPLE or uid == os.getuid()):
            continue
        home = Path(text)
        if home not in _both_names(TEMPORARY):  # an account without a home of its own
            yield home
            parent = str(home.parent)
            yield Path(real_parents.setdefault(parent, os.path.realpath(parent)), home.name)


def _database_problem(root: Path) -> str | None:
    for directory in (root, *root.parents):
        for mark in _DATABASE_MARKS:
            try:
                # A database owns its directory and all in it; anybody can put a file of that name into /tmp.
                real = (directory / mark).lstat().st_uid == directory.lstat().st_uid
            except OSError:
                continue
            if real:
                return f"lies in the data directory of a database ({directory / mark} exists); name another directory"
    return None


def _dagster_problem(root: Path, dagster_home: Path | None, *, recursive: bool) -> str | None:
    for home in _both_names(dagster_home) if dagster_home else ():
        if _is_at_or_above(home, root):
            return f"lies in Dagster's storage (DAGSTER_HOME is {dagster_home}); name a directory outside it"
        if recursive and _is_at_or_above(root, home):
            return f"holds Dagster's storage (DAGSTER_HOME is {dagster_home}); name a directory that does not"
    return None


class Territory(Protocol):
    """What a target lays claim to."""

    @property
    def name(self) -> str:
        """Who lays the claim."""
        ...

    @property
    def root(self) -> Path:
        """The directory."""
        ...

    @property
    def patterns(self) -> tuple[str, ...]:
        """What is claimed in it."""
        ...

    @property
    def excludes(self) -> tuple[str, ...]:
        """What is left to others."""
        ...

    @property
    def recursive(self) -> bool:
        """Whether the claim extends to what lies deeper."""
        ...


def overlap(one: Territory, other: Territory) -> str | None:
    """Return how two targets could both take one file and what would keep them apart, or None when they cannot."""
    outer, inner = (one, other) if _is_at_or_above(one.root, other.root) else (other, one)
    if not _is_at_or_above(outer.root, inner.root):
        return None
    same = outer.root == inner.root
    below = inner.root.relative_to(outer.root).as_posix()
    if not same and (not outer.recursive or _excludes_directory(outer.excludes, below)):
        return None
    for pattern in outer.patterns:
        for opposite in inner.patterns:
            if patterns_disjoint(pattern, opposite):
                continue
            if same and (pattern in inner.excludes or opposite in outer.excludes):
                continue
            way = (
                _way_out(pattern, opposite, outer.name, inner.name)
                if same
                else _exclusion(glob.escape(below) + "/**", outer.name)
            )
            return (
                f"{one.name!r} ({one.root}) overlaps {other.name!r} ({other.root}): {pattern!r} of {outer.name!r} and "
                f"{opposite!r} of {inner.name!r} could take the same file; {way}choose patterns that cannot"
            )
    return None


def _exclusion(pattern: str, target: str) -> str:
    return f"add {pattern!r} to the excludes of {target!r}, or "


def _way_out(pattern: str, opposite: str, target: str, other: str) -> str:
    """Return the advice to leave the narrower of two patterns to its target; there is none when they are the same."""
    if pattern == opposite:
        return ""
    narrower = max(pattern, opposite, key=lambda text: sum(map(len, _literal_ends(text))))
    return _exclusion(narrower, target if narrower == opposite else other)


def _excludes_directory(excludes: tuple[str, ...], below: str) -> bool:
    """Return whether `excludes` name the directory `below` or one that leads to it, as a whole."""
    parts = below.split("/")
    for end in range(1, len(parts) + 1):
        path = "/".join(parts[:end])
        names = {glob.escape(path)} | ({path} if _is_literal(path) else set[str]())
        if any(exclude.removesuffix("/**") in names for exclude in excludes):
            return True
    return False


def _is_literal(path: str) -> bool:
    return not (_GLOB_SPECIAL | _NEVER_LITERAL - {"/"}) & set(path) and not path.startswith("-")


def patterns_disjoint(one: str, other: str) -> bool:
    """Return True only when no file name can match both patterns, judged by their literal beginnings and ends.

    Patterns with a directory in them, alternatives or escapes are never called disjoint. Case is ignored, because the
    file system may.
    """
    (head, tail), (other_head, other_tail) = _literal_ends(one), _literal_ends(other)
    heads_agree = head.startswith(other_head) or other_head.startswith(head)
    tails_agree = tail.endswith(other_tail) or other_tail.endswith(tail)
    return not (heads_agree and tails_agree)


def _literal_ends(pattern: str) -> tuple[str, str]:
    if _NEVER_LITERAL & set(pattern) or pattern.startswith("-"):
        return "", ""
    text = pattern.casefold()
    special = [index for index, char in enumerate(text) if char in _GLOB_SPECIAL]
    return (text[: special[0]], text[special[-1] + 1 :]) if special else (text, text)
