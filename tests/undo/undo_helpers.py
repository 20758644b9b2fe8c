"""Cleaning, dying and undoing on a scratch platform."""

import os
import signal
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service_helpers import MANUAL, Ended, Platform, whole_run

from cleanup_dagster.handles import Request, RestoreReport, RestoreRequest
from cleanup_dagster.retention.models import CleanupType, RestoreState


def clean(platform: Platform, **how: Any) -> str:
    """Do a live run that must succeed, and return its id."""
    ended = platform.run(**how)
    assert ended.report.status == "done", ended.problems
    return ended.run.request.run_id


def apply(platform: Platform, plan: str, *, cleanup_type: CleanupType = MANUAL, dry: bool = False) -> Ended:
    """Do a live run that applies a dry run's plan."""
    with platform.service() as service:
        return whole_run(service, Request(str(uuid.uuid4()), cleanup_type, dry, "bob", plan=plan))


def undo_request(
    of_run: str, *paths: Path | str, data_types: tuple[str, ...] = (), dry: bool = False
) -> RestoreRequest:
    return RestoreRequest(str(uuid.uuid4()), of_run, "bob", tuple(map(str, paths)), data_types, dry)


def undo(
    platform: Platform, of_run: str, *paths: Path | str, data_types: tuple[str, ...] = (), dry: bool = False
) -> RestoreReport:
    with platform.service() as service:
        return service.restore(undo_request(of_run, *paths, data_types=data_types, dry=dry))


def counts(report: RestoreReport) -> dict[RestoreState, int]:
    return {state: tally.files for state, tally in report.states.items()}


def killed(at: object, name: str, call: int, doing: Callable[[], object]) -> None:
    """Do something in a child that dies by SIGKILL just before its `call`th call of a function."""
    pid = os.fork()
    if pid == 0:
        true, calls = getattr(at, name), 0

        def dying(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return true(*args, **kwargs)

        setattr(at, name, dying)
        try:
            doing()
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), f"it came to its end, with {os.WEXITSTATUS(status)}, before it was to die"
    assert os.WTERMSIG(status) == signal.SIGKILL


def copies(platform: Platform) -> list[Path]:
    """Return every file that backups are kept in."""
    return [
        p
        for p in sorted(platform.backups.rglob("*"))
        if p.suffix in {".backup", ".zst"} and ".manifests" not in p.parts
    ]


def flip(path: Path, position: int) -> None:
    """Change one byte of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 0x01
    path.write_bytes(content)
