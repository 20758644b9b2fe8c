"""One invocation of a command: whatever happens becomes a message and an exit code."""

from __future__ import annotations

import gc
import json
import os
import sys
import warnings
from typing import TYPE_CHECKING

import click

from cleanup_dagster.cli import exits
from cleanup_dagster.cli.app import root
from cleanup_dagster.cli.options import Context
from cleanup_dagster.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "cleanup-operations"


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. The environment is afterwards what it was before."""
    # Collecting garbage while modules are imported finds none and takes a tenth of the time. `Session` turns it on.
    gc.disable()
    given = list(arguments)
    out = Output(sys.stdout, sys.stderr, as_json=False)
    before = dict(os.environ)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")  # for developers, who ask for them with -W
            code = _run(given, out)
    finally:
        gc.enable()
        os.environ.clear()
        os.environ.update(before)
    problem = out.flush()
    if problem:
        out.note(f"The output could not be written: {problem}.")
        return code or exits.SOME_FAILED
    return code


def _run(given: list[str], out: Output) -> int:
    stdout = sys.stdout
    try:
        ended = root.main(given, NAME, standalone_mode=False, obj=Context(out))
    except click.UsageError as error:
        usage, message = error.ctx.get_usage() if error.ctx else "", error.format_message()
        if usage and message.startswith(usage):  # a group without a command: click's message is the whole help
            usage, message = message, "name one of these commands"
        return _failed(out, given, message, exits.USAGE, usage)
    except click.ClickException as error:
        return _failed(out, given, error.format_message(), exits.USAGE)
    except (click.Abort, KeyboardInterrupt):
        return _failed(out, given, f"Interrupted; {out.if_interrupted}.", exits.INTERRUPTED)
    except SystemExit:
        if sys.stdout is stdout:
            raise
        return exits.DONE  # click wraps it and ends so when nobody reads its help any more
    except Exception as error:
        code = exits.code_of(error)
        if code is None:  # a bug: its traceback is what helps
            raise
        return _failed(out, given, str(error), code)
    return ended if isinstance(ended, int) else exits.DONE


def _failed(out: Output, given: list[str], message: str, code: int, usage: str = "") -> int:
    if usage:
        out.note(usage)
    out.note(f"Error: {message}" if code != exits.INTERRUPTED else message)
    if "--json" in given and not out.begun:  # even when the options were not understood
        out.say(json.dumps({"exit_code": code, "error": message}, indent=2))
    return code
