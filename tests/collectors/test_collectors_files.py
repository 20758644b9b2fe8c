"""Which files a target names, and what of them is only reported."""

import os
import stat
from contextlib import closing
from pathlib import Path

import pytest
from collector_helpers import NOW, nothing_is_own, scan_files, write

from cleanup_dagster.collectors import files
from cleanup_dagster.collectors.files import FilesCollector
from cleanup_dagster.collectors.shards import Shard
from cleanup_dagster.filesystem.identity import identify
from cleanup_dagster.filesystem.names import to_text
from cleanup_dagster.filesystem.tree import Directories, open_root
from cleanup_dagster.retention.models import AgeSource, Candidate, Reason
from cleanup_dagster.targets import Target

TREE = [
    "a.log",
    "A.LOG",
    "a.txt",
    ".hidden.log",
    "logs/b.log",
    "logs/deep/c.log",
    "logs/.d/d.log",
    "target/logs/e.log",
    "tmp/f.log",
    "tmp/deep/g.log",
    "x/tmp/h.log",
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for path in TREE:
        write(tmp_path / path)
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["*"], TREE),
        (["**"], TREE),
        (["*.log"], [path for path in TREE if path.endswith(".log")]),
        (["a.log"], ["a.log"]),
        (["?.log"], [path for path in TREE if path.endswith(".log") and path != ".hidden.log"]),
        ([".*"], [".hidden.log"]),
        (["[ab].log"], ["a.log", "logs/b.log"]),
        (["logs/*.log"], ["logs/b.log"]),
        (["logs/*"], ["logs/b.log"]),
        (["logs/**"], ["logs/b.log", "logs/deep/c.log", "logs/.d/d.log"]),
        (["logs/**/*.log"], ["logs/b.log", "logs/deep/c.log", "logs/.d/d.log"]),
        (["**/logs/*.log"], ["logs/b.log", "target/logs/e.log"]),
        (["*/*.log"], ["logs/b.log", "tmp/f.log"]),
        (["*.txt", "tmp/*"], ["a.txt", "tmp/f.log"]),
        (["logs"], []),
    ],
    ids=str,
)
def test_patterns(tree: Path, patterns: list[str], expected: list[str]) -> None:
    assert sorted(scan_files(tree, patterns=patterns)) == sorted(expected)


@pytest.mark.parametrize(
    ("excludes", "gone"),
    [
        (["a.log"], ["a.log"]),
        (["*.txt"], ["a.txt"]),
        (["tmp"], ["tmp/f.log", "tmp/deep/g.log", "x/tmp/h.log"]),
        (["tmp/**"], ["tmp/f.log", "tmp/deep/g.log"]),
        (["x/tmp"], ["x/tmp/h.log"]),
        (["logs/deep"], ["logs/deep/c.log"]),
        (["**/deep"], ["logs/deep/c.log", "tmp/deep/g.log"]),
        (["logs/*"], ["logs/b.log", "logs/deep/c.log", "logs/.d/d.log"]),
        ([".*"], [".hidden.log", "logs/.d/d.log"]),
        (["*"], TREE),
    ],
    ids=str,
)
def test_excludes_and_all_that_is_in_them(tree: Path, excludes: list[str], gone: list[str]) -> None:
    assert sorted(scan_files(tree, excludes=excludes)) == sorted(set(TREE) - set(gone))


def test_not_recursive_takes_the_root_alone(tree: Path) -> None:
    found = scan_files(tree, recursive=False, patterns=["*.log"])
    assert sorted(found) == [".hidden.log", "a.log"]


def test_a_directory_whose_name_matches_is_reported_where_it_is_not_entered(tree: Path) -> None:
    found = scan_files(tree, recursive=False, patterns=["logs"])
    assert {path: (c.obstacle, c.note) for path, c in found.items()} == {"logs": (Reason.NOT_REGULAR, "directory")}


@pytest.mark.parametrize("name", ["a\u00a0b", "a\nb", "caf\udce9", "back\\slash", "\u202e"])
def test_an_exclude_names_directories_and_files_as_they_are_written(tmp_path: Path, name: str) -> None:
    write(tmp_path / name / "inside.log")
    write(tmp_path / "d" / name)
    write(tmp_path / "kept.log")
    if "\\" in name:
        name = name.replace("\\", "\\\\")  # a backslash escapes in a glob
    assert list(scan_files(tmp_path, excludes=[name])) == ["kept.log"]
    assert list(scan_files(tmp_path, patterns=[f"{name}/*.log"])) != []


@pytest.mark.parametrize("name", ["x.log\n", "x.log\n\n", "\nx.log ", "x.log/"])
def test_a_name_that_only_begins_like_the_pattern_is_another(tmp_path: Path, name: str) -> None:
    write(tmp_path / name.rstrip("/") if name[-1] != "/" else tmp_path / "x.log/y")
    assert scan_files(tmp_path, patterns=["x.log"]) == {}


