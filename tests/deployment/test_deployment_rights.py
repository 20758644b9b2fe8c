"""Cleaning the files of several users needs root, and of root's capabilities those in compose.root.yml and no more."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import deployment_compose as compose
import pytest
from deployment_compose import PROJECT

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users, which needs root"),
]
_OWNERS = (1_234, 5_678)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A sticky directory in which two users left private files, and the configuration to clean it."""
    root = tmp_path / "shared"
    root.mkdir()
    root.chmod(0o1777)
    for owner in _OWNERS:
        path = root / f"operation_{owner}.json"
        path.write_text('{"status": "failed"}', encoding="utf-8")
        os.utime(path, (time.time() - 86_400 * 20,) * 2)  # pyright: ignore[reportArgumentType]
        path.chmod(0o600)
        os.chown(path, owner, owner)
    os.chown(root, _OWNERS[0], _OWNERS[0])
    config = {
        "state_dir": str(tmp_path / "state"),
        "backup": {"directory": str(tmp_path / "backups")},
        "targets": [{"name": "operations", "kind": "operations", "root": str(root)}],
    }
    (tmp_path / "cleanup.yaml").write_text(json.dumps(config), encoding="utf-8")
    return root


def _run(home: Path, capabilities: list[str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    bounding = ",".join(["-all", *(f"+{name.lower()}" for name in capabilities)])
    command = Path(sys.executable).with_name("cleanup-operations")
    return subprocess.run(
        ["setpriv", f"--bounding-set={bounding}", "--inh-caps=-all", "--no-new-privs", command, *arguments],
        env={"PATH": os.defpath, "HOME": str(home), "CLEANUP_CONFIG": str(home / "cleanup.yaml"), "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )


def _capabilities() -> list[str]:
    return compose.load_yaml(PROJECT / "deployment" / "compose.root.yml")["services"]["code"]["cap_add"]


def test_the_documented_capabilities_clean_and_restore_the_files_of_others(shared: Path) -> None:
    home = shared.parent
    before = {path.name: path.stat().st_uid for path in shared.iterdir()}
    ran = _run(home, _capabilities(), "run", "--type", "automatic", "--json")
    assert ran.returncode == 0, ran.stderr
    assert not any(shared.glob("operation_*.json"))
    history = json.loads(_run(home, _capabilities(), "history", "--runs", "--json").stdout)
    (run_id,) = set(re.findall(r'"run_id": "([0-9a-f-]{36})"', json.dumps(history)))
    restored = _run(home, _capabilities(), "restore", run_id)
    assert restored.returncode == 0, restored.stderr
    assert {path.name: path.stat().st_uid for path in shared.glob("operation_*.json")} == before


def test_without_one_of_them_nothing_is_lost(shared: Path) -> None:
    home = shared.parent
    for missing in _capabilities():
        kept = [name for name in _capabilities() if name != missing]
        ran = _run(home, kept, "run", "--type", "automatic", "--json")
        copies = {path.name.removesuffix(".backup") for path in (home / "backups").glob("*.backup")}
        present = {path.name for path in shared.glob("operation_*.json")}
        assert {f"operation_{owner}.json" for owner in _OWNERS} <= copies | present, (missing, ran.stderr)


def test_the_table_names_the_capabilities_that_compose_adds() -> None:
    page = (PROJECT / "docs" / "deployment.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z_]+)` \| ", page.split("| Capability |")[1].split("\n\n")[0], re.MULTILINE)
    assert rows == _capabilities()
    (unit,) = re.findall(r"CapabilityBoundingSet=((?:CAP_\w+ ?)+)", page)
    assert unit.split() == [f"CAP_{name}" for name in _capabilities()]
