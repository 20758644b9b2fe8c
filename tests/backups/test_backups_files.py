"""Plain copies: whole, durable, private, restorable with `cp`, and never in the way of one another."""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cleanup_dagster.backups import files
from cleanup_dagster.backups.files import BackupError, FileBackups, Staged, open_file_backups
from cleanup_dagster.backups.source import SourceError
from cleanup_dagster.filesystem import syscalls
from cleanup_dagster.filesystem.names import to_os, to_text
from cleanup_dagster.retention.models import Identity

RUN = "0123456789abcdef"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture
def store(place: Path) -> Generator[FileBackups]:
    with open_file_backups(place, RUN) as opened:
        yield opened


def sized(size: int) -> Identity:
    return Identity(0, 0, size, 0, 0, 0, 0)


def stage(store: FileBackups, content: bytes, directory: Path) -> Staged:
    source = directory / "source"
    source.write_bytes(content)
    fd = os.open(source, os.O_RDONLY)
    try:
        return store.stage(fd, sized(len(content)))
    finally:
        os.close(fd)


def back_up(store: FileBackups, directory: Path, *paths: str, content: bytes = b"content") -> list[str]:
    """Back up files of these paths in one batch, and return the places of their copies."""
    batch = [stage(store, content, directory) for _ in paths]
    store.make_durable(batch)
    taken: set[str] = set()
    places = [store.choose_place(path, taken) for path in paths]
    store.publish(zip(batch, places, strict=True))
    return places


def tree(path: Path) -> list[str]:
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if not p.is_dir())


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 5_000, os.urandom(3_000_000)], ids=len)
def test_a_copy_has_the_very_bytes_under_the_very_path(
    tmp_path: Path, place: Path, store: FileBackups, content: bytes
) -> None:
    assert back_up(store, tmp_path, "a/b/x.log", content=content) == ["a/b/x.log.backup"]
    assert (place / "a/b/x.log.backup").read_bytes() == content


def test_the_hash_is_of_the_source(tmp_path: Path, store: FileBackups) -> None:
    staged = stage(store, b"content", tmp_path)
    assert (staged.sha256, staged.size) == (hashlib.sha256(b"content").hexdigest(), 7)
    assert staged.inode == os.fstat(staged.fd).st_ino


def test_nobody_else_can_read_it_whatever_the_source_and_the_umask_say(tmp_path: Path, place: Path) -> None:
    before = os.umask(0)
    (tmp_path / "source").touch()
    (tmp_path / "source").chmod(0o4777)
    with open_file_backups(place, RUN) as store:
        back_up(store, tmp_path, "a/x")
    os.umask(before)
    modes = {p.name: oct(stat.S_IMODE(p.stat().st_mode)) for p in (place, *place.rglob("*"))}
    assert modes == {"backups": "0o700", "a": "0o700", "x.backup": "0o600"}


def test_until_it_is_published_nothing_is_called_backup(tmp_path: Path, place: Path, store: FileBackups) -> None:
    staged = stage(store, b"content", tmp_path)
    assert tree(place) == [f".staging-{RUN}/0-0.part"]
    store.make_durable([staged])
    assert tree(place) == [f".staging-{RUN}/0-0.part"]


def test_what_was_staged_and_not_published_is_swept(tmp_path: Path, place: Path) -> None:
    before = descriptors()
    with open_file_backups(place, RUN) as store:
        back_up(store, tmp_path, "kept")
        stage(store, b"content", tmp_path)
        store.discard(stage(store, b"content", tmp_path))
        stage(store, b"content", tmp_path)
    assert tree(place) == ["kept.backup"]
    assert descriptors() == before


