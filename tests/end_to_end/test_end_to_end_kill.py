"""`kill -9` of a live run at some moment, and then another run: nothing is lost, and everything is accounted for."""

import contextlib
import os
import random
import signal

import pytest
from end_to_end_helpers import KEPT, Platform, eventually, run, started

EXECUTE = ("dagster", "job", "execute", "-m", "cleanup_dagster.definitions", "-j", "cleanup")
FILES = 500


@pytest.mark.parametrize("share", [0.2, 0.55, 0.9])
def test_the_run_after_a_kill_accounts_for_every_file(platform: Platform, share: float) -> None:
    """`share` of the work is done at the kill: half of the work is copying, the other half deleting."""
    content = {f"operation_{number:04}.json": f'{{"status": "failed", "n": {number}}}' for number in range(FILES)}
    for name, text in content.items():
        platform.put(platform.ops / name, text, days=30)
    platform.configure(limits={"max_share": 1.0})
    config = platform.run_config(dry_run=False)

    def done_so_far() -> int:
        copies = sum(len(files) for _, _, files in os.walk(platform.backups))
        return copies + FILES - sum(1 for _ in platform.ops.glob("operation_0*.json"))

    with started(platform, *EXECUTE, "-c", config) as (process, log):
        point = 2 * FILES * share + random.uniform(0, 40)  # noqa: S311 no secret
        eventually(f"{point} steps, see {log}", lambda: done_so_far() >= point, seconds=60, every=0.001)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
    assert platform.ask("SELECT status FROM cleanup_runs") == [("running",)]
    found = [path for root in (platform.ops, platform.backups) for path in root.rglob("*") if path.is_file()]
    assert {path.read_bytes() for path in found} >= {text.encode() for text in content.values()}

    done = run(platform, *EXECUTE, "-c", config)
    assert done.returncode == 0, done.output
    assert platform.files == KEPT
    for name, text in content.items():
        assert (platform.backups / f"{name}.backup").read_text(encoding="utf-8") == text
    deleted = FILES + 3
    assert platform.ask("SELECT sum(records_deleted), sum(records_failed) FROM cleanup_audit") == [(deleted, 0)]
    assert platform.ask("SELECT count(*) FROM cleanup_runs WHERE status = 'running'") == [(0,)]
