"""Whoever can write the whole database, and files of his own, names no place for a run to remove anything from."""

import os
from pathlib import Path

import pytest
from service_helpers import Platform, files

from cleanup_dagster.backups.manifest import Header, Kind, ManifestRef, write_manifest
from cleanup_dagster.filesystem.identity import identify
from cleanup_dagster.filesystem.place import place_of
from cleanup_dagster.filesystem.tree import open_root
from cleanup_dagster.installation import RunRefusedError
from cleanup_dagster.retention.models import Frame, Receipt

RUN = "a-run-that-ended"


@pytest.fixture
def keys(platform: Platform) -> Path:
    """A directory of ours alone that has nothing to do with cleaning, as a home's `.ssh` is."""
    keys = platform.home / "keys"
    keys.mkdir(mode=0o700)
    (keys / "id_ed25519").write_text("a key")
    return keys


@pytest.fixture
def ended(platform: Platform) -> Platform:
    """A platform with a run whose backups are over by now."""
    platform.log("a.log", 40)
    platform.run(run_id=RUN)
    platform.clock.advance(days=8)
    return platform


def forge(place: Path, directory: Path, of: Path) -> ManifestRef:
    """Write receipts of a file by which a key would be its copy in an archive of the directory's."""
    with open_root(of.parent.parent) as root:
        header = Header(Kind.RECEIPTS, RUN, "logs", "/", 1, str(directory), place=place_of(root))
    with write_manifest(place, header) as manifest:
        frame = Frame(0, 1, 0)
        manifest.write(Receipt(0, "a.log", identify(of.stat()), "system_logs", "", "id_ed25519", "", frame=frame))
        return manifest.close()


def test_receipts_that_the_database_names_elsewhere_prune_nothing(ended: Platform, keys: Path) -> None:
    forged = forge(ended.home / "forged.jsonl.zst", keys, keys)
    ended.sql(
        f"UPDATE cleanup_run_targets SET backup_directory = '{keys}', receipts_manifest = '{forged.path}',"  # noqa: S608
        f" receipts_sha256 = '{forged.sha256}', receipts_rows = 1, finished_at = '9999-01-01 00:00:00.000000'"
        " WHERE backup_files > 0"
    )
    ended.run()
    assert files(keys) == {"id_ed25519"}


def test_a_backup_directory_that_the_database_names_is_not_pruned(ended: Platform, keys: Path) -> None:
    """The receipts are the true ones, and the other user had a file deleted that was called as a key is."""
    (keys / "a.log.backup").write_text("a key, too")
    ended.sql(
        f"UPDATE cleanup_run_targets SET backup_directory = '{keys}', finished_at = '9999-01-01 00:00:00.000000'"  # noqa: S608
        " WHERE backup_files > 0"
    )
    problems = ended.run().problems
    assert files(keys) == {"id_ed25519", "a.log.backup"}
    assert f"in {keys} were not pruned: the receipts tell of copies in {ended.backups}" in problems


@pytest.mark.parametrize("target", ["../../../forged", "{home}/forged"])
def test_a_target_that_the_database_names_leads_to_no_receipts_elsewhere(
    ended: Platform, keys: Path, target: str
) -> None:
    forge(ended.home / "forged.receipts.jsonl.zst", keys, keys)
    ended.sql(
        f"UPDATE cleanup_runs SET status = 'running' WHERE run_id = '{RUN}'",  # noqa: S608
        f"UPDATE cleanup_run_targets SET target = '{target.format(home=ended.home)}', intent_at = NULL"  # noqa: S608
        " WHERE backup_files > 0",
    )
    with pytest.raises(RunRefusedError, match="is no run's id and no target's name"):
        ended.run()
    assert files(keys) == {"id_ed25519"}
    assert (ended.home / "forged.receipts.jsonl.zst").exists()


def test_receipts_that_the_database_names_elsewhere_settle_nothing(ended: Platform, keys: Path) -> None:
    """What stays in quarantine for a person is not theirs to remove, nor to put back under a name of their choice."""
    kept = ended.file(ended.logs / f".cleanup-q-{os.geteuid()}/{RUN}.logs.0", 40, "a conflict, whole")
    kept.parent.chmod(0o700)
    forged = forge(ended.home / "forged.jsonl.zst", keys, kept)
    ended.sql(
        f"UPDATE cleanup_runs SET status = 'running' WHERE run_id = '{RUN}'",  # noqa: S608
        f"UPDATE cleanup_run_targets SET receipts_manifest = '{forged.path}', receipts_sha256 = '{forged.sha256}',"  # noqa: S608
        " receipts_rows = 1, backup_directory = NULL, finished_at = NULL WHERE backup_files > 0",
    )
    (sentence,) = ended.run().run.recovered
    assert "the receipts of logs are lost" in sentence
    assert kept.read_text() == "a conflict, whole"
