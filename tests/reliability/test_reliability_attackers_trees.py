"""Against other users who leave something behind: trees, sizes, contents and names that no program expects."""

import os
import sys
import time
from pathlib import Path

import pytest
from attackers import NOBODY, attack_once, copies
from service_helpers import EMERGENCY, Platform, files

from cleanup_dagster.handles import RestoreRequest
from cleanup_dagster.retention.models import Reason

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(sys.platform != "linux", reason="the attacks use renameat2 and mounts of Linux"),
]

DEEP = """
fd = os.open("shallow.log", os.O_CREAT | os.O_WRONLY); os.close(fd); age("shallow.log")
for level in range(5000):
    os.mkdir("d"); os.chdir("d")
os.close(os.open("deep.log", os.O_CREAT | os.O_WRONLY)); age("deep.log")
"""


def test_a_tree_of_five_thousand_levels(place: Path, platform: Platform) -> None:
    attack_once(place, DEEP)
    began = time.monotonic()
    ended = platform.run()
    assert time.monotonic() - began < 20
    assert ended.report.counts["system_logs"].deleted.files == 1
    assert ended.plans["logs"].kept[Reason.TOO_DEEP].files == 1
    assert not (platform.logs / "shallow.log").exists()


HUGE = """
with open("huge.log", "w") as file:
    file.truncate(1 << 40)
age("huge.log")
"""


def test_a_sparse_file_of_a_tebibyte_is_more_than_a_run_takes(place: Path, platform: Platform) -> None:
    attack_once(place, HUGE)
    platform.log("ordinary.log", 40)
    began = time.monotonic()
    assert platform.run().tripped == ["bytes", "free_space"]
    assert platform.run(cleanup_type=EMERGENCY).tripped == ["free_space"]
    assert time.monotonic() - began < 20
    assert files(platform.logs) == {"huge.log", "ordinary.log"}
    assert copies(place) == []


BOMBS = r"""
bombs = {
    "deep": b"[" * 200_000,
    "deep_object": b'{"a":' * 200_000,
    "number": b'{"status": "completed", "end_time": 1' + b"0" * 10_000 + b"}",
    "exponent": b'{"status": "completed", "end_time": 1e400}',
    "nan": b'{"status": "completed", "end_time": NaN}',
    "bytes": b'{"status": "completed", "end_time": "\xff\xfe"}',
    "surrogate": b'{"status": "completed", "end_time": "\\ud800"}',
    "large": b'{"status": "completed", "end_time": 1000, "x": "' + b"x" * (9 << 20) + b'"}',
    "keys": b"{" + b",".join(b'"k%d": 0' % n for n in range(100_000)) + b"}",
    "nothing": b"",
    "list": b"[]",
    "null": b"null\x00",
}
for name, content in bombs.items():
    path = f"{place}/operations/operation_{name}.json"
    with open(path, "wb") as file:
        file.write(content)
    age(path)
"""


def test_bombs_of_json_go_off_nowhere(place: Path, platform: Platform) -> None:
    os.chown(platform.operations, NOBODY, NOBODY)
    attack_once(place, BOMBS)
    platform.operation("ordinary", 91)
    before = files(platform.operations)
    began = time.monotonic()
    ended = platform.run()
    assert time.monotonic() - began < 20
    assert ended.report.status == "done", ended.problems
    gone = before - files(platform.operations)
    assert "operation_ordinary.json" in gone
    assert Reason.UNREADABLE_CONTENT in ended.plans["operations"].kept
    for name in ("deep", "deep_object", "nan", "bytes", "large", "nothing", "list", "null"):
        assert (platform.operations / f"operation_{name}.json").exists(), name


NAMES = r"""
names = [
    b"line\nbreak.log", b"\x1b]0;title\x07\x1b[31mred.log", "\u202egol.exe".encode(), b"\xff\xfe\xe9.log",
    b"=cmd|' C calc'!A0.log", b"'; DROP TABLE cleanup_audit; --.log", b"%s%n{0}$(id)`id`.log", b"-rf.log", b"...",
    b"back\\slash\\u002f.log", b"<script>alert(1)</script>".replace(b"/", b"_"), b"x" * 251 + b".log", b" ", b"\t",
    b".backup", b"a.backup", "\u0061\u0301.log".encode(), b"~root", b"*?[x]{a,b}.log", b"\xed\xb2\x80.log",
]
os.mkdir(b"\x1b[2J\n")
for name in names + [b"\x1b[2J\n/" + name for name in names]:
    with open(name, "wb") as file:
        file.write(name)
    age(name)
"""


def test_hostile_names_go_through_scan_database_log_and_restore(place: Path, platform: Platform) -> None:
    attack_once(place, NAMES)
    before = {os.fsencode(path): path.read_bytes() for path in platform.logs.rglob("*") if path.is_file()}
    assert len(before) == 40
    ended = platform.run()
    assert ended.report.status == "done", ended.problems
    assert files(platform.logs) == set()
    log = Path(ended.report.log).read_text(encoding="utf-8")
    assert len([line for line in log.splitlines() if line.startswith("deleted ")]) == 40
    assert all(line.isprintable() for line in log.split("\n"))
    assert platform.ask("SELECT records_deleted FROM cleanup_audit WHERE data_type = 'system_logs'") == [(40,)]
    with platform.service() as service:
        report = service.restore(RestoreRequest("a-restore", ended.run.request.run_id, "bob", dry_run=False))
    assert report.problems == ()
    assert {os.fsencode(path): path.read_bytes() for path in platform.logs.rglob("*") if path.is_file()} == before
