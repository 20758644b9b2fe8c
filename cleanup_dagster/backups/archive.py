"""Backups of format `archive`: one `.tar.zst` per target and run, for platforms with very many small files.

Independent zstd frames of about 1 MiB, each holding whole tar members: `tar --zstd -xf` reads the archive as it is, and
the manifest's offsets read one file out of a million without touching the rest. A larger file has a frame of its own,
written and read as a stream. After a crash the archive is usable up to its last whole frame.
"""

import hashlib
import os
import sys
import tarfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

import zstandard

from cleanup_dagster.backups.source import SourceError, read_source
from cleanup_dagster.backups.staged import Staged
from cleanup_dagster.retention.models import Frame, Identity

FRAME_BYTES = 1 << 20  # raw; 64 KiB frames stored 7 % more, 8 MiB ones read a single file ten times slower
_BLOCK = 512
_CHUNK = 1 << 20
_LEVEL = 1  # level 3 stored 2 % less for 6 % more time
_OCTAL_SIZE_MAX = 8 * 1024**3
_END = bytes(2 * _BLOCK)
#: A tar header's checksum as it is summed up, and what comes after it: no link, no names of owners, no device.
_CHECKSUM, _AFTER = b"        ", b"0" + bytes(100) + b"ustar  \0" + bytes(247)
_CONSTANT_SUM = sum(_CHECKSUM + _AFTER)
_ENCODING = sys.getfilesystemencoding()


