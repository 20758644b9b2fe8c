"""Against other users who want into copies, manifests or the quarantine, or a file restored to a place of theirs."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from attackers import PATIENCE, SECRET, attacked, clean
from service_helpers import Platform, files

from cleanup_dagster.backups.files import replica_of
from cleanup_dagster.backups.manifest import read_header, read_manifest, write_manifest
from cleanup_dagster.handles import RestoreReport, RestoreRequest
from cleanup_dagster.retention.models import Receipt, RestoreState

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(sys.platform != "linux", reason="the attacks use renameat2 and mounts of Linux"),
]

Counted = Callable[[str, object], None]

#: Makes the backup directory before the service does, his own or a link to it.
OCCUPY = """
backups = place + "/shared/backups"
for turn in itertools.count():
    if not running():
        break
    with suppress(OSError):
        os.mkdir(backups, 0o777) if turn % 2 else os.symlink(place + "/special", backups)
    time.sleep(random.random() / 100)
    with suppress(OSError):
        os.rename(backups, f"{place}/shared/taken-{turn}")
    time.sleep(random.random() / 50)
print(turn)
"""


@pytest.fixture
def occupied(place: Path, platform: Platform) -> Platform:
    (place / "shared").mkdir()
    (place / "shared").chmod(0o1777)
    platform.backups = place / "shared/backups"
    platform.config["backup"]["directory"] = str(platform.backups)
    return platform


def his(place: Path) -> set[str]:
    """Return what lies in the other user's directories."""
    return files(place / "special").union(*(files(path) for path in (place / "shared").glob("taken-*")))


def test_a_backup_directory_that_another_user_makes_first_is_never_used(
    place: Path, occupied: Platform, seconds: float, record_property: Counted
) -> None:
    there = {f"f{number}" for number in range(5)}

    def look() -> None:
        gone = there - files(occupied.logs)
        status = occupied.backups.lstat() if os.path.lexists(occupied.backups) else None
        if status is not None and (status.st_uid, status.st_mode) == (0, 0o40700):
            assert {path.name.split(".")[0] for path in occupied.backups.glob("*.backup")} >= gone
            shutil.rmtree(occupied.backups)
        else:
            assert not gone
        for name in there:
            occupied.log(name, 40, f"{name} at {time.monotonic_ns()}")

    for name in there:
        occupied.log(name, 40)
    with attacked(place, OCCUPY) as said:
        deleted = clean(occupied, seconds, look)
    record_property("attacks", int(said[0]))
    assert deleted > 0
    assert his(place) == set()


def test_a_careless_cleaner_puts_its_copies_where_another_user_says(place: Path, occupied: Platform) -> None:
    until = time.monotonic() + PATIENCE
    with attacked(place, OCCUPY):
        while not his(place) and time.monotonic() < until:
            try:
                occupied.backups.mkdir(mode=0o700, exist_ok=True)
                (occupied.backups / "copy").write_text(SECRET)
            except OSError:
                continue
            if occupied.backups.exists() and occupied.backups.stat().st_uid == 0:
                shutil.rmtree(occupied.backups)
    assert his(place) == {"copy"}


#: Tries to read and write whatever the service has for itself.
PRY = """
opened = tries = 0
while running():
    for top in ("state", "backups", "state/manifests", "state/plans", "backups/.manifests", "state/cleanup.db"):
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDONLY | os.O_DIRECTORY):
            tries += 1
            with suppress(OSError):
                os.close(os.open(f"{place}/{top}", flags))
                opened += 1
    with suppress(OSError):
        for name in os.listdir(root):
            if name.startswith(".cleanup-q-"):
                tries += 1
                os.listdir(f"{root}/{name}")
                opened += 1
print(tries, opened)
"""


def test_nobody_else_reads_or_writes_manifests_copies_or_the_quarantine(
    place: Path, platform: Platform, seconds: float, record_property: Counted
) -> None:
    def more() -> None:
        for number in range(5):
            platform.log(f"{number}-{time.monotonic_ns()}.log", 40, SECRET)

    more()
    with attacked(place, PRY) as said:
        deleted = clean(platform, seconds, more)
    tries, opened = map(int, said)
    record_property("attacks", tries)
    assert deleted > 0
    assert tries > 100
    assert opened == 0


@pytest.mark.parametrize("path", ["../outside/new", "d/../../outside/new", "/outside/new", "d//new", ".."])
def test_receipts_that_were_forged_with_the_database_restore_nothing_outside_the_root(
    place: Path, platform: Platform, path: str
) -> None:
    """Whoever can write the manifests, their replicas and the database still does not get a file out of the root."""
    platform.log("d/a.log", 40)
    run_id = platform.run().run.request.run_id
    genuine = next((platform.state / "manifests" / run_id).glob("logs.receipts.*"))
    header, rows = read_header(genuine), list(read_manifest(genuine, Receipt))
    genuine.unlink()
    with write_manifest(genuine, header) as forged:
        for row in rows:
            forged.write(msgspec.structs.replace(row, path=path))
        reference = forged.close()
    replica_of(platform.backups, run_id, "logs").write_bytes(genuine.read_bytes())
    platform.sql(f"UPDATE cleanup_run_targets SET receipts_sha256 = '{reference.sha256}'")  # noqa: S608
    before = files(place / "outside"), files(platform.logs)
    with platform.service() as service:
        report: RestoreReport = service.restore(RestoreRequest("forged", run_id, "mallory", dry_run=False))
    assert set(report.states) == {RestoreState.FAILED}
    assert (files(place / "outside"), files(platform.logs)) == before
