"""The state directory: this installation's identity, lock, plans and manifests, readable by nobody else.

cleanup.db            the embedded database, when none is configured
installation_id       the database this directory belongs to
state_id              this directory; recovery belongs to whoever has it, whatever the host is called today
live.lock             held by the one live run
plans/<run>/          what runs meant to do (24 hours)
manifests/<run>/      receipts and outcomes, the proof of every deletion (a year)
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from cleanup_dagster.backups.manifest import WHOLE, Part, segments_of
from cleanup_dagster.filesystem.locks import host_lock
from cleanup_dagster.filesystem.private import private_directory, sync_directory


class StateDirectory:
    """An open state directory. Names of targets are slugs and run ids are checked, so both are safe in paths."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self.id = self._id_once("state_id", str(uuid.uuid4()))

    @property
    def database_path(self) -> Path:
        """Where the embedded database is."""
        return self.path / "cleanup.db"

    def installation_id(self, of_database: str) -> str:
        """Return the installation this directory belongs to, adopting `of_database` when it belongs to none yet."""
        return self._id_once("installation_id", of_database)

    def lock(self) -> contextlib.AbstractContextManager[int | None]:
        """Try for the lock of live runs on this host; the context yields its descriptor, or None."""
        return host_lock(self._fd)

    def plan(self, run_id: str, target: str) -> Path:
        """Return where the plan of a run's target goes, in a directory that exists, with nothing there yet."""
        path = self._directory("plans", run_id) / f"{_checked(target)}.jsonl.zst"
        for earlier in (path, *segments_of(path)):  # a step that is retried plans anew
            earlier.unlink(missing_ok=True)
        return path

    def write_saved_plan(self, run_id: str, content: bytes) -> None:
        """Keep what a reviewed plan can be applied by, beside its manifests."""
        _write_whole(self._directory("plans", run_id) / "plan.json", content)

    def read_saved_plan(self, run_id: str) -> bytes | None:
        """Return what `write_saved_plan` kept, or None when that is over."""
        path = self.path / "plans" / _checked(run_id) / "plan.json"
        return path.read_bytes() if path.is_file() else None

    def write_progress(self, run_id: str, content: bytes) -> None:
        """Say how far a run is, for whoever watches from another process. Nothing depends on it."""
        _write_whole(self._directory("plans", run_id) / "progress.json", content)

    def read_progress(self, run_id: str) -> bytes | None:
        """Return what `write_progress` wrote last, or None."""
        path = self.path / "plans" / _checked(run_id) / "progress.json"
        return path.read_bytes() if path.is_file() else None

    def manifests(self, run_id: str) -> Path:
        """Return the directory of a run's manifests, which exists."""
        return self._directory("manifests", run_id)

    def receipts(self, run_id: str, target: str) -> Path:
        """Return where the receipts of a run's target are."""
        return self._manifest(run_id, target, "receipts.jsonl.zst")

    def kept_receipts(self, run_id: str, target: str) -> Path:
        """Return where the receipts of a run's target are, if they are here; makes nothing."""
        return self.path / "manifests" / _checked(run_id) / f"{_checked(target)}.receipts.jsonl.zst"

    def skipped(self, run_id: str, target: str) -> Path:
        """Return where the items are that a run's target could not back up."""
        return self._manifest(run_id, target, "skipped.jsonl.zst")

    def outcomes(self, run_id: str, target: str, part: Part = WHOLE) -> Path:
        """Return where the outcomes of a run's target, or of a part of it, go: in the order of its receipts."""
        suffix = "" if part == WHOLE else f"-{part.number}"
        return self._manifest(run_id, target, f"outcomes{suffix}.jsonl.zst")

    def own_outcomes(self, run_id: str, target: str) -> list[Path]:
        """Return the outcomes that the processes of a run wrote for a target. A target's name holds no dot."""
        return sorted((self.path / "manifests" / _checked(run_id)).glob(f"{_checked(target)}.outcomes*.jsonl.zst"))

    def all_outcomes(self, run_id: str, target: str) -> list[Path]:
        """Return the outcomes that a run's target has here: its own, and those that recovery found."""
        directory = self.path / "manifests" / _checked(run_id)
        return [*self.own_outcomes(run_id, target), *sorted(directory.glob(f"{target}.recovered-*.jsonl.zst"))]

    def restored(self, run_id: str, target: str) -> Path:
        """Return where a restore writes what it put back."""
        return self._manifest(run_id, target, "restored.jsonl.zst")

    def same_filesystem(self, run_id: str, target: str) -> Path:
        """Return where an operator says that a root is on the filesystem it was on, though nothing shows it."""
        return self._manifest(run_id, target, "same-filesystem")

    def next_recovery(self, run_id: str, target: str) -> Path:
        """Return where the outcomes of the next recovery of a run's target go; earlier ones stay as they are."""
        number = sum(1 for _ in self.manifests(run_id).glob(f"{_checked(target)}.recovered-*.jsonl.zst"))
        return self._manifest(run_id, target, f"recovered-{number}.jsonl.zst")

    def all_receipts(self, run_id: str) -> list[Path]:
        """Return the receipts that a run has here, of every target."""
        return sorted((self.path / "manifests" / _checked(run_id)).glob("*.receipts.jsonl.zst"))

    def mark_ended(self, run_id: str) -> None:
        """Note that a run is in the audit, or needs none: recovery passes it by, whatever the database says."""
        (self._directory("manifests", run_id) / "ended").touch(mode=0o600)

    def unended_runs(self) -> list[str]:
        """Return the runs that have manifests here and were never marked as ended."""
        top = self.path / "manifests"
        return sorted(d.name for d in top.iterdir() if not (d / "ended").exists()) if top.is_dir() else []

    def runs_with(self, kind: str, before_ns: int) -> Iterator[Path]:
        """Yield the run directories below `plans` or `manifests` that were last changed before a moment."""
        top = self.path / kind
        for directory in sorted(top.iterdir()) if top.is_dir() else ():
            if directory.stat().st_mtime_ns < before_ns:
                yield directory

    def remove(self, directory: Path) -> None:
        """Remove one run's plans or manifests. Raises ValueError for a path that is not one."""
        if directory.parent.parent != self.path or directory.parent.name not in {"plans", "manifests"}:
            raise ValueError(f"{directory} holds no plans or manifests")
        shutil.rmtree(directory)

    def _manifest(self, run_id: str, target: str, suffix: str) -> Path:
        return self._directory("manifests", run_id) / f"{_checked(target)}.{suffix}"

    def _directory(self, kind: str, run_id: str) -> Path:
        directory = self.path / kind / _checked(run_id)
        for made in (directory.parent, directory):  # not by parents=True, which would ignore the mode
            with contextlib.suppress(FileExistsError):
                made.mkdir(mode=0o700)
                sync_directory(made.parent)  # receipts are of no use without the way to them
        return directory

    def _id_once(self, name: str, value: str) -> str:
        path = self.path / name
        if path.exists():
            return path.read_text(encoding="ascii").strip()
        with contextlib.suppress(FileExistsError):
            # Written whole under another name first: a reader never sees half an id.
            temporary = f".{name}.{uuid.uuid4().hex}"
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._fd)
            with os.fdopen(fd, "w", encoding="ascii") as file:
                file.write(value)
                file.flush()
                os.fsync(fd)
            try:
                os.link(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            finally:
                os.unlink(temporary, dir_fd=self._fd)
            os.fsync(self._fd)
        return path.read_text(encoding="ascii").strip()


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file that nobody sees by half."""
    temporary = path.with_suffix(".part")
    temporary.touch(mode=0o600)
    temporary.write_bytes(content)
    temporary.replace(path)


def _checked(name: str) -> str:
    """Return the id of a run or the name of a target, which may be the database's word, when it leads nowhere else."""
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is no run's id and no target's name")
    return name


@contextmanager
def open_state(path: Path) -> Generator[StateDirectory]:
    """Open the state directory, creating it. Raises UnsafeDirectoryError when it is not ours alone."""
    with private_directory(path, "state directory") as fd:
        yield StateDirectory(path, fd)
