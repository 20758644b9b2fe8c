"""`python -m cleanup_dagster.database`: what an operator runs before a configured database is used."""

import subprocess
import sys
from pathlib import Path

import pytest
from database_helpers import ask, run_sql
from sqlalchemy import URL, Engine

from cleanup_dagster.database.__main__ import main
from cleanup_dagster.database.errors import UPGRADE
from cleanup_dagster.database.schema import SchemaState, schema_state


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CLEANUP_CONFIG", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLEANUP_STATE_DIR", str(tmp_path / "state"))


def _configure(monkeypatch: pytest.MonkeyPatch, url: URL) -> None:
    monkeypatch.setenv("CLEANUP_DATABASE_URL", url.render_as_string(hide_password=False))


def test_upgrade_makes_the_tables_once(
    empty: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _configure(monkeypatch, empty.url)
    assert main(["upgrade"]) == 0
    assert capsys.readouterr().out.endswith(": the tables were made, with the default policies\n")
    assert ask(empty, "SELECT retention_days FROM cleanup_policies WHERE data_type = 'dbt_logs'") == [(7,)]
    run_sql(empty, "UPDATE cleanup_policies SET retention_days = 3")
    assert main(["upgrade"]) == 0
    assert capsys.readouterr().out.endswith(" has the tables of this version\n")
    assert ask(empty, "SELECT DISTINCT retention_days FROM cleanup_policies") == [(3,)]


def test_status_changes_nothing(
    empty: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _configure(monkeypatch, empty.url)
    assert main(["status"]) == 1
    assert capsys.readouterr().err.endswith(f"has no cleanup tables yet; run `{UPGRADE}`\n")
    assert schema_state(empty) is SchemaState.ABSENT


def test_a_database_that_is_down_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLEANUP_DB_HOST", "127.0.0.1")
    monkeypatch.setenv("CLEANUP_DB_PORT", "1")
    monkeypatch.setenv("CLEANUP_DB_PASSWORD", "hush")
    assert main(["upgrade"]) == 1
    said = capsys.readouterr().err
    assert "127.0.0.1:1" in said
    assert "hush" not in said
    assert said.count("\n") == 1


def test_without_a_configured_database_nothing_is_made(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cleanup_dagster.database", "upgrade"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 2
    assert "no database is configured: set CLEANUP_DATABASE_URL" in said.stderr
    assert not (tmp_path / "state").exists()


def test_a_wrong_configuration_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CLEANUP_DATABASE_URL", "mysql://somewhere/x")
    assert main(["status"]) == 2
    assert "CLEANUP_DATABASE_URL" in capsys.readouterr().err
