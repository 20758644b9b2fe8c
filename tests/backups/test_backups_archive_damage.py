"""Archives that were cut off, damaged, swapped or orphaned, and names that tar finds hard."""

import gzip
import os
import shutil
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from msgspec import structs

from cleanup_dagster.backups.archive import FRAME_BYTES, ArchiveWriter, tar_header
from cleanup_dagster.backups.files import open_file_backups
from cleanup_dagster.backups.staged import Staged
from cleanup_dagster.filesystem.identity import identify
from cleanup_dagster.retention.models import Frame, Identity, Receipt

pytestmark = pytest.mark.skipif(not shutil.which("zstd"), reason="GNU tar asks the program zstd, which is not here")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    place = tmp_path / "store"
    place.mkdir(mode=0o700)
    return place


def pack(archive: Path, *sources: Path, finish: bool = True) -> list[Receipt]:
    """Pack files under their names, and return their receipts."""
    fd = os.open(archive, os.O_RDWR | os.O_CREAT, 0o600)
    writer = ArchiveWriter(fd)
    added: list[tuple[Path, Identity, Staged]] = []
    for source in sources:
        opened = os.open(source, os.O_RDONLY)
        identity = identify(os.fstat(opened))
        added.append((source, identity, writer.add(source.name, identity, opened)))
        os.close(opened)
    writer.commit()
    if finish:
        writer.finish()
    os.close(fd)
    return [
        Receipt(number, source.name, identity, "logs", member.sha256, archive.name, "", frame=member.frame)
        for number, (source, identity, member) in enumerate(added)
    ]


def make(directory: Path, names: list[str], content: bytes = b"x" * 1000) -> list[Path]:
    directory.mkdir()
    for name in names:
        (directory / name).write_bytes(content + os.fsencode(name))
    return [directory / name for name in names]


def problems(store: Path, receipts: list[Receipt]) -> list[str | None]:
    with open_file_backups(store, "reader") as opened:
        return [opened.problem(receipt) for receipt in receipts]


def unpacked(archive: Path, into: Path) -> dict[str, bytes]:
    into.mkdir()
    subprocess.run(["tar", "--zstd", "-xf", archive, "-C", into], check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in into.iterdir()}


NAMES = ["short", "n" * 100, "n" * 101, "n" * 255, os.fsdecode(b"\xff\xfe bytes"), "new\nline", "späße", "-rf", " "]


def test_an_archive_without_its_manifest_is_a_tar(tmp_path: Path, store: Path) -> None:
    sources = make(tmp_path / "sources", NAMES)
    assert problems(store, pack(store / "a.tar.zst", *sources)) == [None] * len(NAMES)
    found = unpacked(store / "a.tar.zst", tmp_path / "unpacked")
    assert found == {source.name: source.read_bytes() for source in sources}


def test_a_manifest_without_its_archive_says_so_of_every_file(tmp_path: Path, store: Path) -> None:
    receipts = pack(store / "a.tar.zst", *make(tmp_path / "sources", ["a", "b"]))
    (store / "a.tar.zst").unlink()
    assert problems(store, receipts) == ["it cannot be read: No such file or directory"] * 2


def large(directory: Path, names: list[str]) -> list[Path]:
    """Files that each fill a frame."""
    directory.mkdir()
    for name in names:
        (directory / name).write_bytes(os.urandom(700_000))
    return [directory / name for name in names]


