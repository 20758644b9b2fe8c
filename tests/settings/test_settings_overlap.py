"""Two targets that could take one file are refused; those that provably cannot are not."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wcmatch import glob

from cleanup_dagster.roots import overlap, patterns_disjoint

#: As the collectors compile patterns, and everything else that a pattern could mean to another dialect.
_DIALECTS = (
    glob.GLOBSTAR | glob.DOTMATCH | glob.CASE | glob.FORCEUNIX | glob.MATCHBASE,
    glob.GLOBSTAR | glob.DOTMATCH | glob.IGNORECASE | glob.FORCEUNIX | glob.MATCHBASE,
    glob.GLOBSTAR
    | glob.DOTMATCH
    | glob.FORCEUNIX
    | glob.MATCHBASE
    | glob.EXTGLOB
    | glob.BRACE
    | glob.SPLIT
    | glob.NEGATE
    | glob.NEGATEALL
    | glob.MINUSNEGATE,
)
#: Pieces that collide often.
_PIECES = st.sampled_from(
    [
        *"abAB.-_~!",
        "op",
        "op_",
        ".json",
        ".JSON",
        "*",
        "**",
        "?",
        "[ab]",
        "[!a]",
        "[a",
        "]",
        "{a,b}",
        "{",
        "}",
        "@(a|b)",
        "+(a)",
        "!(a)",
        "|",
        "\\",
        "\\*",
        "/",
        "(",
        ")",
        "ß",
        "\u017f",
    ]
)
_PATTERNS = st.lists(_PIECES, min_size=1, max_size=5).map("".join)
_NAMES = st.lists(st.sampled_from([*"abAB.-_~!(){}[]|*", "op", "op_", ".json", "ß", "ss"]), min_size=1, max_size=6).map(
    "".join
)


@given(_PATTERNS, _PATTERNS, st.lists(_NAMES, min_size=1, max_size=12), st.sampled_from(_DIALECTS))
@settings(max_examples=300)
@example("op_*.json", "*.json", ["op_a.json"], _DIALECTS[0])
@example("a*|b*", "b*", ["ba"], _DIALECTS[2])
@example("!a", "b", ["b"], _DIALECTS[2])
@example("-a", "b", ["b"], _DIALECTS[2])
@example("A*", "a*", ["a"], _DIALECTS[1])
@example("a/b", "*", ["b"], _DIALECTS[0])
def test_no_name_ever_matches_two_disjoint_patterns(one: str, other: str, names: list[str], flags: int) -> None:
    first, second = glob.compile(one, flags=flags), glob.compile(other, flags=flags)
    if any(first.match(name) and second.match(name) for name in names):
        assert not patterns_disjoint(one, other)


@given(
    st.text("ab._", max_size=4),
    st.text("ab._", max_size=4),
    st.text("ab._", max_size=4),
    st.text("ab._", max_size=4),
    st.text("ab._", max_size=8),
)
@settings(max_examples=300)
def test_names_made_to_match(head: str, tail: str, other_head: str, other_tail: str, middle: str) -> None:
    name = head + middle + tail
    if name.startswith(other_head) and name.endswith(other_tail) and len(name) >= len(other_head) + len(other_tail):
        assert not patterns_disjoint(f"{head}*{tail}", f"{other_head}*{other_tail}")


@pytest.mark.parametrize(
    ("one", "other", "disjoint"),
    [
        ("operation_*.json", "*.tmp", True),
        ("operation_*.json", "result_*", True),
        ("a.json", "b.json", True),
        ("operation_*.json", "*", False),
        ("operation_*.json", "*.json", False),
        ("operation_*.json", "op*", False),
        ("*.log", "*.log", False),
        ("*.LOG", "*.log", False),
        ("*.log", "a/*.tmp", False),
        ("*.[ab]", "*.b", False),
        ("[a]*", "b*", False),
        ("\\a", "a", False),
        ("{a,b}", "a", False),
        ("x{a,b}", "xa", False),
    ],
)
def test_disjointness(one: str, other: str, *, disjoint: bool) -> None:
    assert patterns_disjoint(one, other) is disjoint
    assert patterns_disjoint(other, one) is disjoint


@dataclass(frozen=True)
class Claim:
    name: str
    root: Path
    patterns: tuple[str, ...] = ("*",)
    excludes: tuple[str, ...] = ()
    recursive: bool = True


def claim(name: str, root: str, *patterns: str, excludes: tuple[str, ...] = (), recursive: bool = True) -> Claim:
    return Claim(name, Path(root), patterns or ("*",), excludes, recursive)


@pytest.mark.parametrize(
    ("one", "other", "overlapping"),
    [
        (claim("a", "/d"), claim("b", "/d"), True),
        (claim("a", "/d"), claim("b", "/d/x"), True),
        (claim("a", "/d"), claim("b", "/d/x/y", recursive=False), True),
        (claim("a", "/d"), claim("b", "/dx"), False),
        (claim("a", "/d/x"), claim("b", "/d/y"), False),
        (claim("a", "/d", recursive=False), claim("b", "/d/x"), False),
        (claim("a", "/d", recursive=False), claim("b", "/d", recursive=False), True),
        (claim("a", "/d", "*.log", "*.tmp"), claim("b", "/d/x", "*.json"), False),
        (claim("a", "/d", "*.log", "*.tmp"), claim("b", "/d/x", "*.json", "a*"), True),
        (claim("a", "/d", excludes=("x/**",)), claim("b", "/d/x"), False),
        (claim("a", "/d", excludes=("x",)), claim("b", "/d/x"), False),
        (claim("a", "/d", excludes=("x",)), claim("b", "/d/x/y"), False),
        (claim("a", "/d", excludes=("x/y/**",)), claim("b", "/d/x/y"), False),
        (claim("a", "/d", excludes=("x/*",)), claim("b", "/d/x"), True),
        (claim("a", "/d", excludes=("y/**",)), claim("b", "/d/x/y"), True),
        (claim("a", "/d", excludes=("x[1]/**",)), claim("b", "/d/x[1]"), True),
        (claim("a", "/d", excludes=("x\\[1\\]/**",)), claim("b", "/d/x[1]"), False),
        (claim("a", "/d"), claim("b", "/d/x", excludes=("x/**",)), True),
        (claim("a", "/d", excludes=("*.log",)), claim("b", "/d", "*.log"), False),
        (claim("a", "/d", excludes=("*.log",)), claim("b", "/d/x", "*.log"), True),
        (claim("a", "/d", excludes=("*.log",)), claim("b", "/d", "*.log", "*.x"), True),
        (claim("a", "/d", excludes=("*.log",)), claim("b", "/d", "*.log", excludes=("*",)), False),
    ],
)
def test_overlap(one: Claim, other: Claim, *, overlapping: bool) -> None:
    assert (overlap(one, other) is not None) is overlapping
    assert (overlap(other, one) is not None) is overlapping


def test_the_words_and_that_they_help() -> None:
    outer, inner = claim("outer", "/d"), claim("inner", "/d/x[1]/y", "*.log")
    assert overlap(outer, inner) == (
        "'outer' (/d) overlaps 'inner' (/d/x[1]/y): '*' of 'outer' and '*.log' of 'inner' could take the same file; "
        "add 'x\\\\[1\\\\]/y/**' to the excludes of 'outer', or choose patterns that cannot"
    )
    helped = claim("outer", "/d", excludes=("x\\[1\\]/y/**",))
    assert overlap(helped, inner) is None
    assert overlap(claim("a", "/d"), claim("b", "/d", "*.log")) == (
        "'a' (/d) overlaps 'b' (/d): '*' of 'a' and '*.log' of 'b' could take the same file; "
        "add '*.log' to the excludes of 'a', or choose patterns that cannot"
    )
    assert overlap(claim("b", "/d", "*.log"), claim("a", "/d")) == (
        "'b' (/d) overlaps 'a' (/d): '*.log' of 'b' and '*' of 'a' could take the same file; "
        "add '*.log' to the excludes of 'a', or choose patterns that cannot"
    )
    assert overlap(claim("a", "/d"), claim("b", "/d")) == (
        "'a' (/d) overlaps 'b' (/d): '*' of 'a' and '*' of 'b' could take the same file; choose patterns that cannot"
    )
