"""What goes to the terminal: results to stdout, everything about how they came about to stderr.

A reader that went away (`| head -1`) never stops or fails what is being done: what it does not want is not written.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from cleanup_dagster.cli.pages import Page, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_GONE = frozenset({errno.EPIPE, errno.ESHUTDOWN})


class Stream:
    """A text stream that survives its reader. `problem` says why something could not be written, if anything."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._open = True
        self.problem = ""

    @property
    def encoding(self) -> str:
        """What the stream writes in."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Say whether somebody looks at it."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write, unless nobody reads any more."""
        if self._open:
            try:
                self._stream.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
            except OSError as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Bring to the reader what was written."""
        if self._open:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._open = False
        if error.errno not in _GONE:
            self.problem = error.strerror or str(error)
        # What is still in the buffer would fail again when the interpreter ends.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


class Output:
    """Both streams of a command. With `as_json` stdout takes one document and nothing else."""

    def __init__(self, stdout: TextIO, stderr: TextIO, *, as_json: bool) -> None:
        self.stdout = Stream(stdout)
        self.stderr = Stream(stderr)
        self.as_json = as_json
        #: Whether the one document has begun: an error after that must not write a second one.
        self.begun = False
        #: What is true should Ctrl-C end the command now; a command says here when that is no longer so.
        self.if_interrupted = "nothing was changed"
        #: Results, for people, and what is not part of a result: questions, and plans to be confirmed.
        self.page = Page(self.stdout)
        self.aside = Page(self.stderr)

    def say(self, text: str = "") -> None:
        """Write a line of the result, however long."""
        self.stdout.write(f"{visible(text)}\n")

    def note(self, text: str) -> None:
        """Write a line about how things go."""
        self.aside.print(text)
        self.stderr.flush()

    def document(self, content: Mapping[str, object], rows: tuple[str, Iterable[object]] | None = None) -> None:
        """Write the one JSON document of a command. `rows`, a key and its list, are written as they come."""
        text = json.dumps(content, indent=2)
        self.begun = True
        if rows is None:
            self.say(text)
            return
        name, items = rows
        self.stdout.write(f"{text[:-2]},\n  {json.dumps(name)}: [")
        between = "\n    "
        for item in items:
            self.stdout.write(f"{between}{json.dumps(item)}")
            between = ",\n    "
        self.say("\n  ]\n}")

    def flush(self) -> str:
        """Bring everything to its readers, and return why the result could not be written, if it could not."""
        self.stdout.flush()
        self.stderr.flush()
        return self.stdout.problem