class ArchiveWriter:
    """Writes one archive through an open descriptor, which stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        self._offset = 0
        self._raw = bytearray()
        self._members: list[Staged] = []
        #: Frames written since the last `commit`: place, length and the sha256 of their bytes.
        self._unverified: list[tuple[int, int, str]] = []

    @property
    def bytes_written(self) -> int:
        """Bytes of the archive so far, without what is still gathered for the next frame."""
        return self._offset

    def add(self, name: str, identity: Identity, source: int) -> Staged:
        """Add an open file of `identity.size` bytes under its name (as the operating system has it).

        The caller checks afterwards that the file was still the same, and calls `take_back` when it was not.
        Raises SourceError when it cannot be read, and then it is not added.
        """
        if identity.size > FRAME_BYTES:
            return self._add_large(name, identity, source)
        content = _read_whole(source, identity.size)
        header = tar_header(name, identity, len(content))
        if self._raw and len(self._raw) + len(header) + len(content) > FRAME_BYTES:
            self._flush()
        self._raw += header
        member = Staged(hashlib.sha256(content).hexdigest(), len(content), inner=len(self._raw))
        self._raw += content
        self._raw += bytes(-len(content) % _BLOCK)
        self._members.append(member)
        return member

    def take_back(self, member: Staged) -> None:
        """Forget the file added last. What was written of it stays as a member that no receipt names."""
        if self._members and self._members[-1] is member:
            self._members.pop()

    def commit(self) -> None:
        """Write what is gathered, make it durable, read it back from the device and compare. Raises OSError."""
        self._flush()
        os.fdatasync(self._fd)
        if hasattr(os, "posix_fadvise"):  # drops the cached pages, so that the device itself answers
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for offset, length, sha256 in self._unverified:
            if _hash(self._fd, offset, length) != sha256:
                raise OSError("the archive does not read back as it was written; the disk is failing")
            for _ in unpack(self._fd, offset, length):  # which compares what comes out with the frame's own checksum
                pass
        self._unverified.clear()

    def finish(self) -> None:
        """End the archive as tar wants it ended. Call after the last `commit`; it commits again."""
        self._raw += _END
        self.commit()

    def _flush(self) -> None:
        if not self._raw:
            return
        frame = self._compressor.compress(self._raw)
        self._append(frame)
        self._unverified.append((self._offset, len(frame), hashlib.sha256(frame).hexdigest()))
        for member in self._members:
            member.frame = Frame(self._offset, len(frame), member.inner)
        self._offset += len(frame)
        self._members.clear()
        self._raw.clear()

    def _add_large(self, name: str, identity: Identity, source: int) -> Staged:
        self._flush()
        header = tar_header(name, identity, identity.size)
        written, content = hashlib.sha256(), hashlib.sha256()
        stream = self._compressor.compressobj()
        start, copied, length = self._offset, 0, 0

        def write(packed: bytes) -> None:
            nonlocal length
            written.update(packed)
            length += self._append(packed, length)

        write(stream.compress(header))
        unreadable: SourceError | None = None
        try:
            while copied < identity.size and (block := read_source(source, min(_CHUNK, identity.size - copied))):
                content.update(block)
                copied += len(block)
                write(stream.compress(block))
        except SourceError as error:
            unreadable = error
        # A file that shrank, or cannot be read to its end, leaves a member of the promised size all the same: the
        # archive stays a tar.
        rest = identity.size - copied + -identity.size % _BLOCK
        while rest > 0:
            zeros = bytes(min(_CHUNK, rest))
            write(stream.compress(zeros))
            rest -= len(zeros)
        write(stream.flush())
        self._unverified.append((start, length, written.hexdigest()))
        self._offset = start + length
        if unreadable is not None:
            raise unreadable
        grown = len(read_source(source, 1))
        return Staged(content.hexdigest(), copied + grown, frame=Frame(start, length, len(header)))

    def _append(self, data: bytes, already: int = 0) -> int:
        view, position = memoryview(data), self._offset + already
        while view:
            written = os.pwrite(self._fd, view, position)
            view, position = view[written:], position + written
        return len(data)


def read_member(archive: int, frame: Frame, size: int) -> Iterator[bytes]:
    """Yield the bytes of one member of an open archive. Raises OSError when the frame is not whole."""
    skip, left = frame.inner, size
    for block in unpack(archive, frame.offset, frame.length):
        if skip >= len(block):
            skip -= len(block)
            continue
        piece = block[skip : skip + left]
        skip, left = 0, left - len(piece)
        yield piece
        if left == 0:
            return
    if left:
        raise OSError("the archive ends before the file does")


def _hash(archive: int, offset: int, length: int) -> str:
    digest = hashlib.sha256()
    packed = _Packed(archive, offset, length)
    while block := packed.read(_CHUNK):
        digest.update(block)
    return digest.hexdigest()


def unpack_small(archive: int, frame: Frame) -> bytes:
    """Return all that a frame of small members holds. Raises OSError when it is not whole, or none of ours."""
    raw = bytearray()
    for block in unpack(archive, frame.offset, frame.length):
        raw += block
        if len(raw) > 2 * FRAME_BYTES:  # 1 MiB of packed zeros would be 30 GiB of memory
            raise OSError("the archive is damaged: a frame holds more than was ever packed into one")
    return bytes(raw)


def unpack(archive: int, offset: int, length: int) -> Iterator[bytes]:
    """Yield what one frame holds, in blocks. Raises OSError when it is not a whole frame."""
    # Not by decompressobj: it returns all that a chunk unpacks to, and 1 MiB of packed zeros is 30 GiB of them.
    try:
        packed = cast("BinaryIO", _Packed(archive, offset, length))  # all of it that the reader asks for
        with zstandard.ZstdDecompressor().stream_reader(packed) as stream:
            while block := stream.read(_CHUNK):
                yield block
    except zstandard.ZstdError as error:
        raise OSError(f"the archive is damaged: {error}") from None


class _Packed:
    """One frame of an archive, as a file that ends where the frame does."""

    def __init__(self, archive: int, offset: int, length: int) -> None:
        """Raise OSError for a frame that does not lie in the archive, as a forged receipt may say."""
        if offset < 0 or length < 0 or offset + length > os.fstat(archive).st_size:
            raise OSError("the archive was cut off")
        self._archive, self._offset, self._left = archive, offset, length

    def read(self, size: int) -> bytes:
        if not self._left:
            return b""
        packed = os.pread(self._archive, min(size, self._left), self._offset)
        if not packed:
            raise OSError("the archive was cut off")
        self._offset, self._left = self._offset + len(packed), self._left - len(packed)
        return packed


def tar_header(name: str, identity: Identity, size: int) -> bytes:
    """Return the tar header of a file: GNU format, so that any bytes, long names and sizes over 8 GiB have a place.

    Ordinary names are laid out here, 2 us instead of the standard library's 20; the others are left to it.
    """
    encoded = name.encode(_ENCODING, "surrogateescape")  # os.fsencode does the same in four times the time
    mtime, mode = identity.mtime_ns // 1_000_000_000, identity.mode & 0o777
    small = size < _OCTAL_SIZE_MAX and 0 <= mtime < 8**11 and identity.uid < 8**7 and identity.gid < 8**7
    if len(encoded) > 100 or not small:
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode, info.uid, info.gid = size, max(mtime, 0), mode, identity.uid, identity.gid
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    fields = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, identity.uid, identity.gid, size, mtime)
    before = encoded.ljust(100, b"\0") + fields
    # The low half of Adler-32 is 1 + the sum of the bytes, which for these fields stays far below its modulus.
    checksum = (zlib.adler32(before) & 0xFFFF) - 1 + _CONSTANT_SUM
    return b"".join((before, b"%06o\0 " % checksum, _AFTER))


def _read_whole(source: int, size: int) -> bytes:
    """Return up to one byte more than `size`, so that a file that grew is told by its length."""
    first = read_source(source, size + 1)
    if len(first) == size:  # a file ends where a read of it comes back short
        return first
    blocks = [first]
    left = size + 1 - len(first)
    while left > 0 and (block := read_source(source, left)):
        blocks.append(block)
        left -= len(block)
    return b"".join(blocks)