def test_what_a_dead_run_staged_is_swept_by_its_recovery_and_by_nobody_else(tmp_path: Path, place: Path) -> None:
    with open_file_backups(place, RUN) as store:
        stage(store, b"content", tmp_path)
        (place / f".staging-{RUN}").rename(place / ".staging-dead")
    with open_file_backups(place, "other"):
        pass
    assert tree(place) == [".staging-dead/0-0.part"]
    with open_file_backups(place, "dead"):
        pass
    assert list(place.iterdir()) == []


def test_the_first_has_the_plain_name_and_the_second_the_run_in_it(tmp_path: Path, place: Path) -> None:
    for run, expected in [
        ("1" * 32, "a/x.backup"),
        ("2" * 32, "a/x.22222222.backup"),
        ("2" * 8 + "3" * 24, hashlib.sha256(f"{'2' * 8 + '3' * 24}/0/a/x".encode()).hexdigest() + ".backup"),
    ]:
        with open_file_backups(place, run) as store:
            assert back_up(store, tmp_path, "a/x", content=run.encode()) == [expected]
            assert (place / expected).read_text() == run


def test_targets_of_one_run_with_the_same_paths_do_not_collide(tmp_path: Path, place: Path) -> None:
    """Four dbt projects each have a `dbt.log`."""
    places: list[str] = []
    for target in range(6):
        with open_file_backups(place, RUN) as store:
            places += back_up(store, tmp_path, "dbt.log", content=b"%d" % target)
    assert places[:2] == ["dbt.log.backup", "dbt.log.01234567.backup"]
    assert [(place / path).read_text() for path in places] == ["0", "1", "2", "3", "4", "5"]


def test_nothing_that_is_there_is_ever_replaced(tmp_path: Path, place: Path, store: FileBackups) -> None:
    batch = [stage(store, b"new", tmp_path)]
    store.make_durable(batch)
    (place / "x.backup").write_text("came meanwhile")
    with pytest.raises(BackupError, match=rf"a copy in {place} cannot be given its name: File exists"):
        store.publish([(batch[0], "x.backup")])
    assert (place / "x.backup").read_text() == "came meanwhile"


@pytest.mark.parametrize("earlier", [True, False], ids=["of an earlier batch", "of the same batch"])
@pytest.mark.parametrize("paths", [["a", "a.backup/f"], ["a.backup/f", "a"], ["a", "a.backup/f/g", "a.backup"]])
def test_a_file_and_a_directory_may_want_the_same_name(
    tmp_path: Path, place: Path, store: FileBackups, paths: list[str], earlier: bool
) -> None:
    batches = [[path] for path in paths] if earlier else [paths]
    places = [place for batch in batches for place in back_up(store, tmp_path, *batch)]
    assert len(set(places)) == len(paths)
    assert all((place / path).read_bytes() == b"content" for path in places)


@pytest.mark.parametrize("length", [248, 249, 255])
def test_a_name_that_would_be_too_long_is_hashed(tmp_path: Path, place: Path, store: FileBackups, length: int) -> None:
    name = "n" * length
    hashed = hashlib.sha256(name.encode()).hexdigest()
    expected = f"d/{name}.backup" if length == 248 else f"d/{hashed}.backup"
    assert back_up(store, tmp_path, f"d/{name}") == [expected]
    (again,) = back_up(store, tmp_path, f"d/{name}")
    assert again != expected
    assert (place / again).exists()


@pytest.mark.parametrize("raw", [b"a\nb", b"\x1b[2J", b"\xff\xfe", b"back\\slash", b" ", b"-rf", "é".encode() * 127])
def test_a_hostile_name_is_kept_as_it_is(tmp_path: Path, place: Path, store: FileBackups, raw: bytes) -> None:
    text = to_text(os.fsdecode(raw))
    (where,) = back_up(store, tmp_path, f"{text}/{text}")
    assert os.fsencode(to_os(where)).startswith(raw + b"/")
    if len(raw) < 200:
        assert (place / os.fsdecode(raw) / os.fsdecode(raw + b".backup")).exists()


