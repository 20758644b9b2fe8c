"""Manifests: what a run means to do, has backed up and has done, as streams of JSON lines in zstd frames.

A file never travels as a Python list; it travels as a line here, so memory stays flat from ten files to ten million.
Every batch is a zstd frame of its own: after a crash everything before a torn tail reads back. `zstd -dc` shows one.

A skippable frame announces each: its bytes, its rows, and in receipts the CRC-32 of each path, sorted. So several
processes share a manifest frame by frame, and one row out of a million is found without unpacking the others.
"""

import hashlib
import os
import struct
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import msgspec
import zstandard
from msgspec import Struct

from cleanup_dagster.filesystem.place import Place
from cleanup_dagster.filesystem.private import sync_directory

_ROWS_PER_FRAME = 4_096
_LEVEL = 1  # level 3 stored 2 % less for 6 % more time
#: Magic number of a skippable zstd frame, the bytes it holds, and the first of them: bytes and rows of the next frame.
_ANNOUNCEMENT = struct.Struct("<4I")
_SKIPPABLE = 0x184D2A50

#: What reading a frame raises that is not the one that was written; a flipped size may ask for all memory.
_DAMAGE = (zstandard.ZstdError, msgspec.MsgspecError, MemoryError)

Row = TypeVar("Row", bound=Struct)


class Kind(str, Enum):
    """What the rows of a manifest are: verdicts, receipts or outcomes."""

    PLAN = "plan"
    RECEIPTS = "receipts"
    OUTCOMES = "outcomes"
    RESTORED = "restored"


class Part(Struct, frozen=True, array_like=True):
    """Part `number` of `of` of a manifest: every `of`-th frame of rows. The default is everything."""

    number: int = 0
    of: int = 1


WHOLE = Part()


class Header(Struct, frozen=True, omit_defaults=True):
    """The first line: whose manifest this is. Enough to restore by, should nothing else be left.

    Receipts say in `place` where their root was, by which recovery knows it again. Outcomes tell of one `part`
    of the receipts, and were made durable every `batch` rows: so many may be missing after a crash.
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
    part: Part = WHOLE
    batch: int = 0


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

    def __init__(self, path: Path, header: Header | None, *, by_path: bool = False) -> None:
        """Create the file, mode 0600; without a header it is a segment of a manifest.

        With `by_path` its rows, which have paths, can be found by them: 4 bytes and 0.3 us a row.
        Raises FileExistsError: a manifest is never overwritten.
        """
        self.path = path
        self._by_path = by_path
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
                self._write_frame([header], 0)
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
            self._write_frame([Trailer(self.rows)], 0)
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
            self._write_frame(self._pending, len(self._pending))
            self._pending = []

    def _write_frame(self, lines: list[Struct], rows: int) -> None:
        frame = self._compress(self._encode(lines))
        keys = array("I", sorted(map(_key, lines))).tobytes() if self._by_path and rows else b""
        self._write(_ANNOUNCEMENT.pack(_SKIPPABLE, 8 + len(keys), len(frame), rows) + keys + frame)

    def _write(self, frame: bytes) -> None:
        self._sha256.update(frame)
        view = memoryview(frame)
        while view:
            view = view[os.write(self._fd, view) :]


@contextmanager
def write_manifest(path: Path, header: Header | None, *, by_path: bool = False) -> Generator[ManifestWriter]:
    """Open a manifest, or without a header a segment of one, for writing; unless it is closed it counts as cut off."""
    writer = ManifestWriter(path, header, by_path=by_path)
    try:
        yield writer
    finally:
        writer.abandon()


def segment_of(path: Path, number: int) -> Path:
    """Return where one shard's segment of the manifest at `path` is written."""
    return path.with_name(f"{path.name}.{number}")


def segments_of(path: Path) -> list[Path]:
    """Return the segments of the manifest at `path` that are there and were not joined."""
    return sorted(path.parent.glob(f"{path.name}.*"))


def join_segments(manifest: ManifestWriter, segments: Sequence[ManifestRef]) -> ManifestRef:
    """Append finished segments to a manifest, in their order, close it, and remove them."""
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
    with _open(path) as file:
        return _header(path, _frames(path, file))


