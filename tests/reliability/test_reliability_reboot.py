"""Device numbers mean little: a reboot may change a disk's, or give it to another, and an overlay has several."""

import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
from disks import why_impossible
from service_helpers import Platform, files, request
from undo_helpers import clean, counts, killed, undo

from cleanup_dagster.filesystem.quarantine import Quarantine
from cleanup_dagster.installation import RunRefusedError
from cleanup_dagster.retention.models import RestoreState

_WHY = why_impossible()

pytestmark = [pytest.mark.needs_root, pytest.mark.skipif(bool(_WHY), reason=_WHY)]


class Machine:
    """Two disks, of which one is the platform's, and the loop devices that they are attached to."""

    def __init__(self, home: Path) -> None:
        self.at = home / "logs"
        self.images = [home / "one.image", home / "two.image"]
        self.attached: list[str] = []
        for image in self.images:
            with image.open("wb") as file:
                file.truncate(4 << 20)
            subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True)

    def start(self, *order: int) -> None:
        """Attach disks, and mount the last one where the platform's files are."""
        for number in order:
            attach = ["losetup", "--find", "--show", str(self.images[number])]
            self.attached.append(subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip())
        subprocess.run(["mount", self.attached[-1], str(self.at)], check=True)

    def stop(self) -> None:
        if os.path.ismount(self.at):
            subprocess.run(["umount", str(self.at)], check=True)
        while self.attached:
            subprocess.run(["losetup", "--detach", self.attached.pop()], check=True)

    @property
    def device(self) -> int:
        return self.at.stat().st_dev


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path)


@pytest.fixture
def machine(platform: Platform) -> Generator[Machine]:
    machine = Machine(platform.home)
    try:
        yield machine
    finally:
        machine.stop()


def dies_in_the_middle(platform: Platform) -> None:
    for number in range(5):
        platform.log(f"{number}.log", 40)
    killed(Quarantine, "remove", 3, lambda: platform.run(run_id="died"))


def settled(platform: Platform) -> bool:
    return platform.ask("SELECT status FROM cleanup_runs WHERE run_id = 'died'") == [("interrupted",)]


def test_the_same_disk_under_another_number_is_known_again(platform: Platform, machine: Machine) -> None:
    machine.start(0)
    dies_in_the_middle(platform)
    before = machine.device
    machine.stop()
    machine.start(1, 0)
    if machine.device == before:  # somebody else let go of a device just now
        machine.stop()
        machine.start(1, 1, 0)
    assert machine.device != before
    with platform.service() as service:
        (sentence,) = service.begin(request()).recovered
    assert "it is settled, with 3 files deleted" in sentence
    assert settled(platform)
    assert sum(name.endswith(".log") for name in files(platform.logs)) == 2
    assert platform.ask("SELECT sum(records_deleted) FROM cleanup_audit WHERE run_id = 'died'") == [(3,)]


def test_another_disk_under_the_old_number_is_not_judged(platform: Platform, machine: Machine) -> None:
    machine.start(0)
    dies_in_the_middle(platform)
    machine.stop()
    machine.start(1)
    with pytest.raises(RunRefusedError, match="is on another filesystem than it was"), platform.service() as service:
        service.begin(request())
    assert not settled(platform)
    machine.stop()
    machine.start(0)
    with platform.service() as service:
        service.begin(request())
    assert settled(platform)


def test_files_of_an_overlays_lower_layer_go_and_come_back(tmp_path: Path) -> None:
    """As containers have them: moving one copies it up, onto another filesystem, and it stays the same file."""
    platform = Platform(tmp_path)
    layers = {name: tmp_path / name for name in ("lower", "upper")}
    mounted: list[Path] = []

    def mount(*arguments: str, at: Path) -> None:
        subprocess.run(["mount", "-t", *arguments, str(at)], check=True)
        mounted.append(at)

    try:
        for layer in layers.values():
            layer.mkdir()
            mount("tmpfs", "none", at=layer)
        platform.file(layers["lower"] / "d/lower.log", 40, "lower")
        for name in ("files", "work"):
            (layers["upper"] / name).mkdir()
        where = f"lowerdir={layers['lower']},upperdir={layers['upper']}/files,workdir={layers['upper']}/work"
        mount("overlay", "none", "-o", where, at=platform.logs)
        platform.log("d/upper.log", 40)
        run_id = clean(platform)
        assert files(platform.logs) == set()
        assert counts(undo(platform, run_id)) == {RestoreState.RESTORED: 2}
        assert (platform.logs / "d/lower.log").read_text() == "lower"
    finally:
        for at in reversed(mounted):
            subprocess.run(["umount", str(at)], check=True)
