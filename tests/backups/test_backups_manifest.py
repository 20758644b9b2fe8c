"""Manifests: what was written is read back, and what was not written is never made up."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanup_dagster.backups.manifest import (
    Header,
    Kind,
    ManifestError,
    ManifestRef,
    ManifestWriter,
    Part,
    batches,
    find_rows,
    join_segments,
    read_header,
    read_manifest,
    read_segment,
    segment_of,
    segments_of,
    verify_manifest,
    write_manifest,
)
from cleanup_dagster.retention.models import Identity, Outcome, Receipt, State

HEADER = Header(Kind.RECEIPTS, "run-1", "logs", "/data/logs", 1_700_000_000_000_000_000, "/backups")


def receipt(number: int) -> Receipt:
    identity = Identity(1, number, 10, 2**62 + number, 0, 0, 0o100644)
    return Receipt(number, rf"a/\xff{number}.log", identity, "logs", f"{number:064x}", f"a/{number}.backup", "flock")


def write(path: Path, rows: int, *, per_frame: int = 2) -> tuple[ManifestRef, list[int]]:
    """Write a manifest, and return its reference and its size after every frame."""
    sizes: list[int] = []
    with write_manifest(path, HEADER) as writer:
        sizes.append(path.stat().st_size)
        for number in range(rows):
            writer.write(receipt(number))
            if number % per_frame == per_frame - 1:
                writer.sync()
                sizes.append(path.stat().st_size)
        return writer.close(), sizes


@pytest.mark.parametrize("rows", [0, 1, 5, 9_000])
def test_rows_come_back_in_order(tmp_path: Path, rows: int) -> None:
    reference, _ = write(tmp_path / "m", rows, per_frame=10_000)
    assert reference.rows == rows
    assert list(read_manifest(tmp_path / "m", Receipt)) == [receipt(number) for number in range(rows)]
    assert read_header(tmp_path / "m") == HEADER
    verify_manifest(reference)


def test_the_file_is_ours_alone(tmp_path: Path) -> None:
    write(tmp_path / "m", 1)
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o600


def test_a_manifest_is_never_overwritten(tmp_path: Path) -> None:
    reference, _ = write(tmp_path / "m", 1)
    with pytest.raises(FileExistsError):
        ManifestWriter(tmp_path / "m", HEADER)
    verify_manifest(reference)


def test_a_symlink_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "m").symlink_to("elsewhere")
    with pytest.raises(FileExistsError):
        ManifestWriter(tmp_path / "m", HEADER)
    assert not (tmp_path / "elsewhere").exists()


def test_zstd_alone_shows_it(tmp_path: Path) -> None:
    write(tmp_path / "m", 3)
    content = zstandard.ZstdDecompressor().stream_reader((tmp_path / "m").read_bytes(), read_across_frames=True).read()
    lines = content.splitlines()
    assert len(lines) == 5
    assert lines[0].startswith(b'{"manifest":"receipts","run_id":"run-1"')
    assert lines[-1] == b'{"end":3}'


@pytest.mark.parametrize("kept", range(4))
def test_a_cut_between_frames_is_seen_and_recovery_reads_what_is_before_it(tmp_path: Path, kept: int) -> None:
    _, sizes = write(tmp_path / "m", 6)
    os.truncate(tmp_path / "m", sizes[kept])
    with pytest.raises(ManifestError, match=rf"was cut off after {2 * kept} rows$"):
        list(read_manifest(tmp_path / "m", Receipt))
    assert list(read_manifest(tmp_path / "m", Receipt, torn=True)) == [receipt(number) for number in range(2 * kept)]


def test_a_cut_anywhere_never_yields_what_was_not_written(tmp_path: Path) -> None:
    _, sizes = write(tmp_path / "m", 6)
    whole = (tmp_path / "m").read_bytes()
    written = [receipt(number) for number in range(6)]
    for size in range(len(whole)):
        (tmp_path / "m").write_bytes(whole[:size])
        rows = list(read_manifest(tmp_path / "m", Receipt, torn=True))
        complete = 2 * sum(size >= frame for frame in sizes[1:])
        assert rows == written[: len(rows)]
        assert len(rows) >= complete
        if size <= sizes[-1]:  # after that only the trailer's last bytes may be missing
            with pytest.raises(ManifestError):
                list(read_manifest(tmp_path / "m", Receipt))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> ManifestRef:
    return write(tmp_path_factory.mktemp("manifest") / "m", 12, per_frame=4)[0]


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_a_flipped_bit_is_noticed(sound: ManifestRef, data: st.DataObject) -> None:
    content = bytearray(Path(sound.path).read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    flipped = Path(sound.path).with_name("flipped")
    flipped.write_bytes(content)
    with pytest.raises(ManifestError, match="its sha256 differs"):
        verify_manifest(ManifestRef(str(flipped), sound.sha256, sound.rows))
    # Without a recorded sha256, as recovery reads the outcomes of a dead run: each frame has a checksum of its own.
    try:
        rows = list(read_manifest(flipped, Receipt))
    except ManifestError:
        return
    assert rows == [receipt(number) for number in range(12)]  # a bit that means nothing


def test_a_missing_row_is_noticed(tmp_path: Path) -> None:
    _, sizes = write(tmp_path / "m", 6)
    whole = (tmp_path / "m").read_bytes()
    (tmp_path / "m").write_bytes(whole[: sizes[1]] + whole[sizes[2] :])
    with pytest.raises(ManifestError, match=r"lacks rows: 4 are there$"):
        list(read_manifest(tmp_path / "m", Receipt))


def test_one_that_was_not_closed_has_no_trailer(tmp_path: Path) -> None:
    with write_manifest(tmp_path / "m", HEADER) as writer:
        writer.write(receipt(0))
        writer.sync()
        writer.write(receipt(1))  # never written: only a sync or a close says it is
    assert list(read_manifest(tmp_path / "m", Receipt, torn=True)) == [receipt(0)]
    with pytest.raises(ManifestError, match="was cut off after 1 rows"):
        list(read_manifest(tmp_path / "m", Receipt))


@pytest.mark.parametrize("content", [b"", b"{}", b"\x28\xb5\x2f\xfd", b"plain text\n", bytes(range(100, 200))])
def test_a_foreign_file_is_not_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(ManifestError, match="/m is not a manifest of cleanup_dagster"):
        read_header(tmp_path / "m")
    with pytest.raises(ManifestError, match="/m is not a manifest of cleanup_dagster"):
        list(read_manifest(tmp_path / "m", Receipt))
    assert list(read_manifest(tmp_path / "m", Receipt, torn=True)) == []


def test_rows_of_another_kind_are_not_read(tmp_path: Path) -> None:
    with write_manifest(tmp_path / "m", HEADER) as writer:
        writer.write(Outcome(0, "a", "logs", State.DELETED, 1))
        writer.close()
    with pytest.raises(ManifestError, match="is damaged after 0 rows"):
        list(read_manifest(tmp_path / "m", Receipt))


def test_one_that_is_missing(tmp_path: Path) -> None:
    for act in (
        lambda: read_header(tmp_path / "m"),
        lambda: list(read_manifest(tmp_path / "m", Receipt)),
        lambda: verify_manifest(ManifestRef(str(tmp_path / "m"), "", 0)),
    ):
        with pytest.raises(ManifestError, match="/m cannot be read: No such file"):
            act()


def test_a_full_disk_is_not_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with write_manifest(tmp_path / "m", HEADER) as writer:
        writer.write(receipt(0))
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            writer.sync()


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write

    def seven_bytes(fd: int, data: memoryview) -> int:
        return whole(fd, data[:7])

    monkeypatch.setattr(os, "write", seven_bytes)
    write(tmp_path / "m", 5)
    assert len(list(read_manifest(tmp_path / "m", Receipt))) == 5


def test_its_name_is_durable_before_its_first_rows_are_relied_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def record(fd: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", record)
    with write_manifest(tmp_path / "m", HEADER) as writer:
        writer.write(receipt(0))
        writer.sync()
        assert synced == [str(tmp_path / "m"), str(tmp_path)]
        writer.sync()
        assert synced[2:] == [str(tmp_path / "m")]


def test_reading_holds_one_frame_in_memory(tmp_path: Path) -> None:
    with write_manifest(tmp_path / "m", HEADER) as writer:
        for number in range(100_000):
            writer.write(receipt(number))
        writer.close()
    code = """
