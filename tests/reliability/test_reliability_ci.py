"""CI fails when every test that needs root was skipped, in one process and in several."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_CI = Path(__file__).parent.parent.parent / ".ci"
_SKIPPED = "@pytest.mark.needs_root\n@pytest.mark.skip(reason='not root')\ndef test_{name}() -> None: ...\n"
_RAN = "@pytest.mark.needs_root\ndef test_{name}() -> None: ...\n"


@pytest.mark.parametrize("processes", ["0", "2"])
@pytest.mark.parametrize(("tests", "fails"), [([_SKIPPED, _SKIPPED], True), ([_SKIPPED, _RAN], False)])
def test_ci_fails_when_all_tests_that_need_root_skip(
    tmp_path: Path, processes: str, tests: list[str], fails: bool
) -> None:
    code = "".join(text.format(name=number) for number, text in enumerate(tests))
    (tmp_path / "test_of_ci.py").write_text(f"import pytest\n{code}")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    needs_root: as root\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "xdist.plugin",
        "-p",
        "root_was_tested",
        "-p",
        "no:cacheprovider",
        "-n",
        processes,
    ]
    environment = {**os.environ, "PYTHONPATH": str(_CI), "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    for variable in [name for name in environment if name.startswith("PYTEST_XDIST")]:
        del environment[variable]
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == int(fails), finished.stdout
    assert ("all 2 tests that need root skipped: run CI as root" in finished.stdout) is fails
