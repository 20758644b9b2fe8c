"""Archives: what goes in comes out, by tar and by the manifest's offsets, and damage never passes for content."""

import os
import random
import string
import subprocess
import tarfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cleanup_dagster.backups.archive import FRAME_BYTES, ArchiveWriter, read_member, tar_header, unpack
from cleanup_dagster.backups.staged import Staged
from cleanup_dagster.filesystem.identity import identify
from cleanup_dagster.filesystem.space import bytes_in_archive
from cleanup_dagster.retention.models import Identity

names = st.binary(min_size=1, max_size=250).filter(lambda name: b"/" not in name and b"\0" not in name)


@contextmanager
def archive(path: Path) -> Generator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def add(writer: ArchiveWriter, file: Path, name: str | None = None) -> Staged:
    fd = os.open(file, os.O_RDONLY)
    try:
        return writer.add(name or file.name, identify(os.fstat(fd)), fd)
    finally:
        os.close(fd)


def content(fd: int, member: Staged) -> bytes:
    assert member.frame is not None
    return b"".join(read_member(fd, member.frame, member.size))


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@given(files=st.lists(st.tuples(names, st.binary(max_size=3_000)), max_size=20))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_member_reads_back_by_its_offsets_and_by_tar(tmp_path: Path, files: list[tuple[bytes, bytes]]) -> None:
    with archive(tmp_path / "a.tar.zst") as fd:
        writer = ArchiveWriter(fd)
        source = tmp_path / "source"
        members = [(name, data, add(writer, write(source, data), os.fsdecode(name))) for name, data in files]
        writer.finish()
        assert [content(fd, member) for _, _, member in members] == [data for _, data, _ in members]
        raw = tmp_path / "a.tar"
        raw.write_bytes(b"".join(unpack_all(tmp_path / "a.tar.zst")))
    with closing(tarfile.open(raw, encoding="utf-8", errors="surrogateescape")) as tar:
        read = [(os.fsencode(info.name), (tar.extractfile(info) or pytest.fail("no file")).read()) for info in tar]
    assert read == [(name, data) for name, data, _ in members]


@pytest.mark.parametrize(("files", "size"), [(1_000, 1), (1_000, 513), (2, FRAME_BYTES + 1), (3, 0)])
def test_an_archive_is_never_larger_than_the_room_that_was_asked_for(tmp_path: Path, files: int, size: int) -> None:
    """Not of bytes and names that do not pack either."""
    with archive(tmp_path / "a.tar.zst") as fd:
        writer = ArchiveWriter(fd)
        for number in range(files):
            name = "".join(random.choices(string.ascii_letters, k=250)) + str(number)  # noqa: S311
            add(writer, write(tmp_path / "source", os.urandom(size)), name)
        writer.finish()
        assert files * size < os.fstat(fd).st_size <= bytes_in_archive(files, files * size)


def unpack_all(path: Path) -> Iterator[bytes]:

    with path.open("rb") as file:
        yield zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()


def test_gnu_tar_extracts_long_names_large_and_sparse_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write(source / ("n" * 180), b"long name")
    write(source / "large", os.urandom(FRAME_BYTES + 4_321) + bytes(FRAME_BYTES))
    write(source / "empty", b"")
    with (source / "sparse").open("wb") as file:
        file.truncate(20 * FRAME_BYTES)
    path = tmp_path / "a.tar.zst"
    with archive(path) as fd:
        writer = ArchiveWriter(fd)
        members = {file.name: add(writer, file) for file in sorted(source.iterdir())}
        writer.finish()
        for name, member in members.items():
            assert content(fd, member) == (source / name).read_bytes()
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", "--zstd", "-xf", str(path), "-C", str(out)], check=True)
    subprocess.run(["diff", "-r", str(source), str(out)], check=True)
    assert path.stat().st_size < 2 * FRAME_BYTES


@pytest.mark.parametrize("size", [0, 8**11 - 1, 8**11, 8 * 1024**3, 2**40])
@pytest.mark.parametrize("name", ["a", "b" * 100, "c" * 101, "dir/" + "e" * 250])
def test_headers_carry_any_size_and_name(size: int, name: str) -> None:
    header = tar_header(name, Identity(1, 2, size, 1_700_000_000_000_000_000, 1000, 1001, 0o104755), size)
    info = tarfile.TarInfo.frombuf(header[-512:], "utf-8", "surrogateescape")
    assert (info.size, info.mtime, info.uid, info.gid, info.mode) == (size, 1_700_000_000, 1000, 1001, 0o755)
    assert name.startswith(info.name)


