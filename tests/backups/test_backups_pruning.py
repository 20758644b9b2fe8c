"""Copies that are over go; what no receipt names, and what a later run wrote, stays."""

import os
from pathlib import Path

from cleanup_dagster.backups.files import open_file_backups
from cleanup_dagster.backups.pruning import prune_copies
from cleanup_dagster.retention.models import Identity, Receipt, Tally

FINISHED = 1_700_000_000_000_000_000


def receipt(path: str, backup: str, size: int = 10) -> Receipt:
    return Receipt(0, path, Identity(1, 1, size, 1, 0, 0, 0), "logs", "0" * 64, backup, "flock")


def copy(store: Path, name: str, written_ns: int) -> None:
    (store / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    (store / name).write_text("copy")
    os.utime(store / name, ns=(written_ns, written_ns))


def prune(store: Path, *receipts: Receipt) -> Tally:
    with open_file_backups(store, "run") as opened:
        return prune_copies(receipts, opened, FINISHED)


def remaining(store: Path) -> list[str]:
    return sorted(str(path.relative_to(store)) for path in store.rglob("*"))


def test_what_the_receipts_name_goes_and_nothing_else(tmp_path: Path) -> None:
    store = tmp_path / "backups"
    store.mkdir(mode=0o700)
    for name in ("x.backup", "d/y.backup", "d/z.backup", "notes.txt", "e/unknown.backup"):
        copy(store, name, FINISHED - 1)
    gone = prune(store, receipt("x", "x.backup", 10), receipt("d/y", "d/y.backup", 5))
    assert gone == Tally(2, 15)
    assert remaining(store) == ["d", "d/z.backup", "e", "e/unknown.backup", "notes.txt"]


def test_a_later_runs_copy_under_the_same_place_stays(tmp_path: Path) -> None:
    store = tmp_path / "backups"
    store.mkdir(mode=0o700)
    copy(store, "at.backup", FINISHED)
    copy(store, "later.backup", FINISHED + 1)
    assert prune(store, receipt("at", "at.backup"), receipt("later", "later.backup")) == Tally(1, 10)
    assert remaining(store) == ["later.backup"]


def test_what_is_gone_already_and_what_had_no_copy_counts_nothing(tmp_path: Path) -> None:
    store = tmp_path / "backups"
    store.mkdir(mode=0o700)
    assert prune(store, receipt("x", "x.backup"), receipt("y", "no/such/y.backup"), receipt("z", "")) == Tally()


def test_pruning_again_does_nothing(tmp_path: Path) -> None:
    store = tmp_path / "backups"
    store.mkdir(mode=0o700)
    copy(store, "a/b/x.backup", FINISHED - 1)
    assert prune(store, receipt("a/b/x", "a/b/x.backup")) == Tally(1, 10)
    assert remaining(store) == []
    assert prune(store, receipt("a/b/x", "a/b/x.backup")) == Tally()