def test_a_cut_costs_the_files_behind_it_and_no_others(tmp_path: Path, store: Path) -> None:
    receipts = pack(store / "a.tar.zst", *large(tmp_path / "sources", ["a", "b", "c"]))
    frame = receipts[2].frame
    assert frame is not None
    os.truncate(store / "a.tar.zst", frame.offset + frame.length // 2)
    first, second, third = problems(store, receipts)
    assert first is second is None
    assert third is not None
    assert "cut off" in third or "damaged" in third


def test_a_flipped_bit_costs_its_frame_and_no_other(tmp_path: Path, store: Path) -> None:
    receipts = pack(store / "a.tar.zst", *large(tmp_path / "sources", ["a", "b", "c"]))
    frame = receipts[1].frame
    assert frame is not None
    content = bytearray((store / "a.tar.zst").read_bytes())
    content[frame.offset + frame.length // 2] ^= 4
    (store / "a.tar.zst").write_bytes(content)
    first, second, third = problems(store, receipts)
    assert first is third is None
    assert second


def test_a_foreign_archive_in_its_place_is_not_believed(tmp_path: Path, store: Path) -> None:
    receipts = pack(store / "a.tar.zst", *make(tmp_path / "sources", ["a", "b"]))
    (store / "a.tar.zst").unlink()
    pack(store / "a.tar.zst", *make(tmp_path / "others", ["a", "b"], b"y" * 1000))
    assert all(problems(store, receipts))
    (store / "a.tar.zst").write_bytes(b"no archive at all" * 100)
    assert all(problems(store, receipts))


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (Path.touch, "cut off"),
    "gzip": (lambda place: place.write_bytes(gzip.compress(os.urandom(9_000))), "damaged"),
    "directory": (Path.mkdir, "no regular file"),
    "FIFO": (os.mkfifo, "no regular file"),
    "symbolic link": (lambda place: place.symlink_to(place.with_name("sound")), "symbolic link"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_whatever_else_has_an_archives_name_is_not_read_and_nobody_waits_for_it(
    tmp_path: Path, store: Path, kind: str
) -> None:
    receipts = pack(store / "a.tar.zst", *make(tmp_path / "sources", ["a", "b"]), large_file(tmp_path))
    (store / "a.tar.zst").rename(store / "sound")
    put, said = FOREIGN[kind]
    put(store / "a.tar.zst")
    assert [said in (problem or "") for problem in problems(store, receipts)] == [True] * 3


def large_file(directory: Path) -> Path:
    """A file that has a frame of its own."""
    (directory / "large").write_bytes(bytes(FRAME_BYTES + 1))
    return directory / "large"


def test_a_flipped_bit_of_a_frames_own_checksum_is_damage(tmp_path: Path, store: Path) -> None:
    first, second = pack(store / "a.tar.zst", *large(tmp_path / "sources", ["a", "b"]))
    assert first.frame is not None
    content = bytearray((store / "a.tar.zst").read_bytes())
    content[first.frame.offset + first.frame.length - 1] ^= 1
    (store / "a.tar.zst").write_bytes(content)
    assert problems(store, [first, second])[1] is None
    assert "checksum" in (problems(store, [first])[0] or "")


def test_a_frame_that_unpacks_to_very_much_is_no_way_to_take_the_memory(tmp_path: Path, store: Path) -> None:
    """Packed zeros: 16 KiB of them unpack to half a gigabyte."""
    (receipt,) = pack(store / "a.tar.zst", *make(tmp_path / "sources", ["a"]))
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(512 << 20))
    (store / "a.tar.zst").write_bytes(bomb)
    forged = structs.replace(receipt, frame=Frame(0, len(bomb), 512))
    tracemalloc.start()
    (said,) = problems(store, [forged])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "more than was ever packed" in (said or "")
    assert peak < 32 << 20


@pytest.mark.parametrize("size", [1_000, FRAME_BYTES + 1])
@pytest.mark.parametrize(
    "frame", [Frame(1 << 40, 10, 0), Frame(0, 1 << 60, 0), Frame(1 << 70, 1, 0), Frame(-1, 9, 0), Frame(0, -9, 0)]
)
def test_a_frame_that_a_forged_receipt_places_outside_the_archive_is_only_missing(
    tmp_path: Path, store: Path, frame: Frame, size: int
) -> None:
    (receipt,) = pack(store / "a.tar.zst", *make(tmp_path / "sources", ["a"]))
    identity = structs.replace(receipt.identity, size=size)
    forged = structs.replace(receipt, frame=frame, identity=identity)
    assert problems(store, [forged]) == ["it cannot be read: the archive was cut off"]


@pytest.mark.parametrize("inner", [-1, 1 << 40, 1 << 70])
def test_a_place_outside_its_frame_is_damage(tmp_path: Path, store: Path, inner: int) -> None:
    (receipt,) = pack(store / "a.tar.zst", *make(tmp_path / "sources", ["a"]))
    assert receipt.frame is not None
    frame = structs.replace(receipt.frame, inner=inner)
    for size in (1_001, FRAME_BYTES + 1):
        forged = structs.replace(receipt, frame=frame, identity=structs.replace(receipt.identity, size=size))
        assert problems(store, [forged]) != [None]


def test_tar_reads_sizes_over_8_gib(tmp_path: Path) -> None:
    """By headers with holes behind them: zeros that nobody has to write."""
    size, tar = 9 << 30, tmp_path / "a.tar"
    identity = Identity(1, 2, size, 1_700_000_000_000_000_000, 0, 0, 0o100644)
    with tar.open("wb") as file:
        file.write(tar_header("n" * 120, identity, size))
        file.seek(size, os.SEEK_CUR)
        file.write(tar_header("after", identity, 0))
        file.truncate(file.tell() + 1_024)
    said = subprocess.run(["tar", "-tvf", tar], check=True, capture_output=True, text=True, timeout=60).stdout
    assert [(line.split()[2], line.split()[-1]) for line in said.splitlines()] == [
        (str(size), "n" * 120),
        ("0", "after"),
    ]


def test_one_file_is_read_without_touching_the_others(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipts = pack(store / "a.tar.zst", *large(tmp_path / "sources", [str(number) for number in range(20)]))
    wanted = receipts[13]
    assert wanted.frame is not None
    read: list[tuple[int, int]] = []
    true = os.pread

    def watched(fd: int, size: int, offset: int) -> bytes:
        read.append((offset, size))
        return true(fd, size, offset)

    monkeypatch.setattr(os, "pread", watched)
    assert problems(store, [wanted]) == [None]
    assert sum(size for _, size in read) == wanted.frame.length < (store / "a.tar.zst").stat().st_size / 10
    assert min(offset for offset, _ in read) == wanted.frame.offset


def test_what_was_not_finished_is_usable_up_to_its_last_frame(tmp_path: Path, store: Path) -> None:
    receipts = pack(store / "a.tar.zst", *make(tmp_path / "sources", ["a", "b"]), finish=False)
    with (store / "a.tar.zst").open("ab") as file:
        file.write(b"\x28\xb5\x2f\xfd torn")
    assert problems(store, receipts) == [None, None]


@pytest.mark.parametrize("said", [5, 20])
def test_a_file_that_grows_or_shrinks_is_told_by_its_length(tmp_path: Path, store: Path, said: int) -> None:
    (source,) = make(tmp_path / "sources", ["a"], b"0123456789")
    fd, opened = os.open(store / "a.tar.zst", os.O_RDWR | os.O_CREAT), os.open(source, os.O_RDONLY)
    member = ArchiveWriter(fd).add("a", structs.replace(identify(os.fstat(opened)), size=said), opened)
    assert member.size != said
    os.close(fd)
    os.close(opened)