def test_headers_carry_moments_before_1970_and_huge_owners() -> None:
    header = tar_header("a", Identity(1, 2, 3, -5_000_000_000, 2**31, 2**31, 0o100600), 3)
    info = tarfile.TarInfo.frombuf(header[-512:], "utf-8", "surrogateescape")
    assert (info.mtime, info.uid) == (0, 2**31)


def test_a_file_that_grew_is_told_by_its_size(tmp_path: Path) -> None:
    for size in (10, 2 * FRAME_BYTES):
        file = write(tmp_path / "f", os.urandom(size))
        with archive(tmp_path / "a") as fd, file.open("rb") as source:
            before = identify(os.fstat(source.fileno()))
            with file.open("ab") as appender:
                appender.write(b"more")
            assert ArchiveWriter(fd).add("f", before, source.fileno()).size != size


def test_a_large_file_that_shrank_leaves_the_archive_readable(tmp_path: Path) -> None:
    file = write(tmp_path / "f", bytes(3 * FRAME_BYTES))
    path = tmp_path / "a.tar.zst"
    with archive(path) as fd, file.open("rb") as source:
        before = identify(os.fstat(source.fileno()))
        os.truncate(file, FRAME_BYTES)
        writer = ArchiveWriter(fd)
        shrunk = writer.add("f", before, source.fileno())
        writer.take_back(shrunk)
        after = add(writer, write(tmp_path / "g", b"next"))
        writer.finish()
        assert shrunk.size == FRAME_BYTES
        assert content(fd, after) == b"next"
    listed = subprocess.run(["tar", "--zstd", "-tf", str(path)], check=True, capture_output=True, text=True)
    assert listed.stdout.split() == ["f", "g"]


def test_commit_notices_bytes_that_changed_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with archive(tmp_path / "a") as fd:
        writer = ArchiveWriter(fd)
        add(writer, write(tmp_path / "f", os.urandom(5_000)))
        sync = os.fdatasync

        def flip(descriptor: int) -> None:
            sync(descriptor)
            byte = os.pread(descriptor, 1, 3_000)
            os.pwrite(descriptor, bytes([byte[0] ^ 1]), 3_000)

        monkeypatch.setattr(os, "fdatasync", flip)
        with pytest.raises(OSError, match=r"does not read back|is damaged"):
            writer.commit()


def test_commit_notices_a_whole_frame_that_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that a disk put in a wrong place is a sound frame where it arrives."""
    with archive(tmp_path / "a") as fd, archive(tmp_path / "b") as other:
        writer, another = ArchiveWriter(fd), ArchiveWriter(other)
        add(writer, write(tmp_path / "f", os.urandom(5_000)))
        add(another, write(tmp_path / "f", os.urandom(5_000)))
        another.commit()

        def misplace(_: int) -> None:
            os.pwrite(fd, (tmp_path / "b").read_bytes(), 0)

        monkeypatch.setattr(os, "fdatasync", misplace)
        with pytest.raises(OSError, match="does not read back"):
            writer.commit()


@pytest.mark.parametrize("cut", [1, 10, 1_000, 9_999])
def test_a_torn_tail_leaves_everything_before_it_usable(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a"
    with archive(path) as fd:
        writer = ArchiveWriter(fd)
        first = add(writer, write(tmp_path / "f", os.urandom(9_000)))
        writer.commit()
        last = add(writer, write(tmp_path / "g", os.urandom(20_000)))
        writer.commit()
        whole = content(fd, first)
        os.ftruncate(fd, writer.bytes_written - cut)
        assert content(fd, first) == whole
        with pytest.raises(OSError, match=r"cut off|damaged|ends before"):
            content(fd, last)


def test_a_foreign_file_is_no_archive(tmp_path: Path) -> None:
    with archive(tmp_path / "a") as fd:
        os.write(fd, b"this is not zstd" * 100)
        with pytest.raises(OSError, match="damaged"):
            b"".join(unpack(fd, 0, 1_600))
