"""Manifests: what a run means to do, has backed up and has done, as streams of JSON lines in zstd frames.

A file never travels as a Python list; it travels as a line here, so memory stays flat from ten files to ten million.
Every batch is a zstd frame of its own: after a crash everything before a torn tail reads back. `zstd -dc` shows one.
"""

import hashlib
import io
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec
import zstandard
from msgspec import Struct

from cleanup_dagster.filesystem.place import Place
from cleanup_dagster.filesystem.private import sync_directory

_ROWS_PER_FRAME = 4_096
_LEVEL = 1  # level 3 stored 2 % less for 6 % more time
_TRAILER_PREFIX = b'{"end":'

Row = TypeVar("Row", bound=Struct)


class Kind(str, Enum):
    """What the rows of a manifest are: verdicts, receipts or outcomes."""

    PLAN = "plan"
    RECEIPTS = "receipts"
    OUTCOMES = "outcomes"
    RESTORED = "restored"


class Header(Struct, frozen=True, omit_defaults=True):
    """The first line: whose manifest this is. Enough to restore by, should nothing else be left.

    Receipts say in `place` where their root was, by which recovery knows it again.
    """

    manifest: Kind
    run_id: str
    target: str
    root: str
    made_at_ns: int
    backup_directory: str = ""
    cleanup_type: str = ""
    executed_by: str = ""
    version: int = 1
    place: Place | None = None


class Trailer(Struct, frozen=True):
    """The last line: a manifest without it was cut off."""

    end: int


class ManifestRef(Struct, frozen=True):
    """A finished manifest: where it is, the sha256 of its bytes, and its number of rows."""

    path: str
    sha256: str
    rows: int


class ManifestError(Exception):
    """A manifest that is missing, damaged, cut off, or not the one that was recorded."""


class ManifestWriter:
    """Writes one manifest. Nothing is on the disk for certain before `sync` or `close` returned."""

    def __init__(self, path: Path, header: Header | None) -> None:
        """Create the file, mode 0600; without a header it is a segment of a manifest.

        Raises FileExistsError: a manifest is never overwritten.
        """
        self.path = path
        self.rows = 0
        self._pending: list[Struct] = []
        self._sha256 = hashlib.sha256()
        self._compress = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress
        self._encode = msgspec.json.Encoder().encode_lines
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._named = False
        self._whole = header is not None
        try:
            if header is not None:
                self._write_frame([header])
        except OSError:  # a full disk; nobody else could close it
            self.abandon()
            raise

    def write(self, row: Struct) -> None:
        """Add one row."""
        self._pending.append(row)
        self.rows += 1
        if len(self._pending) >= _ROWS_PER_FRAME:
            self._flush()

    def sync(self) -> None:
        """Make every row so far durable. An OSError here means that nothing may rely on them."""
        self._flush()
        os.fsync(self._fd)
        if not self._named:  # rows are of no use after a power cut without the name to find them by
            sync_directory(self.path.parent)
            self._named = True

    def close(self) -> ManifestRef:
        """Write the trailer, make everything durable, and return what to find and check it by."""
        self._flush()
        if self._whole:
            self._write_frame([Trailer(self.rows)])
        os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1
        sync_directory(self.path.parent)
        return ManifestRef(str(self.path), self._sha256.hexdigest(), self.rows)

    def append(self, segment: ManifestRef) -> None:
        """Add a finished segment, frame for frame. Raises ManifestError when it is not the one that was written."""
        self._flush()
        verify_manifest(segment)
        with Path(segment.path).open("rb") as file:
            while block := file.read(1 << 20):
                self._write(block)
        self.rows += segment.rows

    def abandon(self) -> None:
        """Close the file as it is, without a trailer: a reader will see that it was cut off."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _flush(self) -> None:
        if self._pending:
            self._write_frame(self._pending)
            self._pending = []

    def _write_frame(self, rows: list[Struct]) -> None:
        self._write(self._compress(self._encode(rows)))

    def _write(self, frame: bytes) -> None:
        self._sha256.update(frame)
        view = memoryview(frame)
        while view:
            view = view[os.write(self._fd, view) :]


@contextmanager
def write_manifest(path: Path, header: Header, *, segment: bool = False) -> Generator[ManifestWriter]:
    """Open a manifest, or a segment of one, for writing; not closed by the end of the block it counts as cut off."""
    writer = ManifestWriter(path, None if segment else header)
    try:
        yield writer
    finally:
        writer.abandon()


def segment_of(path: Path, number: int) -> Path:
    """Return where one shard's segment of the manifest at `path` is written."""
    return path.with_name(f"{path.name}.{number}")


def join_segments(path: Path, header: Header, segments: Sequence[ManifestRef]) -> ManifestRef:
    """Write the manifest at `path` from finished segments, in their order, and remove them."""
    with write_manifest(path, header) as manifest:
        for segment in segments:
            manifest.append(segment)
        joined = manifest.close()
    for segment in segments:
        Path(segment.path).unlink()
    return joined


def verify_manifest(reference: ManifestRef) -> None:
    """Raise ManifestError unless the file at `reference.path` has the recorded sha256."""
    if hash_manifest(Path(reference.path)) != reference.sha256:
        raise ManifestError(
            f"the manifest {reference.path} is not the recorded one (its sha256 differs); nothing is done by it"
        )


def hash_manifest(path: Path) -> str:
    """Return the sha256 of a manifest's bytes. Raises ManifestError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ManifestError(f"the manifest {path} cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def read_header(path: Path) -> Header:
    """Return a manifest's header. Raises ManifestError when there is none."""
    with _lines(path) as lines:
        return _header(path, lines)


def read_manifest(path: Path, row: type[Row], *, torn: bool = False) -> Iterator[Row]:
    """Yield the rows of a manifest, in order.

    With `torn` the rows before a cut are yielded and the rest is ignored, as recovery needs it; otherwise a missing
    trailer or a damaged frame raises ManifestError, after the rows before it were yielded.
    """
    try:
        yield from _rows(path, row)
    except ManifestError:
        if not torn:
            raise


def _rows(path: Path, row: type[Row]) -> Iterator[Row]:
    decode = msgspec.json.Decoder(row).decode
    count = 0
    with _lines(path) as lines:
        _header(path, lines)
        try:
            for line in lines:
                if line.startswith(_TRAILER_PREFIX):
                    _check_trailer(path, line, count)
                    return
                yield decode(line)
                count += 1
        except (zstandard.ZstdError, msgspec.MsgspecError) as error:
            raise ManifestError(f"the manifest {path} is damaged after {count} rows: {error}") from None
    raise ManifestError(f"the manifest {path} was cut off after {count} rows")


def _check_trailer(path: Path, line: bytes, rows: int) -> None:
    if msgspec.json.decode(line, type=Trailer).end != rows:
        raise ManifestError(f"the manifest {path} lacks rows: {rows} are there")


@contextmanager
def _lines(path: Path) -> Generator[Iterator[bytes]]:
    try:
        file: BinaryIO = path.open("rb")
    except OSError as error:
        raise ManifestError(f"the manifest {path} cannot be read: {error.strerror}") from None
    with file:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        yield iter(io.BufferedReader(reader, buffer_size=1 << 18))


def _header(path: Path, lines: Iterator[bytes]) -> Header:
    try:
        return msgspec.json.decode(next(lines, b""), type=Header)
    except (zstandard.ZstdError, msgspec.MsgspecError):
        raise ManifestError(f"{path} is not a manifest of cleanup_dagster") from None


def batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Yield rows in lists of at most `size`."""
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
