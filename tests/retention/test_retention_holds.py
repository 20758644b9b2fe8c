import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cleanup_dagster.retention.holds import HoldMatcher, reaches
from cleanup_dagster.retention.models import Hold

NOW = 1_000


def holds(pattern: str, path: str, root: str = "/") -> bool:
    matcher = HoldMatcher([Hold(1, pattern, "audit")], root, NOW)
    return matcher.first_match(path.removeprefix("/"), "dbt_logs", None) is not None


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/data/a.json", "/data/a.json"),
        ("/data/logs", "/data/logs/deep/a.log"),
        ("/data/logs/", "/data/logs/a.log"),
        ("/data/logs//", "/data/logs/a.log"),
        ("/data/./logs", "/data/./logs"),
        ("/data/*.json", "/data/a.json"),
        ("/data/*.json", "/data/.hidden.json"),
        ("/data/*", "/data/.hidden"),
        ("/data/*", "/data/below/a.json"),
        ("/data/*/", "/data/below/a.json"),
        ("/data/?.json", "/data/a.json"),
        ("/data/[ab].json", "/data/b.json"),
        ("/data/[!ab].json", "/data/c.json"),
        ("/data/[[:digit:]].json", "/data/7.json"),
        ("/data/**/a.json", "/data/a.json"),
        ("/data/**/a.json", "/data/x/.y/a.json"),
        ("/data/**", "/data/x/y"),
        ("**", "/a"),
        ("**", "/.a/..b/c"),
        ("**/a.json", "/a.json"),
        ("**/a.json", "/data/x/a.json"),
        ("**/logs", "/data/logs/a.log"),
        ("/**/a.json", "/data/a.json"),
        ("/", "/data/a.json"),
        ("/data/a**b", "/data/axyb"),
    ],
)
def test_a_hold_covers(pattern: str, path: str) -> None:
    assert holds(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/data/a.json", "/data/a.json5"),
        ("/data/a.json", "/other/data/a.json"),
        ("/data/a.json", "/data/aXjson"),
        ("/data/a.json", "/data/A.json"),
        ("/data/logs", "/data/logs2/a.log"),
        ("/data/logs/", "/data/logs2"),
        ("/data/*.json", "/data/x/a.json"),
        ("/data/*.json", "/data/a.json5"),
        ("/*/a.json", "/data/x/a.json"),
        ("/data/?.json", "/data//.json"),
        ("/data/a*b", "/data/a/b"),
        ("/data/a**b", "/data/a/b"),
        ("/data/a?b", "/data/a/b"),
        ("/data/a[/]b", "/data/a/b"),
        ("/data/**/a.json", "/database/a.json"),
        ("**/a.json", "/data/ba.json"),
        ("a.json", "/data/a.json"),
        ("data/a.json", "/data/a.json"),
        ("/data/[!a].json", "/data/a.json"),
    ],
)
def test_a_hold_does_not_cover(pattern: str, path: str) -> None:
    assert not holds(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/data/{a,b}", "/data/a"),
        ("/data/{1..3}", "/data/2"),
        ("/data/@(a|b)", "/data/a"),
        ("/data/+(a)", "/data/aa"),
        ("/data/!(a)", "/data/b"),
        ("/data/a|/data/b", "/data/b"),
        ("!/data/a", "/data/b"),
        ("-/data/a", "/data/b"),
        ("~", "/root"),
        ("/data/.*", "/data/ab"),
        ("/data/a+", "/data/aa"),
        ("/data/(a|b)", "/data/a"),
        ("/data/^a$", "/data/a"),
    ],
)
def test_braces_extended_globs_negation_and_regular_expressions_mean_themselves(pattern: str, path: str) -> None:
    assert not holds(pattern, path)
    assert holds(f"/data/{pattern}", f"/data/{pattern}")


