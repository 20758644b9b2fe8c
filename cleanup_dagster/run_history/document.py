"""A run as a document of JSON lines: every row of it in every table, and its compute logs. The archive's member.

    {"run":"1a2b...","version":1}
    {"t":"runs","r":{"id":7,"run_id":"1a2b...",...}}
    {"t":"event_logs","r":{...}}
    {"log":"abc.err","mtime_ns":...,"size":...,"data":"<base64>"}     one line per chunk

The order is fixed (by table, then by id), so that the same run is the same bytes whenever it is written down.
"""

import base64
import hashlib
import os
import stat
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from cleanup_dagster.filesystem.identity import OPEN_DIRECTORY, OPEN_FILE
from cleanup_dagster.filesystem.syscalls import rename_noreplace
from cleanup_dagster.run_history.store import RunLogError

_CHUNK = 192 * 1024
LOGS = "compute_logs"
_UNFINISHED = ".restoring"
_ROW, _LOG = b'{"t":"', b'{"log":"'

_encode = msgspec.json.Encoder().encode


class Entry(Struct, omit_defaults=True):
    """One line as it reads back: the head, a row of a table, or a chunk of a log."""

    run: str = ""
    version: int = 0
    t: str = ""
    r: dict[str, Any] = {}
    log: str = ""
    mtime_ns: int = 0
    size: int = 0
    data: str = ""


_decode = msgspec.json.Decoder(Entry).decode


def head(run_id: str) -> bytes:
    """Return a document's first line."""
    return _encode({"run": run_id, "version": 1}) + b"\n"


def row_line(table: str, row: bytes) -> bytes:
    """Return the line of one row, given as JSON."""
    return _ROW + table.encode() + b'","r":' + row + b"}\n"


def entry_of(line: bytes) -> Entry:
    """Read one line. Raises ValueError for what is none."""
    return _decode(line)


class Summary(Struct):
    """What tells a document from any other: its sha256, its rows by table, and the sha256 of each log in it."""

    sha256: str
    rows: dict[str, int]
    logs: dict[str, str]


def summary_of(lines: Iterable[bytes]) -> Summary:
    """Return the summary of a document, in flat memory."""
    digest = hashlib.sha256()
    rows: dict[str, int] = {}
    logs: dict[str, Any] = {}
    for line in lines:
        digest.update(line)
        if line.startswith(_ROW):
            table = line[len(_ROW) : line.index(b'"', len(_ROW))].decode()
            rows[table] = rows.get(table, 0) + 1
        elif line.startswith(_LOG):
            entry = entry_of(line)
            logs.setdefault(entry.log, hashlib.sha256()).update(base64.b64decode(entry.data))
    return Summary(digest.hexdigest(), rows, {name: log.hexdigest() for name, log in logs.items()})


def split_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a document that comes in blocks."""
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


def log_lines(storage: Path | None, run_id: str) -> Iterator[bytes]:
    """Yield a run's compute logs, by name. What is no plain file is no log. Raises RunLogError."""
    try:
        yield from _log_lines(storage, run_id)
    except OSError as error:
        raise RunLogError(f"its logs cannot be read: {error.strerror or error}") from None


def _log_lines(storage: Path | None, run_id: str) -> Iterator[bytes]:
    with _logs_of(storage, run_id) as directory:
        for name in _names(directory):
            fd = os.open(name, OPEN_FILE, dir_fd=directory)
            try:
                status = os.fstat(fd)
                first = {"log": name, "mtime_ns": status.st_mtime_ns, "size": status.st_size}
                yield _encode(first) + b"\n"
                while chunk := os.read(fd, _CHUNK):
                    yield _encode({"log": name, "data": base64.b64encode(chunk).decode()}) + b"\n"
            finally:
                os.close(fd)


def log_bytes(storage: Path | None, run_id: str) -> int:
    """Return the size of a run's compute logs, as far as it is to be seen."""
    with suppress(OSError), _logs_of(storage, run_id) as directory:
        return sum(os.stat(name, dir_fd=directory, follow_symlinks=False).st_size for name in _names(directory))
    return 0


def remove_logs(storage: Path | None, run_id: str, digests: Mapping[str, str]) -> None:
    """Remove a run's logs, each only when it has the very bytes of that sha256. Raises OSError."""
    if not digests or storage is None:
        return
    with _logs_of(storage, run_id) as directory:
        if directory is None:
            return
        for name in _names(directory):
            if name in digests and _hash_of(directory, name) == digests[name]:
                os.unlink(name, dir_fd=directory)
        with suppress(FileNotFoundError):
            os.unlink(_UNFINISHED, dir_fd=directory)
        os.fsync(directory)
    for emptied in (storage / run_id / LOGS, storage / run_id):
        with suppress(OSError):  # what else lies there, such as the outputs of steps, stays
            emptied.rmdir()


