"""A configuration that anybody can change: nothing is deleted by it, and everything else goes on."""

import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from service_helpers import Platform, files

from cleanup_dagster.handles import RestoreRequest
from cleanup_dagster.installation import RunRefusedError


@pytest.fixture
def platform() -> Generator[Platform]:
    """One where everybody can get to."""
    home = Path(tempfile.mkdtemp()).resolve()
    home.chmod(0o755)
    yield Platform(home)
    shutil.rmtree(home)


def test_a_live_run_is_refused_while_everybody_can_write_the_configuration(platform: Platform) -> None:
    platform.log("a.log", 31)
    file = platform.configure()
    file.chmod(0o666)
    said = f"anybody can change what is deleted: {file} can be written by everybody \\(mode 0666\\); chmod o-w {file}"
    with pytest.raises(RunRefusedError, match=said):
        platform.run()
    assert files(platform.logs) == {"a.log"}
    assert platform.ask("SELECT count(*) FROM cleanup_runs") == [(0,)]
    file.chmod(0o644)
    platform.run()
    assert files(platform.logs) == set()


def test_a_dry_run_says_so_and_goes_on(platform: Platform) -> None:
    platform.log("a.log", 31)
    platform.configure().chmod(0o666)
    ended = platform.dry()
    assert ended.plans["logs"].deletable.files == 1
    assert "anybody can change what is deleted" in ended.problems


def test_backups_are_pruned_by_a_live_run_and_by_hand_only_with_a_configuration_of_ours(platform: Platform) -> None:
    platform.log("a.log", 31)
    platform.run()
    platform.clock.advance(days=8)
    platform.configure().chmod(0o666)
    with platform.service() as service:
        with pytest.raises(RunRefusedError, match="anybody can change"):
            service.prune_backups()
        assert len(service.expired_backups()) == 1


def test_what_was_deleted_can_be_put_back_all_the_same(platform: Platform) -> None:
    platform.log("a.log", 31)
    run_id = platform.run().run.request.run_id
    platform.configure().chmod(0o666)
    with platform.service() as service:
        assert not service.restore(RestoreRequest("undo", run_id, "bob", dry_run=False)).problems
    assert files(platform.logs) == {"a.log"}