@pytest.mark.parametrize(
    "path",
    [
        "/data/a[1].json",
        "/data/[",
        "/data/]",
        "/data/[!a]*",
        "/data/[z-a]",
        "/data/[]",
        "/data/[[:nothing:]]",
        "/data/[a/b]",
        "/data/*",
        "/data/**",
        "/data/***",
        "/data/?",
        "/data/(?P<x>",
        "/data/a\\u000ab",
        "/data/a\\xffb",
        "/data/a\\\\b",
        "/data/[\\u000a]",
        "/data/[\\",
        "/data/\\[",
        "/data/\\Q\\E\\1\\Z",
        "/data/a b ",
        "/data/-",
        "/data/#x",
        "/data/(?#",
        "/data/\U0001f600",
    ],
)
def test_an_exact_path_holds_itself_and_what_is_below(path: str) -> None:
    assert holds(path, path)
    assert holds(path + "/", path)
    assert holds(path, path + "/below/a.json")
    assert holds(path, path + "/below/a\nb.json")


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/data/a\\u000a*", "/data/a\\u000ab"),
        ("/data/a\\u000a?", "/data/a\\u000ab"),
        ("/data/a\\\\*.json", "/data/a\\\\b.json"),
        ("/data/*\\u000ab/[ab]", "/data/x\\u000ab/a"),
    ],
)
def test_a_glob_may_hold_escapes_of_the_text_form(pattern: str, path: str) -> None:
    assert holds(pattern, path)
    assert not holds(pattern, path.replace("\\", "", 1))


def test_a_backslash_takes_no_star_its_meaning() -> None:
    assert holds("/data/\\*", "/data/\\x")
    assert not holds("/data/\\*", "/data/x")


segments = st.text(st.characters(exclude_characters="/"), min_size=1, max_size=12) | st.text(
    st.sampled_from("[]!^*?\\-{}(),|.a~#&:"), min_size=1, max_size=12
)
paths = st.lists(segments, min_size=1, max_size=5).map("/".join)


@given(paths)
@example("[[")
@example("\\")
@example("a\n")
@example("[\\]]")
def test_any_exact_path_holds_itself(path: str) -> None:
    assert holds(f"/{path}", path)
    assert holds(f"/data/{path}", path, root="/data")
    assert holds(f"/data/{path}/", path, root="/data/")


@given(paths)
def test_two_stars_hold_everything_that_a_walk_can_meet(path: str) -> None:
    if not {".", ".."} & set(path.split("/")):
        assert holds("**", path)
        assert holds("/data/**", path, root="/data")
        assert holds("/data", path, root="/data")


@given(st.text() | paths, paths)
def test_any_pattern_compiles_and_answers(pattern: str, path: str) -> None:
    assert holds(pattern, path) in (True, False)


@given(paths.filter(lambda path: ".json" not in path), segments)
def test_one_star_never_crosses_a_slash(path: str, name: str) -> None:
    assert not holds("/data/*.json", f"data/{path}/{name}.json")


@pytest.mark.parametrize(
    "pattern",
    ["/" + "x" * 100_000, "/" + "[x]" * 5_000, "/" + "*" * 50_000, "/" + "**/" * 500 + "x", "/" + "\\" * 20_000],
    ids=["letters", "brackets", "stars", "globstars", "backslashes"],
)
def test_an_extremely_long_pattern_is_quick(pattern: str) -> None:
    began = time.process_time()
    assert holds(pattern, pattern)
    assert not holds(pattern + "/nothing", "/z/y/x" + "w" * 250)
    assert time.process_time() - began < 20


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/d/**/a*/**/a*/**/a*/**/a*/**/a*/**/b", "/d" + "/aaaaaaaaaaaa" * 60),
        ("/d/" + "*a" * 20 + "*b", "/d/" + "a" * 255),
        ("/d/" + "*a" * 20 + "**b/c", "/d/" + "a" * 255 + "/c"),
    ],
)
def test_a_slow_pattern_that_was_placed_by_sql_is_quick_and_holds_rather_more(pattern: str, path: str) -> None:
    began = time.process_time()
    assert holds(pattern, path)
    assert not holds(pattern, "/elsewhere" + path)
    assert time.process_time() - began < 2


@given(st.lists(st.sampled_from(["a", "b", "*", "a*b*a*b*", "*a*a*a*a*", "**", "a**b"]), min_size=1, max_size=9), paths)
def test_what_is_widened_holds_whatever_it_held(parts: list[str], path: str) -> None:
    pattern = "/" + "/".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cleanup_dagster.retention.holds._STARS_MAX", 99)
        patch.setattr("cleanup_dagster.retention.holds._DEEP_MAX", 99)
        strictly = holds(pattern, path)
    assert holds(pattern, path) or not strictly


@pytest.mark.parametrize("root", ["/data", "/data/", "/data//"])
def test_a_path_is_relative_to_the_root(root: str) -> None:
    assert holds("/data/logs/a.log", "logs/a.log", root)
    assert not holds("/logs/a.log", "logs/a.log", root)