def put_logs_back(storage: Path | None, run_id: str, lines: Iterable[bytes]) -> str:
    """Write the logs that a document holds and that are not there, and say which could not go back. Raises OSError.

    Each gets its name when it is whole and durable; one that has the name already stays as it is.
    """
    missing: list[str] = []
    directory, out, name, mtime_ns = -1, -1, "", 0
    try:
        for entry in map(entry_of, lines):
            if entry.log and entry.data and entry.log == name:
                _write(out, base64.b64decode(entry.data))
            elif entry.log:
                out = _finish(directory, out, name, mtime_ns)
                name, mtime_ns = entry.log, entry.mtime_ns
                if storage is None or "/" in name or name in {".", ".."}:
                    missing.append(name)
                    name = ""
                    continue
                directory = directory if directory >= 0 else _make(storage, run_id)
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
                out = os.open(_UNFINISHED, flags, 0o644, dir_fd=directory)
        out = _finish(directory, out, name, mtime_ns)
        if directory >= 0:
            os.fsync(directory)
    finally:
        for fd in (out, directory):
            if fd >= 0:
                os.close(fd)
    return f"its logs {', '.join(missing)} have no place here" if missing else ""


def _finish(directory: int, out: int, name: str, mtime_ns: int) -> int:
    if out >= 0:
        os.fsync(out)
        os.utime(out, ns=(mtime_ns, mtime_ns))
        os.close(out)
        try:
            rename_noreplace(_UNFINISHED, name, source_dir=directory, destination_dir=directory)
        except FileExistsError:
            os.unlink(_UNFINISHED, dir_fd=directory)
    return -1


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _make(storage: Path, run_id: str) -> int:
    fd = os.open(storage, OPEN_DIRECTORY)
    for part in (run_id, LOGS):
        try:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=fd)
            below = os.open(part, OPEN_DIRECTORY, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


@contextmanager
def _logs_of(storage: Path | None, run_id: str) -> Generator[int | None]:
    """Open a run's log directory, one component at a time, without following links; None when there is none."""
    with ExitStack() as stack:
        fd = None
        try:
            for part in (storage, run_id, LOGS) if storage is not None else ():
                fd = os.open(part, OPEN_DIRECTORY, dir_fd=fd)
                stack.callback(os.close, fd)
        except (FileNotFoundError, NotADirectoryError):
            fd = None
        yield fd


def _names(directory: int | None) -> list[str]:
    if directory is None:
        return []
    with os.scandir(directory) as entries:
        plain = (e.name for e in entries if stat.S_ISREG(e.stat(follow_symlinks=False).st_mode))
        return sorted(name for name in plain if name != _UNFINISHED)


def _hash_of(directory: int, name: str) -> str:
    digest = hashlib.sha256()
    fd = os.open(name, OPEN_FILE, dir_fd=directory)
    try:
        while chunk := os.read(fd, _CHUNK):
            digest.update(chunk)
    finally:
        os.close(fd)
    return digest.hexdigest()


class Difference(Struct):
    """What of an archived run is missing where it should be. With a `problem`, something else is there."""

    rows: set[tuple[str, int]]
    logs: set[str]
    problem: str = ""

    @property
    def is_none(self) -> bool:
        """Whether everything is there, and nothing else."""
        return not (self.rows or self.logs or self.problem)


def difference(archived: Iterable[bytes], current: Iterable[bytes]) -> Difference:
    """Compare a run as it is with its archive, row by row and log by log.

    A column that a later version of Dagster has added does not count; one that is gone, or any other value, does.
    """
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    logs = dict[str, Any]()
    for entry in map(entry_of, current):
        _gather(entry, rows, logs)
    missing, archived_logs, problem = set[tuple[str, int]](), dict[str, Any](), ""
    for entry in map(entry_of, archived):
        if not entry.t:
            _gather(entry, {}, archived_logs)
            continue
        key = (entry.t, entry.r["id"])
        found = rows.pop(key, None)
        if found is None:
            missing.add(key)
        elif any(name not in found or found[name] != value for name, value in entry.r.items()):
            problem = f"row {key[1]} of {key[0]} is another one"
    if rows and not problem:
        table, number = next(iter(rows))
        problem = f"row {number} of {table} is not in the archive"
    left = {name for name in archived_logs if name not in logs}
    for name, digest in logs.items():
        other = archived_logs.get(name)
        if (other is None or other.digest() != digest.digest()) and not problem:
            problem = f"its log {name} is another one"
    return Difference(missing, left, problem)


def _gather(entry: Entry, rows: dict[tuple[str, int], dict[str, Any]], logs: dict[str, Any]) -> None:
    if entry.t:
        rows[entry.t, entry.r["id"]] = entry.r
    elif entry.log:
        logs.setdefault(entry.log, hashlib.sha256()).update(base64.b64decode(entry.data))


def row_of(line: bytes) -> bytes:
    """Return the JSON of a row as it stands in its line."""
    return line[line.index(b',"r":') + 5 : -2]
