"""Asking a person, and refusing where there is none to ask."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cleanup_dagster.cli.exits import CliError

if TYPE_CHECKING:
    from cleanup_dagster.cli.output import Output


def require_terminal(out: Output, what: str, way: str = "use --yes in scripts") -> None:
    """Refuse to go on where nobody could answer. To be called before anything is opened."""
    if not (sys.stdin.isatty() and out.stderr.isatty()):
        raise CliError(f"{what} asks for confirmation, and there is no terminal to ask on; {way}. Nothing was changed.")


def confirm(out: Output, question: str) -> None:
    """Ask. Raises CliError unless the answer is yes."""
    _require(_answer(out, f"{question} [y/N]: ").lower() in {"y", "yes"})


def confirm_by_word(out: Output, word: str, what: str) -> None:
    """Ask for a word to be typed in full. Raises CliError unless it is."""
    _require(_answer(out, f"Type the word {word} to {what}: ") == word)


def _answer(out: Output, question: str) -> str:
    """Ask on stderr: stdout belongs to the result (`input` and click would write to it)."""
    out.stderr.write(question)
    out.stderr.flush()
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):  # the input ended, and the cursor stands behind the question
        out.stderr.write("\n")
    return answer.strip()


def _require(agreed: bool) -> None:
    if not agreed:
        raise CliError("Not confirmed; nothing was changed.")
