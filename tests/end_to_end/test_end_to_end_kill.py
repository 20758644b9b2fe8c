"""`kill -9` of a live run at some moment, and then another run: nothing is lost, and everything is accounted for."""

import contextlib
import os
import random
import signal
import time

import pytest
from end_to_end_helpers import KEPT, Platform, eventually, run, started

EXECUTE = ("dagster", "job", "execute", "-m", "cleanup_dagster.definitions", "-j", "cleanup")
FILES = 500


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_run_after_a_kill_accounts_for_every_file(platform: Platform, seed: int) -> None:
    content = {f"operation_{number:04}.json": f'{{"status": "failed", "n": {number}}}' for number in range(FILES)}
    for name, text in content.items():
        platform.put(platform.ops / name, text, days=30)
    platform.configure(limits={"max_share": 1.0})
    config = platform.run_config(dry_run=False)

    with started(platform, *EXECUTE, "-c", config) as (process, log):
        eventually(f"a plan, in {log}", lambda: list(platform.state.glob("plans/*/operations.*")), seconds=60)
        # From the plan to the end of the run it takes about a second; see what is left below.
        time.sleep(random.Random(seed).uniform(0, 1))  # noqa: S311 no secret
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
    print("STATE", platform.ask("SELECT status FROM cleanup_runs"), platform.ask("SELECT target, intent_at, finished_at FROM cleanup_run_targets"), len(list(platform.ops.glob("*.json"))), len(list(platform.backups.glob("*"))) if platform.backups.exists() else None)
    left = {path.name for path in platform.ops.iterdir() if path.is_file()}
    for name in content.keys() - left:
        held = [*platform.backups.rglob(f"{name}*.backup"), *platform.ops.glob(f".*/*{name}*")]
        assert content[name] in {path.read_text(encoding="utf-8") for path in held} or _in_quarantine(platform)

    done = run(platform, *EXECUTE, "-c", config)
    assert done.returncode == 0, done.output
    assert platform.files == KEPT
    for name, text in content.items():
        assert (platform.backups / f"{name}.backup").read_text(encoding="utf-8") == text
    deleted = FILES + 3
    assert platform.ask("SELECT sum(records_deleted), sum(records_failed) FROM cleanup_audit") == [(deleted, 0)]
    assert platform.ask("SELECT count(*) FROM cleanup_runs WHERE status = 'running'") == [(0,)]


def _in_quarantine(platform: Platform) -> bool:
    """Say whether files are in quarantine, under names of its own."""
    return any(
        path.is_file() for directory in platform.ops.iterdir() if directory.is_dir() for path in directory.iterdir()
    )
