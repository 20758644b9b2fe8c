"""The units and the tmpfiles.d snippet, as systemd itself reads them."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import deployment_compose as compose
import pytest
from deployment_compose import PROJECT

from cleanup_dagster.settings import load_settings

_UNITS = PROJECT / "deployment" / "systemd"
_TMPFILES = PROJECT / "deployment" / "tmpfiles.d" / "cleanup_dagster.conf"
_OLD = 90 * 86_400


def _needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not here, and checks it")


@_needs("systemd-analyze")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    units: list[Path] = []
    for unit in sorted(_UNITS.glob("*.service")):
        text = unit.read_text(encoding="utf-8")
        copy = tmp_path / unit.name
        copy.write_text(text.replace("/opt/cleanup/bin", str(Path(sys.executable).parent)), encoding="utf-8")
        units.append(copy)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    assert [unit.stem for unit in units] == ["cleanup-code", "cleanup-daemon", "cleanup-page", "cleanup-webserver"]
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_units_start_what_compose_starts(tmp_path: Path) -> None:
    (location,) = compose.load_yaml(_UNITS / "workspace.yaml")["load_from"]
    (local,) = compose.load_yaml(PROJECT / "workspace.yaml")["load_from"]
    assert location["grpc_server"]["location_name"] == local["python_module"]["location_name"]
    code = (_UNITS / "cleanup-code.service").read_text(encoding="utf-8")
    assert f"--port {location['grpc_server']['port']} --module-name {local['python_module']['module_name']}" in code
    environ = compose.assignments(_UNITS / "environment.example")
    config = tmp_path / "cleanup.yaml"
    config.write_text("backup: {retention_days: 7}\n", encoding="utf-8")
    settings = load_settings({**environ, "CLEANUP_CONFIG": str(config)})
    written = re.search(r"^StateDirectory=(.*)$", code, re.MULTILINE)
    assert written is not None
    homes = [Path("/var/lib", name) for name in written[1].split()]
    for place in (settings.state_dir, settings.backup.directory, settings.dagster_home):
        assert place is not None
        assert any(place.is_relative_to(home) for home in homes), place
    assert environ["CLEANUP_DB_PASSWORD"] == environ["DAGSTER_POSTGRES_PASSWORD"] == ""


@_needs("systemd-tmpfiles")
def test_systemd_tmpfiles_leaves_backups_and_quarantines_alone(tmp_path: Path) -> None:
    default = load_settings({"CLEANUP_STATE_DIR": "/nowhere"}).backup.directory.relative_to("/")
    kept = [tmp_path / default / "deep" / "operation_1.json.backup", tmp_path / "tmp" / ".cleanup-q-1000" / "x"]
    taken = [tmp_path / "tmp" / "something" / "else.json"]
    for path in (*kept, *taken):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old", encoding="utf-8")
    for path in (tmp_path / "tmp").rglob("*"):
        os.utime(path, (time.time() - _OLD, time.time() - _OLD))
    distribution = tmp_path / "tmp.conf"  # as distributions have it, but asking for the mtime, which can be set
    distribution.write_text("q /tmp 1777 - - mM:10d\n", encoding="utf-8")
    done = subprocess.run(
        ["systemd-tmpfiles", "--clean", f"--root={tmp_path}", distribution, _TMPFILES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in taken), "the control shows that it did clean"
