# ruff: noqa: INP001 - a script, no package
"""One live run without Dagster, for `cleanup.py` to measure: prints the seconds of each stage as JSON.

.venv/bin/python benchmarks/one_run.py cleanup.yaml
"""

import json
import os
import sys
import time
import uuid
from pathlib import Path

from cleanup_dagster.bootstrap import open_service
from cleanup_dagster.handles import Request
from cleanup_dagster.retention.models import CleanupType
from cleanup_dagster.settings import load_settings


def main() -> None:
    """Drive the verbs in the order of the job's steps."""
    seconds: dict[str, float] = {}
    last = time.perf_counter()

    def stage(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[name], last = now - last, now

    with open_service(load_settings(dict(os.environ), Path(sys.argv[1]))) as service:
        run = service.begin(Request(str(uuid.uuid4()), CleanupType.MANUAL, False, "benchmark"))
        stage("begin")
        checked = service.check(run, [service.scan(run, target) for target in run.targets])
        if not checked.may_delete:
            raise SystemExit(str(checked.refusals or [plan.problem for plan in checked.plans]))
        stage("judge")
        backed_up = [service.back_up(plan) for plan in checked.plans]
        stage("back up")
        results = [service.delete(one) for one in backed_up]
        stage("delete")
        report = service.audit(checked, results)
        service.prune(run)
        stage("audit")
    if report.problems:
        raise SystemExit("; ".join(report.problems))
    sys.stdout.write(json.dumps(seconds))


if __name__ == "__main__":
    main()
