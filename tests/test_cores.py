"""The default number of workers is what the machine, the affinity and the container's quota allow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cleanup_dagster import cores
from cleanup_dagster.cores import default_workers, quota


def cgroups(home: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Lay out what the kernel shows below /sys/fs/cgroup and in /proc/self/cgroup."""
    for name, content in files.items():
        (home / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "fs" / name).write_text(content)
    (home / "own").write_text(own)
    return home / "fs", home / "own"


CASES = [
    ("a container of version 2", "0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
    ("no limit", "0::/\n", {"cpu.max": "max 100000\n"}, 4),
    ("a unit of systemd", "0::/system.slice/x.service\n", {"system.slice/x.service/cpu.max": "50000 100000\n"}, 0.5),
    (
        "the slice above has the least",
        "0::/a/b\n",
        {"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "300000 100000\n"},
        1,
    ),
    ("a path of the host", "0::/docker/0123\n", {"cpu.max": "200000 100000\n"}, 2),
    ("a path above the container", "0::/../../x\n", {"cpu.max": "200000 100000\n"}, 2),
    (
        "a container of version 1",
        "4:cpu,cpuacct:/docker/0123\n3:memory:/\n",
        {"cpu,cpuacct/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
        2.5,
    ),
    (
        "version 1 without a limit",
        "1:cpu:/\n0::/\n",
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        4,
    ),
    ("another controller", "1:cpuset:/x\n", {"cpuset/x/cpu.max": "100000 100000\n"}, 4),
    ("nonsense", "nonsense\n\n::\n0::/\n", {"cpu.max": "many\n"}, 4),
    ("a period of nothing", "0::/\n", {"cpu.max": "1 0\n"}, 4),
]


@pytest.mark.parametrize(("own", "files", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_quota_of_a_container_is_found(tmp_path: Path, own: str, files: dict[str, str], expected: float) -> None:
    assert quota(*cgroups(tmp_path, own, files)) == expected


def test_where_there_are_no_cgroups_there_is_no_quota(tmp_path: Path) -> None:
    assert quota(tmp_path / "none", tmp_path / "none either") == 4


@pytest.mark.parametrize(("granted", "expected"), [(0.1, 1), (1.0, 1), (1.5, 2), (64.0, 4)])
def test_a_quota_is_rounded_up_to_whole_workers(monkeypatch: pytest.MonkeyPatch, granted: float, expected: int) -> None:
    def many(_: int) -> set[int]:
        return set(range(64))

    monkeypatch.setattr(os, "sched_getaffinity", many, raising=False)
    monkeypatch.setattr(cores, "quota", lambda: granted)
    assert default_workers() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity needs Linux")
def test_a_process_that_is_kept_to_one_core_has_one_worker() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from cleanup_dagster.cores import default_workers; print(default_workers())"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"1\n"
