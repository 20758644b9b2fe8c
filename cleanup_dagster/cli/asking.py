"""Asking a person, and refusing where there is none to ask."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from cleanup_dagster.cli.exits import CliError

if TYPE_CHECKING:
    from cleanup_dagster.cli.output import Output

_NOT_CONFIRMED = "Not confirmed; nothing was changed."


def require_terminal(out: Output, what: str, way: str = "use --yes in scripts") -> None:
    """Refuse to go on where nobody could answer. To be called before anything is opened."""
    if not (sys.stdin.isatty() and out.stderr.isatty()):
        raise CliError(f"{what} asks for confirmation, and there is no terminal to ask on; {way}. Nothing was changed.")


def confirm(out: Output, question: str) -> None:
    """Ask, on stderr. Raises CliError unless the answer is yes."""
    out.stderr.flush()
    if not click.confirm(question, default=False, err=True):
        raise CliError(_NOT_CONFIRMED)


def confirm_by_word(out: Output, word: str, what: str) -> None:
    """Ask for a word to be typed in full. Raises CliError unless it is."""
    out.stderr.flush()
    answer = str(click.prompt(f"Type the word {word} to {what}", default="", show_default=False, err=True))
    if answer.strip() != word:
        raise CliError(_NOT_CONFIRMED)
