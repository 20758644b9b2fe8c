"""File names as text that is safe everywhere: in JSON, databases, logs, terminals and pages.

A Linux name is any bytes but `/` and NUL. Python hands undecodable bytes over as lone surrogates, which no UTF-8
encoder takes; control and bidirectional characters take over terminals and pages. `to_text` writes all of them as
escapes and `to_os` reads them back, so a name crosses this boundary once, and nothing beyond it can be hurt by it.
"""

import os
import re

_ESCAPE = re.compile(r"\\(?:(\\)|x([0-9a-f]{2})|u([0-9a-f]{4})|U(00(?:0[0-9a-f]|10)[0-9a-f]{4}))")
_SURROGATE_BASE = 0xDC00


def to_text(name: str) -> str:
    r"""Return the reversible, printable text form of a name or path from the operating system (`a\u000ab`)."""
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(_escaped(character) for character in name)


def to_os(text: str) -> str:
    r"""Return the operating system's name for a text form.

    Raises ValueError on an escape `to_text` never writes: `\u002f` would otherwise be a `/` that no check had seen.
    """
    if "\\" not in text:
        return text
    name = _unescape(text)
    if to_text(name) != text or not _is_name(name):
        raise ValueError(f"{text!r} holds an escape of a character that is never escaped, or that no name can hold")
    return name


def _is_name(text: str) -> bool:
    try:
        return "\0" not in text and os.fsdecode(os.fsencode(text)) == text
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        return False


def _unescape(text: str) -> str:
    pieces: list[str] = []
    position = 0
    while (backslash := text.find("\\", position)) >= 0:
        escape = _ESCAPE.match(text, backslash)
        if escape is None:
            raise ValueError(f"{text!r} holds a backslash that begins no escape; write a literal one as \\\\")
        pieces += [text[position:backslash], _unescaped(escape)]
        position = escape.end()
    pieces.append(text[position:])
    return "".join(pieces)


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    code = ord(character)
    if _SURROGATE_BASE + 0x80 <= code <= _SURROGATE_BASE + 0xFF:
        return f"\\x{code - _SURROGATE_BASE:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _unescaped(escape: re.Match[str]) -> str:
    backslash, byte, short, long = escape.groups()
    if backslash:
        return "\\"
    if byte:
        return chr(_SURROGATE_BASE + int(byte, 16))
    return chr(int(short or long, 16))


def split(path: str) -> tuple[str, str]:
    """Return the directory (empty for the root itself) and the name of a relative path."""
    directory, _, name = path.rpartition("/")
    return directory, name