import resource, sys
from pathlib import Path
from cleanup_dagster.backups.manifest import read_manifest
from cleanup_dagster.retention.models import Receipt
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = sum(1 for _ in read_manifest(Path(sys.argv[1]), Receipt))
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    # From a shell, because a process begins with the peak of whoever started it, and pytest's is higher than any here.
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", code, str(tmp_path / "m")]
    rows, grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert rows == "100000"
    assert int(grown) < 16_000  # KiB; the rows as a list take 90,000


@pytest.mark.parametrize(("rows", "sizes"), [(0, []), (1, [1]), (4, [2, 2]), (5, [2, 2, 1])])
def test_batches(rows: int, sizes: list[int]) -> None:
    taken: list[int] = []

    def source() -> Iterator[Receipt]:
        for number in range(rows):
            taken.append(number)
            yield receipt(number)

    found = list(batches(source(), 2))
    assert [len(batch) for batch in found] == sizes
    assert [row.number for batch in found for row in batch] == taken == list(range(rows))


def by_path(path: Path, rows: int) -> None:
    with write_manifest(path, HEADER, by_path=True) as writer:
        for number in range(rows):
            writer.write(receipt(number))
            if number % 10 == 9:
                writer.sync()
        writer.close()


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_parts_together_are_everything_once(tmp_path: Path, of: int) -> None:
    by_path(tmp_path / "m", 95)
    parts = [list(read_manifest(tmp_path / "m", Receipt, Part(number, of))) for number in range(of)]
    assert sorted(row.number for part in parts for row in part) == list(range(95))
    assert all(part for part in parts)
    assert [row.number for row in parts[0]][:10] == list(range(10))


