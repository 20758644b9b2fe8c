import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "scan_memory.py"
FEW, MANY = 4_000, 24_000  # workers begin at 20,000


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Directories with so many files, made once: that takes most of this module's time."""
    made = {number: tmp_path_factory.mktemp(str(number)) for number in (FEW, MANY)}
    for number, home in made.items():
        (home / "operations").mkdir()
        subprocess.run([sys.executable, BENCHMARK, str(number), "--make-in", home], check=True)
    return made


def figures(number: int, home: Path, keep_last: str) -> dict[str, float]:
    """Scan that many files in a process of its own, on a database of its own."""
    # A process begins with the peak of whoever started it, and pytest's would hide all that is to be seen here.
    shell = ["sh", "-c", '"$@"; exit $?', "sh"]
    command = [*shell, sys.executable, BENCHMARK, str(number), "--scan-in", home, "--keep-last", keep_last]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    shutil.rmtree(home / "state")
    return json.loads(done.stdout)


@pytest.mark.parametrize("keep_last", ["0", "3"])
def test_six_times_the_files_take_no_more_memory(homes: dict[int, Path], keep_last: str) -> None:
    few, many = (figures(number, homes[number], keep_last) for number in (FEW, MANY))
    assert (few["files"], many["files"]) == (FEW, MANY)
    assert 0 < many["expired"] <= MANY / 2
    assert many["mib_peak"] - few["mib_peak"] < 10  # 520 bytes for each file more: nothing of one is so small
    assert many["mib_peak"] < 200
    assert many["mib_peak_of_a_worker"] < 100  # none started for a few, so there is nothing to compare with
    assert (many["mib_peak_of_a_worker"] > 0) == (keep_last == "0"), "the newest of all can only be told in one process"
