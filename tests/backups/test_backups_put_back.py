"""Which backups a file on disk may have been put back from."""

import os
from pathlib import Path

import pytest

from cleanup_dagster.backups.manifest import Header, Kind, ManifestError, write_manifest
from cleanup_dagster.backups.put_back import NEVER_NS, PutBacks
from cleanup_dagster.retention.models import Identity, Receipt

IDENTITY = Identity(1, 1, 1, 1, 0, 0, 0)


def manifest(path: Path, *rows: tuple[str, str]) -> Path:
    with write_manifest(path, Header(Kind.RECEIPTS, path.name, "t", "/root", 1)) as writer:
        for number, (name, sha256) in enumerate(rows):
            writer.write(Receipt(number, name, IDENTITY, "logs", sha256, "x.backup", "flock"))
        writer.close()
    return path


def test_every_unexpired_backup_of_a_path_counts(tmp_path: Path) -> None:
    index = PutBacks(
        [
            manifest(tmp_path / "1", ("a", "11"), (r"d/\xff", "22")),
            manifest(tmp_path / "2", ("a", "33"), ("b", "")),  # b was deleted without a backup
        ],
        since_ns=5,
    )
    assert index.since_ns == 5
    assert index.hashes("a") == {"11", "33"}
    assert index.hashes(r"d/\xff") == {"22"}
    assert index.hashes("b") == frozenset()
    assert index.hashes("A") == frozenset()
    index.close()
    assert index.hashes("a") == {"11", "33"}  # it loads again
    index.close()
    index.close()


def test_without_backups_no_file_can_be_one(tmp_path: Path) -> None:
    assert PutBacks([], since_ns=0).since_ns == NEVER_NS
    assert PutBacks([], since_ns=0).hashes("a") == frozenset()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_read_until_it_is_asked(tmp_path: Path) -> None:
    index = PutBacks([tmp_path / "missing"], since_ns=5)
    assert index.since_ns == 5
    with pytest.raises(ManifestError, match="cannot be read"):
        index.hashes("a")


def test_a_manifest_that_cannot_be_read_is_an_error_every_time(tmp_path: Path) -> None:
    path = manifest(tmp_path / "1", ("a", "11"))
    os.truncate(path, path.stat().st_size - 20)
    index = PutBacks([path], since_ns=5)
    for _ in range(2):
        with pytest.raises(ManifestError):
            index.hashes("a")
    index.close()
