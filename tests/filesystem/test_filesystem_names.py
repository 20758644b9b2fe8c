"""Names as text: reversible for every name Linux allows, harmless everywhere."""

import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cleanup_dagster.filesystem.names import split, to_os, to_text

BYTES = st.binary(min_size=1, max_size=255).map(lambda raw: raw.replace(b"/", b"\\").replace(b"\0", b"x"))


@given(BYTES)
@example(b"\xff\xfe")
@example(b"\\x41")
@example("\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe".encode())
@example("\U000e0001".encode())
@settings(deadline=None)
def test_every_name_survives_the_round_trip(raw: bytes) -> None:
    text = to_text(os.fsdecode(raw))
    assert os.fsencode(to_os(text)) == raw


@given(BYTES)
@settings(deadline=None)
def test_the_text_is_printable_and_utf_8(raw: bytes) -> None:
    text = to_text(os.fsdecode(raw))
    assert text.isprintable()
    assert text.encode("utf-8").decode("utf-8") == text
    assert "\n" not in text
    assert "\x1b" not in text


@given(BYTES, BYTES)
@settings(deadline=None)
def test_different_names_have_different_texts(one: bytes, other: bytes) -> None:
    assert (to_text(os.fsdecode(one)) == to_text(os.fsdecode(other))) == (one == other)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"operation_1.json", "operation_1.json"),
        ("Größe 日本.log".encode(), "Größe 日本.log"),
        (b"a\nb", r"a\u000ab"),
        (b"\x1b[31mred", r"\u001b[31mred"),
        (b"back\\slash", r"back\\slash"),
        (b"caf\xe9", r"caf\xe9"),
        ("\u202egpj".encode(), r"\u202egpj"),
        ("\U000e0001".encode(), r"\U000e0001"),
        ("a\u00a0b".encode(), r"a\u00a0b"),
    ],
)
def test_what_people_see(raw: bytes, text: str) -> None:
    assert to_text(os.fsdecode(raw)) == text


@pytest.mark.parametrize(
    "text",
    [
        r"a\q",
        "a\\",
        r"a\x4",
        r"a\u12",
        r"a\XFF",
        r"a\uD800",
        # Escapes of what is never escaped: a slash or a dot that no check had seen.
        r"a\u002f..\u002f..\u002fetc",
        r"\u002e\u002e",
        r"\x2e\x2e",
        r"\x41",
        r"\u0041",
        r"\U0000000a",
        # What no name can hold.
        r"a\u0000b",
        r"\ud800",
        r"\Uffffffff",
        r"\U00110000",
        r"\xc3\xa9",
    ],
)
def test_no_other_escape_is_read(text: str) -> None:
    with pytest.raises(ValueError, match="escape"):
        to_os(text)


@given(st.text(alphabet=st.sampled_from("\\xuU0123456789abcdf/.é"), max_size=20))
@settings(deadline=None, max_examples=500)
def test_what_is_read_is_what_would_be_written(text: str) -> None:
    try:
        name = to_os(text)
    except ValueError:
        return
    assert to_text(name) == text
    assert name.count("/") == text.count("/")


@pytest.mark.parametrize(
    ("path", "directory", "name"), [("a", "", "a"), ("a/b", "a", "b"), ("a/b/c.log", "a/b", "c.log")]
)
def test_split(path: str, directory: str, name: str) -> None:
    assert split(path) == (directory, name)