def test_a_row_is_found_by_its_path_without_unpacking_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_path(tmp_path / "m", 1_000)
    unpacked: list[int] = []
    true = zstandard.ZstdDecompressor

    class Counting:
        def decompress(self, frame: bytes) -> bytes:
            unpacked.append(len(frame))
            return true().decompress(frame)

    monkeypatch.setattr(zstandard, "ZstdDecompressor", Counting)
    wanted = {receipt(777).path, receipt(3).path, "not/there"}
    assert [row.number for row in find_rows(tmp_path / "m", Receipt, wanted)] == [3, 777]
    assert len(unpacked) == 2
    assert find_rows(tmp_path / "m", Receipt, {"not/there"}) == []


def test_segments_are_joined_in_their_order_and_removed(tmp_path: Path) -> None:
    segments: list[ManifestRef] = []
    for number in range(3):
        with write_manifest(segment_of(tmp_path / "m", number), None, by_path=True) as segment:
            for row in range(5 * number, 5 * number + 5):
                segment.write(receipt(row))
            segments.append(segment.close())
    assert segments_of(tmp_path / "m") == [Path(segment.path) for segment in segments]
    assert [row.number for row in read_segment(Path(segments[1].path), Receipt)] == list(range(5, 10))
    with write_manifest(tmp_path / "m", HEADER) as writer:
        joined = join_segments(writer, segments)
    verify_manifest(joined)
    assert [row.number for row in read_manifest(tmp_path / "m", Receipt)] == list(range(15))
    assert [row.number for row in find_rows(tmp_path / "m", Receipt, {receipt(7).path})] == [7]
    assert segments_of(tmp_path / "m") == []


def test_a_segment_that_was_changed_is_not_joined(tmp_path: Path) -> None:
    with write_manifest(tmp_path / "m.0", None) as segment:
        segment.write(receipt(0))
        written = segment.close()
    (tmp_path / "m.0").write_bytes(b"something else")
    with write_manifest(tmp_path / "m", HEADER) as writer, pytest.raises(ManifestError, match="its sha256 differs"):
        join_segments(writer, [written])


def test_a_segment_that_broke_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    with write_manifest(tmp_path / "m.0", None) as segment:
        segment.write(receipt(0))
        segment.sync()
        segment.write(receipt(1))
    assert list(read_segment(tmp_path / "m.0", Receipt)) == [receipt(0)]
    os.truncate(tmp_path / "m.0", (tmp_path / "m.0").stat().st_size - 1)
    assert list(read_segment(tmp_path / "m.0", Receipt)) == []
    assert list(read_segment(tmp_path / "m.1", Receipt)) == []
