import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "scan_memory.py"


def figures(number: int, *arguments: str) -> dict[str, float]:
    """Scan that many files in a process of its own."""
    command = [sys.executable, str(BENCHMARK), str(number), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("keep_last", ["0", "3"])
def test_six_times_the_files_take_no_more_memory(keep_last: str) -> None:
    few = figures(10_000, "--keep-last", keep_last)
    many = figures(60_000, "--keep-last", keep_last)
    assert (few["files"], many["files"]) == (10_000, 60_000)
    assert 0 < many["expired"] <= 30_000
    assert many["mib_peak"] - few["mib_peak"] < 30
    assert many["mib_peak"] < 200
    assert many["mib_peak_of_a_worker"] < 100  # none started for a few, so there is nothing to compare with