@given(paths=st.lists(st.sampled_from(["a", "a.backup", "a/b", "a.backup/b", "a.backup/b.backup"]), unique=True))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_batch_holds_every_copy_finds_a_place(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str]
) -> None:
    directory = tmp_path_factory.mktemp("batch")
    with open_file_backups(directory / "backups", RUN) as store:
        places = back_up(store, directory, *paths)
        assert len(set(places)) == len(paths)
        assert len(tree(directory / "backups")) == len(paths)


def test_holes_stay_holes(tmp_path: Path, place: Path, store: FileBackups) -> None:
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.seek(50 * 1024**2)
        file.write(b"end of the first part")
        file.truncate(100 * 1024**2 + 7)
    fd = os.open(source, os.O_RDONLY)
    staged = store.stage(fd, sized(source.stat().st_size))
    store.make_durable([staged])
    store.publish([(staged, "sparse.backup")])
    os.close(fd)
    copy = (place / "sparse.backup").stat()
    assert copy.st_size == source.stat().st_size
    assert copy.st_blocks * 512 <= 2 * 1024**2
    assert (
        hashlib.sha256((place / "sparse.backup").read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()
    )


def test_a_source_that_grows_or_shrinks_is_told_by_its_length(tmp_path: Path, store: FileBackups) -> None:
    (tmp_path / "source").write_bytes(b"0123456789")
    for said, copied in [(8, 9), (12, 10)]:
        fd = os.open(tmp_path / "source", os.O_RDONLY)
        staged = store.stage(fd, sized(said))
        os.close(fd)
        assert staged.size == copied
        store.discard(staged)


def fail(code: int) -> Callable[..., None]:
    def failing(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return failing


def test_a_disk_that_gives_back_other_bytes_is_not_relied_on(
    tmp_path: Path, place: Path, store: FileBackups, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = descriptors()
    staged = [stage(store, b"content", tmp_path) for _ in range(3)]
    whole = os.pread

    def rotten(fd: int, size: int, offset: int) -> bytes:
        return whole(fd, size, offset).replace(b"c", b"C")

    monkeypatch.setattr(os, "pread", rotten)
    with pytest.raises(BackupError, match="does not read back as written; the disk is failing"):
        store.make_durable(staged)
    monkeypatch.undo()
    store.close()
    assert tree(place) == []
    assert descriptors() <= before


def test_a_failed_fsync_is_believed_the_first_time(
    tmp_path: Path, store: FileBackups, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = [stage(store, b"content", tmp_path) for _ in range(3)]
    asked: list[int] = []

    def failing(fd: int) -> None:
        asked.append(fd)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(BackupError, match="cannot be made durable: Input/output error"):
        store.make_durable(staged)
    assert sorted(asked) == sorted(one.fd for one in staged)  # each once


def test_many_copies_are_brought_to_the_disk_by_one_call_which_is_believed_the_first_time(
    tmp_path: Path, store: FileBackups, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def failing(fd: int) -> None:
        asked.append(fd)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(store, "_syncs_whole", True)
    monkeypatch.setattr(files, "sync_filesystem", failing)
    store.make_durable([stage(store, b"content", tmp_path) for _ in range(store.worth_whole - 1)])
    assert asked == []  # a few do not wait for what the neighbours write
    with pytest.raises(BackupError, match="cannot be made durable: Input/output error"):
        store.make_durable([stage(store, b"content", tmp_path) for _ in range(store.worth_whole)])
    assert len(asked) == 1


@pytest.mark.parametrize(("call", "code", "words"), [
    ("open", 24, "no copy can be made in {place}: Too many open files"),
    ("write", 28, "the copy in {place} failed: No space left on device"),
])  # fmt: skip
def test_what_goes_wrong_while_copying_is_said(
    tmp_path: Path, place: Path, store: FileBackups, monkeypatch: pytest.MonkeyPatch, call: str, code: int, words: str
) -> None:
    stage(store, b"first", tmp_path)
    source = os.open(tmp_path / "source", os.O_RDONLY)
    monkeypatch.setattr(os, call, fail(code))
    with pytest.raises(BackupError, match=re.escape(words.format(place=place))):
        store.stage(source, sized(5))
    os.close(source)


def test_a_source_that_cannot_be_read_leaves_the_store_as_it_was(
    tmp_path: Path, place: Path, store: FileBackups, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = descriptors()
    (tmp_path / "source").write_bytes(b"content")
    source = os.open(tmp_path / "source", os.O_RDONLY)
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", fail(5))
        with pytest.raises(SourceError, match="Input/output error"):
            store.stage(source, sized(7))
    os.close(source)
    staged = [stage(store, b"content", tmp_path)]
    store.make_durable(staged)
    store.close()
    assert tree(place) == []
    assert descriptors() <= before


def test_a_store_that_cannot_be_looked_into_gives_no_place(
    tmp_path: Path, place: Path, store: FileBackups, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(store, b"content", tmp_path)
    monkeypatch.setattr(os, "stat", fail(5))
    with pytest.raises(BackupError, match=rf"no place can be found in {place}: Input/output error"):
        store.choose_place("x", set())


def test_removing_a_copy_removes_the_directories_that_become_empty(
    tmp_path: Path, place: Path, store: FileBackups
) -> None:
    back_up(store, tmp_path, "a/b/c/x", "a/y")
    assert store.remove("a/b/c/x.backup")
    assert not store.remove("a/b/c/x.backup")
    assert tree(place / "a") == ["y.backup"]
    assert not (place / "a/b").exists()
    assert back_up(store, tmp_path, "a/b/c/x") == ["a/b/c/x.backup"]  # and they are made anew


def test_only_the_very_copy_is_withdrawn(tmp_path: Path, place: Path, store: FileBackups) -> None:
    back_up(store, tmp_path, "x")
    inode = (place / "x.backup").stat().st_ino
    assert not store.remove("x.backup", inode + 1)
    assert tree(place) == ["x.backup"]
    assert store.remove("x.backup", inode)
    assert not store.remove("x.backup", inode)


def test_a_tampered_place_leads_nowhere(tmp_path: Path, place: Path, store: FileBackups) -> None:
    back_up(store, tmp_path, "a/x")
    (tmp_path / "precious").touch()
    (place / "link").symlink_to(tmp_path)
    for hostile in ("../precious", "a/../../precious", r"\u002e\u002e/precious", "link/precious"):
        with pytest.raises((OSError, ValueError)):
            store.remove(hostile)
    assert (tmp_path / "precious").exists()


def test_copies_are_published_where_nothing_can_be_renamed_without_replacing(
    tmp_path: Path, place: Path, store: FileBackups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscalls, "_rename", None)
    back_up(store, tmp_path, "x")
    assert tree(place) == ["x.backup"]
    assert (place / "x.backup").stat().st_nlink == 1


def test_where_the_cache_cannot_be_dropped_it_is_read_back_all_the_same(
    tmp_path: Path, store: FileBackups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fadvise")
    assert back_up(store, tmp_path, "x") == ["x.backup"]


def test_what_a_batch_leaves_open_stays_small(tmp_path: Path, store: FileBackups) -> None:
    back_up(store, tmp_path, "x")
    before = descriptors()
    for number in range(3):
        back_up(store, tmp_path, *[f"{number}-{n}" for n in range(20)])
    assert descriptors() == before


def test_bytes_are_copied_block_by_block(tmp_path: Path, store: FileBackups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_BLOCK", 1_000)
    whole = os.write

    def short(fd: int, data: memoryview) -> int:
        return whole(fd, data[:300])

    monkeypatch.setattr(os, "write", short)
    content = os.urandom(4_500)
    staged = stage(store, content, tmp_path)
    assert staged.sha256 == hashlib.sha256(content).hexdigest()
    store.make_durable([staged])
