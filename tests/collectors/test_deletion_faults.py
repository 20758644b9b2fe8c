"""Whatever breaks at whatever moment, every file is in its place or restorable, and its deletion on record."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("deletion_faults.py")
#: Memory, because fsync costs nothing there: what a kill or an error leaves behind is the same as on a disk.
_MEMORY = "/dev/shm"  # noqa: S108


@pytest.mark.parametrize(
    ("kind", "at_least", "what"),
    [("kill", 200, "kills"), ("error", 300, "errors"), ("recovery", 60, "kills and errors in recovery")],
    ids=["killed at every call", "every call fails", "struck again while recovering"],
)
def test_nothing_is_lost_whatever_breaks(
    kind: str, at_least: int, what: str, record_property: Callable[[str, object], None]
) -> None:
    with tempfile.TemporaryDirectory(dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None) as directory:
        command = [sys.executable, str(PROGRAM), directory, kind]
        result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    record_property(what, result["points"])
    assert result["problems"] == []
    assert result["points"] >= at_least
