"""Cleaning, dying and undoing on a scratch platform."""

import errno
import os
import signal
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from service_helpers import MANUAL, Ended, Platform, files, whole_run

from cleanup_dagster.backups import restore as restoring_one
from cleanup_dagster.backups.manifest import read_manifest
from cleanup_dagster.handles import Request, RestoreReport, RestoreRequest
from cleanup_dagster.retention.models import CleanupType, Receipt, RestoreState


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


def three_logs(platform: Platform) -> dict[str, str]:
    """Write three expired logs, and return their contents by path."""
    return {str(platform.log(name, 31)): f"{name}\n" for name in ("a.log", "d/e/b.log", "d/c.txt")}


def contents(platform: Platform) -> dict[str, str]:
    """Return the contents of the logs by path."""
    return {str(platform.logs / name): (platform.logs / name).read_text() for name in files(platform.logs)}


def receipts_of(platform: Platform, run_id: str, target: str = "logs") -> list[Receipt]:
    """Return a run's receipts."""
    return list(read_manifest(manifest_of(platform, run_id, target), Receipt))


def manifest_of(platform: Platform, run_id: str, target: str = "logs") -> Path:
    """Return where a run's receipts are."""
    return platform.state / "manifests" / run_id / f"{target}.receipts.jsonl.zst"


def without_nameless_files(patch: pytest.MonkeyPatch, code: int = errno.EOPNOTSUPP) -> None:
    """Have the filesystem refuse files without a name, with an error of its choice."""
    true = os.open

    def refusing(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(code, os.strerror(code))
        return true(path, flags, mode, dir_fd=dir_fd)

    patch.setattr(restoring_one.os, "open", refusing)