@pytest.mark.parametrize(("until_ns", "held"), [(None, True), (NOW + 1, True), (NOW, False), (NOW - 1, False)])
def test_a_hold_ends_at_its_moment(until_ns: int | None, held: bool) -> None:
    matcher = HoldMatcher([Hold(1, "**", "audit", until_ns=until_ns)], "/", NOW)
    assert (matcher.first_match("a", "dbt_logs", None) is not None) is held


@pytest.mark.parametrize(
    ("hold_type", "hold_pipeline", "data_type", "pipeline", "held"),
    [
        (None, None, "dbt_logs", None, True),
        ("dbt_logs", None, "dbt_logs", "daily", True),
        ("dbt_logs", None, "temp_files", "daily", False),
        (None, "daily", "temp_files", "daily", True),
        (None, "daily", "temp_files", "weekly", False),
        (None, "daily", "temp_files", None, False),
        ("dbt_logs", "daily", "dbt_logs", "daily", True),
        ("dbt_logs", "daily", "dbt_logs", "weekly", False),
        ("dbt_logs", "daily", "temp_files", "daily", False),
        (None, "x" * 300, "dbt_logs", "x" * 200, True),
    ],
)
def test_a_hold_may_be_for_a_data_type_or_a_pipeline(
    hold_type: str | None, hold_pipeline: str | None, data_type: str, pipeline: str | None, held: bool
) -> None:
    matcher = HoldMatcher([Hold(1, "**", "audit", hold_type, hold_pipeline)], "/", NOW)
    assert (matcher.first_match("a", data_type, pipeline) is not None) is held


def test_a_data_types_hold_still_needs_its_path() -> None:
    matcher = HoldMatcher([Hold(1, "/data/a", "audit", "dbt_logs", "daily")], "/data", NOW)
    assert matcher.first_match("b", "dbt_logs", "daily") is None


def test_the_first_hold_that_covers_is_named() -> None:
    patterns = [Hold(1, "/x", ""), Hold(2, "**", "", "temp_files"), Hold(3, "/a", ""), Hold(4, "**", "")]
    matcher = HoldMatcher(patterns, "/", NOW)
    assert matcher.first_match("a", "dbt_logs", None) == patterns[2]
    assert matcher.first_match("b", "dbt_logs", None) == patterns[3]
    assert matcher.first_match("a", "temp_files", None) == patterns[1]


def test_without_holds_nothing_is_held() -> None:
    assert HoldMatcher([], "/", NOW).first_match("a", "dbt_logs", None) is None


@pytest.mark.parametrize(
    ("pattern", "root", "reached"),
    [
        ("/data/logs/a.log", "/data/logs", True),
        ("/data/logs/yet/to/come", "/data/logs", True),
        ("/data", "/data/logs", True),
        ("//data/./logs/", "/data/logs", True),
        ("/", "/data/logs", True),
        ("**", "/data/logs", True),
        ("**/a.log", "/data/logs", True),
        ("/data/**/a.log", "/data/logs", True),
        ("/data/lo?s/*.log", "/data/logs", True),
        ("/*/logs", "/data/logs", True),
        ("/data/[l]ogs/a", "/data/[l]ogs", True),
        ("/dagster_runs/*/sales/**", "/dagster_runs", True),
        ("/data/log", "/data/logs", False),
        ("/data/logs2", "/data/logs", False),
        ("/data/LOGS/a.log", "/data/logs", False),
        ("/data/*.json", "/data/logs", False),
        ("/other/**", "/data/logs", False),
        ("/logs/a.log", "/data/logs", False),
        ("/*/other/**", "/data/logs", False),
    ],
)
def test_which_directories_a_pattern_reaches(pattern: str, root: str, reached: bool) -> None:
    assert reaches(pattern, root) is reached


_NAMES = st.sampled_from(["a", "b", "ab", "[a]", "*", "?", "a*", "**", "a**", "[!b]"])
_PATHS = st.lists(st.sampled_from(["a", "b", "ab", "[a]"]), min_size=2, max_size=4)


@given(st.lists(_NAMES, min_size=1, max_size=4), _PATHS)
def test_whoever_holds_something_reaches_it(pattern: list[str], path: list[str]) -> None:
    root = "/" + path[0]
    held = holds("/" + "/".join(pattern), "/".join(path[1:]), root)
    assert reaches("/" + "/".join(pattern), root) or not held