def read_manifest(path: Path, row: type[Row], part: Part = WHOLE, *, torn: bool = False) -> Iterator[Row]:
    """Yield the rows of a manifest, or those of a part, in order.

    With `torn` the rows before a cut are yielded and the rest is ignored, as recovery needs it; otherwise a missing
    trailer or a damaged frame raises ManifestError, after the rows before it were yielded.
    """
    try:
        with _open(path) as file:
            frames = _frames(path, file)
            _header(path, frames)
            yield from _rows(path, row, frames, part)
    except ManifestError:
        if not torn:
            raise


def read_segment(path: Path, row: type[Row]) -> Iterator[Row]:
    """Yield the rows of a segment that was never joined, as far as they go; none when there is no such file."""
    try:
        with _open(path) as file:
            yield from _rows(path, row, _frames(path, file), WHOLE)
    except ManifestError:
        return


def find_rows(path: Path, row: type[Row], paths: Collection[str]) -> list[Row]:
    """Return the rows of a manifest written `by_path` that have one of the `paths`. Raises ManifestError."""
    decode = msgspec.json.Decoder(row).decode_lines
    wanted = sorted(zlib.crc32(path.encode()) for path in paths)
    found: list[Row] = []
    with _open(path) as file:
        for frame in _frames(path, file):
            if _has_any(frame.keys, wanted):
                found += [row for row in decode(frame.unpack()) if getattr(row, "path", None) in paths]
    return found


def _key(row: Struct) -> int:
    path: str = getattr(row, "path")  # noqa: B009  not every Struct has one, only those written `by_path`
    return zlib.crc32(path.encode())


def _has_any(keys: bytes, wanted: Sequence[int]) -> bool:
    if not keys:
        return False
    ordered = memoryview(keys).cast("I")
    for key in wanted:
        place = bisect_left(ordered, key)
        if place < len(ordered) and ordered[place] == key:
            return True
    return False


def _rows(path: Path, row: type[Row], frames: Iterator["_Frame"], part: Part) -> Iterator[Row]:
    decode = msgspec.json.Decoder(row).decode_lines
    count = 0
    for number, frame in enumerate(frames):
        if not frame.rows:
            _check_trailer(path, frame, count)
            return
        if number % part.of == part.number:
            try:
                rows = decode(frame.unpack())
            except _DAMAGE as error:
                raise ManifestError(f"the manifest {path} is damaged after {count} rows: {error}") from None
            if len(rows) != frame.rows:
                raise ManifestError(f"the manifest {path} is damaged after {count} rows: {frame.rows} were announced")
            yield from rows
        count += frame.rows
    raise ManifestError(f"the manifest {path} was cut off after {count} rows")


def _check_trailer(path: Path, frame: "_Frame", rows: int) -> None:
    try:
        end = msgspec.json.decode(frame.unpack(), type=Trailer).end
    except _DAMAGE as error:
        raise ManifestError(f"the manifest {path} is damaged after {rows} rows: {error}") from None
    if end != rows:
        raise ManifestError(f"the manifest {path} lacks rows: {rows} are there")


def _header(path: Path, frames: Iterator["_Frame"]) -> Header:
    try:
        frame = next(frames, None)
        return msgspec.json.decode(b"" if frame is None else frame.unpack(), type=Header)
    except (*_DAMAGE, ManifestError):
        raise ManifestError(f"{path} is not a manifest of cleanup_dagster") from None


class _Frame(NamedTuple):
    """A frame that was announced. It has no rows when it is the header or the trailer."""

    file: BinaryIO
    offset: int
    length: int
    rows: int
    keys: bytes

    def unpack(self) -> bytes:
        self.file.seek(self.offset)
        return zstandard.ZstdDecompressor().decompress(self.file.read(self.length))


@contextmanager
def _open(path: Path) -> Generator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ManifestError(f"the manifest {path} cannot be read: {error.strerror}") from None
    with file:
        yield file


def _frames(path: Path, file: BinaryIO) -> Iterator[_Frame]:
    """Yield the frames of a manifest that are wholly there. Raises ManifestError where none is announced."""
    size, position = os.fstat(file.fileno()).st_size, 0
    while len(announcement := file.read(_ANNOUNCEMENT.size)) == _ANNOUNCEMENT.size:
        magic, held, length, rows = _ANNOUNCEMENT.unpack(announcement)
        if magic != _SKIPPABLE or held < 8:
            raise ManifestError(f"the manifest {path} is damaged at byte {position}")
        offset = position + 8 + held
        position = offset + length
        if position > size:
            return
        yield _Frame(file, offset, length, rows, file.read(held - 8))
        file.seek(position)


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