@pytest.mark.parametrize("raw", [b"a\nb.log", b"\x1b[31m.log", b"n" * 251 + b".log", b"\xff\xfe.log", b"a\\b.log"])
def test_a_hostile_name_is_collected_in_text_form(tmp_path: Path, raw: bytes) -> None:
    write(tmp_path / os.fsdecode(raw))
    (path,) = scan_files(tmp_path, patterns=["*.log"])
    assert path == to_text(os.fsdecode(raw))
    path.encode("utf-8")


def test_what_a_candidate_says(tmp_path: Path) -> None:
    file = write(tmp_path / "d/a.log", "12345", NOW - 77)
    status = file.stat()
    assert scan_files(tmp_path) == {
        "d/a.log": Candidate(
            "d/a.log", identify(status), "logs", NOW - 77, AgeSource.MTIME, changed_ns=status.st_ctime_ns
        )
    }


def test_newest_considers_when_the_inode_changed(tmp_path: Path) -> None:
    old = write(tmp_path / "untarred", mtime_ns=1)
    future = write(tmp_path / "future", mtime_ns=2**62)
    found = scan_files(tmp_path, age_from="newest")
    assert (found["untarred"].since_ns, found["untarred"].age_from) == (old.stat().st_ctime_ns, AgeSource.CTIME)
    assert (found["future"].since_ns, found["future"].age_from) == (future.stat().st_mtime_ns, AgeSource.MTIME)


def test_what_is_never_touched_is_reported(tmp_path: Path) -> None:
    write(tmp_path / "regular")
    (tmp_path / "link").symlink_to("regular")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    write(tmp_path / "one")
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    (tmp_path / ".cleanup-q-0").mkdir()
    write(tmp_path / "1/2/3/deep")
    found = scan_files(tmp_path, max_depth=2)
    assert {path: (c.obstacle, c.note) for path, c in found.items()} == {
        "regular": (None, ""),
        "link": (Reason.SYMLINK, ""),
        "dangling": (Reason.SYMLINK, ""),
        "fifo": (Reason.NOT_REGULAR, "FIFO"),
        "one": (Reason.HARD_LINKED, "2 links"),
        "two": (Reason.HARD_LINKED, "2 links"),
        ".cleanup-q-0": (Reason.OWN_DIRECTORY, "a quarantine"),
        "1/2/3": (Reason.TOO_DEEP, ""),
    }


@pytest.mark.needs_root
def test_a_device_is_not_opened(tmp_path: Path) -> None:
    os.mknod(tmp_path / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    assert scan_files(tmp_path)["device"].obstacle is Reason.NOT_REGULAR


def test_our_own_directories_are_reported_and_not_entered(tmp_path: Path) -> None:
    write(tmp_path / "backups/a.backup")
    write(tmp_path / "a.log")
    own = (tmp_path / "backups").stat()
    found = scan_files(tmp_path, lambda status: os.path.samestat(status, own))
    assert {path: c.obstacle for path, c in found.items()} == {"a.log": None, "backups": Reason.OWN_DIRECTORY}
    assert list(scan_files(tmp_path, lambda status: os.path.samestat(status, own), recursive=False)) == ["a.log"]


def test_what_is_excluded_is_not_even_reported(tmp_path: Path) -> None:
    write(tmp_path / "1/2/3/deep")
    (tmp_path / "link").symlink_to("nowhere")
    assert scan_files(tmp_path, max_depth=1, excludes=["2", "link"]) == {}


def test_a_file_that_goes_while_it_is_scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.log")
    write(tmp_path / "b.log")
    obstacle = files.obstacle

    def and_remove_the_other(status: os.stat_result) -> object:
        for path in tmp_path.iterdir():
            if not os.path.samestat(path.stat(), status):
                path.unlink()
        return obstacle(status)

    monkeypatch.setattr(files, "obstacle", and_remove_the_other)
    assert len(scan_files(tmp_path)) == 1


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_shards_share_everything_out_once(tree: Path, of: int) -> None:
    (tree / "link").symlink_to("nowhere")
    (tree / ".cleanup-q-0").mkdir()
    target = Target.model_validate({"name": "t", "kind": "files", "data_type": "logs", "root": tree})
    collector = FilesCollector(target.scope, nothing_is_own)
    with open_root(tree) as fd:
        found = [c.path for number in range(of) for c in collector.scan(fd, NOW, Shard(number, of))]
    assert sorted(found) == sorted([*TREE, "link", ".cleanup-q-0"])


def test_the_hash_of_what_is_there_now(tmp_path: Path) -> None:
    write(tmp_path / "d/a", "content")
    (tmp_path / "link").symlink_to("d/a")
    target = Target.model_validate({"name": "t", "kind": "files", "data_type": "logs", "root": tmp_path})
    collector = FilesCollector(target.scope, nothing_is_own)
    found = scan_files(tmp_path)
    with open_root(tmp_path) as fd, closing(Directories(fd)) as directories:
        content = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
        assert collector.content_sha256(found["d/a"], directories) == content
        assert collector.content_sha256(found["link"], directories) is None
        (tmp_path / "d/a").unlink()
        assert collector.content_sha256(found["d/a"], directories) is None
