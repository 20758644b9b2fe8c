"""Whole runs, service and database included: killed, failed and without power at every call.

By default a sample of the points, the same ones every time; `make prove` strikes them all.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from disks import detach_leftovers, why_impossible
from service_helpers import Platform, request

PROGRAM = Path(__file__).with_name("service_faults.py")
_TESTS = Path(__file__).parent.parent

Strike = Callable[..., dict[str, Any]]


def run_program(directory: Path, *arguments: str, package: Path | None = None) -> dict[str, Any]:
    """Strike as the program is told, the package of this checkout or another one."""
    places = [package or _TESTS.parent, _TESTS / "service", _TESTS / "collectors"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places)), "PYTHONHASHSEED": "0"}
    command = [sys.executable, str(PROGRAM), str(directory), *arguments]
    finished = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True, cwd=directory)
    return json.loads(finished.stdout)


@pytest.fixture
def strike(tmp_path: Path) -> Generator[Strike]:
    yield lambda *arguments: run_program(tmp_path, *arguments)
    detach_leftovers(tmp_path)


needs_disks = [
    pytest.mark.needs_root,
    pytest.mark.skipif(bool(why_impossible()), reason=why_impossible() or "loop devices work here"),
]


#: What is struck: the kind, how many points of it by default, what it counts as, and a name for people.
_KINDS = [
    ("power-nothing", 8, "power cuts", "power cut with nothing written back"),
    ("power-files", 8, "power cuts", "power cut with the removals written back"),
    ("power-copies", 8, "power cuts", "power cut with the copies written back"),
    ("power-all-but-copies", 8, "power cuts", "power cut with everything but the copies written back"),
    ("power-again", 6, "power cuts", "power cut again in the recovery"),
    ("kill", 14, "kills", "killed"),
    ("error", 24, "errors", "a call fails"),
]
#: The others of archives are struck under `make prove` only.
_ARCHIVES = {"power-all-but-copies", "kill", "error"} if os.environ.get("PROVE") != "all" else {k[0] for k in _KINDS}


#: Under `make prove`, too, of these only so many: a fifth of the errors (the protocol alone gets all of them), and half
#: of the second cuts.
_MOST = {"power-again": 60, "error": 400}


def _cases() -> Iterator[object]:
    for kind, sample, what, name in _KINDS:
        marks = needs_disks if kind.startswith("power") else []
        yield pytest.param(kind, sample, what, "files", id=name, marks=marks)
        if kind in _ARCHIVES:
            yield pytest.param(kind, sample, what, "archive", id=f"{name}, archive", marks=marks)


@pytest.mark.parametrize(("kind", "sample", "what", "store"), list(_cases()))
def test_a_run_is_struck_and_nothing_is_lost(
    strike: Strike,
    thorough: bool,
    record_property: Callable[[str, object], None],
    kind: str,
    sample: int,
    what: str,
    store: str,
) -> None:
    wanted = _MOST.get(kind, 0) if thorough else sample
    result = strike(kind, f"--sample={wanted}", f"--format={store}")
    record_property(what, result["struck"])
    record_property("lost", len(result["problems"]))
    assert result["problems"] == []
    assert result["struck"] == (wanted or result["points"])


@pytest.mark.parametrize("kind", [pytest.param("power-all-but-copies", marks=needs_disks)])
def test_a_power_cut_loses_files_of_a_program_that_does_not_fsync(strike: Strike, kind: str) -> None:
    """The control: were this one to lose nothing, the cuts above would show nothing."""
    result = strike(kind, "--sample=12", "--without-fsync", "--until-broken")
    assert "without a copy" in str(result["problems"]) or "lost" in str(result["problems"])


def test_what_a_run_staged_is_swept_though_no_manifest_tells_of_it(tmp_path: Path) -> None:
    """As a power cut leaves it that took the receipts' name before they were needed."""
    platform = Platform(tmp_path)
    with platform.service() as service:
        service.begin(request(run_id="power-cut"))
    staged = platform.backups / ".staging-power-cut"
    staged.mkdir(parents=True)
    platform.backups.chmod(0o700)
    (staged / "0.part").write_text("half a copy")
    assert len(platform.run().run.recovered) == 1
    assert not staged.exists()
