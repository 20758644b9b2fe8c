"""Sentences and tables for people, within the width of what they look at, in colour where they may see it.

Written out here because importing a library for it took longer than reading the policies from the database.
"""

from __future__ import annotations

import os
import textwrap
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WIDTH = 80
_MOST = 100  # wider lines than this are hard to read
_LEAST = 12  # of a column of text that has to give way
_GAP = "  "
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


def visible(text: str) -> str:
    """Return the text with whatever could take over a terminal written out: a reason or a name may be anybody's."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)


class Paper(Protocol):
    """Where a page is written to."""

    @property
    def encoding(self) -> str:
        """What it takes."""
        ...

    def isatty(self) -> bool:
        """Say whether somebody looks at it."""
        ...

    def fileno(self) -> int:
        """Return its descriptor."""
        ...

    def write(self, text: str) -> int:
        """Write to it."""
        ...


class Page:
    """One of the two streams, as people read it."""

    def __init__(self, paper: Paper) -> None:
        self._paper = paper

    @property
    def width(self) -> int:
        """How many columns a line may have."""
        with suppress(KeyError, ValueError):
            return min(max(int(os.environ["COLUMNS"]), _LEAST), _MOST)
        if self._paper.isatty():
            with suppress(OSError, ValueError):
                return min(os.get_terminal_size(self._paper.fileno()).columns or _WIDTH, _MOST)
        return _WIDTH

    def print(self, text: str = "", style: str = "", indent: int = 0) -> None:
        """Write sentences; on a terminal they break between words, and go on `indent` columns in."""
        lines = visible(text).split("\n")
        if self._paper.isatty():
            lines = [piece for line in lines for piece in _broken(line, self.width, indent)]
        for line in lines:
            self._paper.write(f"{self.styled(line, style)}\n")

    def styled(self, text: str, style: str) -> str:
        """Return the text in a style, where that is welcome (https://no-color.org)."""
        if not style or not text or not self._paper.isatty() or os.environ.get("NO_COLOR"):
            return text
        return text if os.environ.get("TERM") == "dumb" else f"\x1b[{_STYLES[style]}m{text}\x1b[0m"

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write a table that fits; a column whose title begins with `>` is set to the right and never broken."""
        titles = [title.removeprefix(">") for title in columns]
        right = [title.startswith(">") for title in columns]
        cells = [titles, *([visible(cell) for cell in row] for row in rows)]
        widths = _fitting([max(map(len, column)) for column in zip(*cells, strict=True)], right, self.width)
        rule = "\u2500" if "utf" in self._paper.encoding.lower() else "-"
        for number, row in enumerate(cells):
            for line in _lines(row, widths, right):
                self._paper.write(f"{self.styled(line, '' if number else 'bold')}\n")
            if not number:
                self._paper.write(f"{rule * (sum(widths) + len(_GAP) * (len(widths) - 1))}\n")


def _broken(line: str, width: int, indent: int) -> list[str]:
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,  # a path or a command stays whole, to be copied
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    ) or [""]


def _fitting(widths: list[int], right: Sequence[bool], width: int) -> list[int]:
    """Take what is too much from the widest columns of text, one column of the screen at a time."""
    room = width - len(_GAP) * (len(widths) - 1)
    while sum(widths) > room:
        text = [column for column, number in enumerate(right) if not number and widths[column] > _LEAST]
        if not text:
            break
        widths[max(text, key=lambda column: widths[column])] -= 1
    return widths


def _lines(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> list[str]:
    pieces = [
        [cell] if number else (textwrap.wrap(cell, width, break_on_hyphens=False) or [""])
        for cell, width, number in zip(row, widths, right, strict=True)
    ]
    height = max(map(len, pieces))
    return [
        _GAP.join(
            (f"{text:>{width}}" if number else f"{text:<{width}}")
            for text, width, number in (
                (column[line] if line < len(column) else "", width, number)
                for column, width, number in zip(pieces, widths, right, strict=True)
            )
        ).rstrip()
        for line in range(height)
    ]
