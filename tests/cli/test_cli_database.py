"""Which database a command uses, what it says about it, and `db upgrade`."""

import os
from pathlib import Path

import pytest
from cli_helpers import Platform
from sqlalchemy import URL, MetaData, create_engine, select
from sqlalchemy.pool import NullPool

WARNING = (
    "Warning: whoever lists this host's processes can read a password on the command line; "
    "set CLEANUP_DB_PASSWORD instead.\n"
)


def _options(url: URL) -> list[str]:
    # The test server listens on a socket in a directory that stands in the URL's query.
    host = url.host or str(url.query["host"])
    options = ["--db-host", host, "--db-name", str(url.database), "--db-user", str(url.username)]
    return [*options, "--db-port", str(url.port)] if url.port else options


@pytest.fixture
def postgres(platform: Platform, postgres_url: URL) -> tuple[Platform, list[str]]:
    options = _options(postgres_url)
    if "--db-port" not in options:
        options += ["--db-port", "5432"]
    return platform, options


def test_upgrade_makes_the_tables_once(postgres: tuple[Platform, list[str]]) -> None:
    platform, options = postgres
    refused = platform.call("policies", "list", *options)
    assert refused.code == 4
    assert refused.err.endswith("has no cleanup tables yet; run `cleanup-operations db upgrade`\n")
    made = platform.call("db", "upgrade", *options)
    assert made.code == 0
    assert made.out.endswith(": the tables were made, with the default policies.\n")
    assert platform.call("policies", "set", "dbt_logs", "--days", "3", *options).code == 0
    again = platform.call("db", "upgrade", *options)
    assert again.out.endswith(": the tables are up to date.\n")
    policies = platform.call("policies", "list", "--json", *options).document["policies"]
    assert {one["data_type"]: one["retention_days"] for one in policies}["dbt_logs"] == 3


def test_a_run_uses_the_database_of_the_options(postgres: tuple[Platform, list[str]]) -> None:
    platform, options = postgres
    platform.call("db", "upgrade", *options)
    before = dict(os.environ)
    ended = platform.call(*options, "--run", "--yes", "--json")
    assert ended.code == 0, ended
    assert ended.document["database"].startswith("the Postgres database 'test_")
    assert ended.err == f"Database: {ended.document['database']}\n"
    assert dict(os.environ) == before
    assert not (platform.state / "cleanup.db").exists()
    (row, *_) = platform.call("history", "--json", *options).document["history"]
    assert row["run_id"] == ended.document["run_id"]


def test_the_embedded_database_needs_no_upgrade_and_takes_one(platform: Platform) -> None:
    first, second = platform.call("db", "upgrade"), platform.call("db", "upgrade")
    name = f"The embedded SQLite file {platform.state}/cleanup.db"
    assert (first.code, first.out) == (0, f"{name}: made, with the default policies.\n")
    assert (second.code, second.out) == (0, f"{name}: the tables are up to date.\n")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((), "the embedded SQLite file {state}/cleanup.db"),
        (("--db-port", "5433"), "the Postgres database 'dagster' at localhost:5433"),
        (("--db-name", "x", "--db-host", "db"), "the Postgres database 'x' at db:5433"),
        (("--db-password", "hush-hush"), "the Postgres database 'dagster' at localhost:5433"),
    ],
)
def test_any_option_means_postgres(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], name: str
) -> None:
    from cleanup_dagster import bootstrap
    from cleanup_dagster.database.errors import DatabaseUnavailable

    def closed(url: str) -> None:
        raise DatabaseUnavailable(f"closed {url.count('hush-hush')}")

    monkeypatch.setattr(bootstrap, "open_configured", closed)
    ended = platform.call("stats", *arguments)
    assert f"Database: {name.format(state=platform.state)}\n" in ended.err
    assert ended.code == (4 if arguments else 0)
    assert ("Error: closed 1" in ended.err) == ("hush-hush" in arguments)


def test_options_before_and_after_the_command_are_the_same(platform: Platform) -> None:
    other = platform.home / "other.yaml"
    other.write_text(platform.config.read_text().replace("/state", "/elsewhere"))
    for arguments in (("--config", str(other), "stats"), ("stats", "--config", str(other))):
        assert "elsewhere/cleanup.db" in platform.call(*arguments).err


def test_options_and_a_url_contradict_each_other(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEANUP_DATABASE_URL", "postgresql://me:hush-hush@db/x")
    ended = platform.call("stats", "--db-host", "other")
    assert (ended.code, ended.err) == (
        2,
        "Error: CLEANUP_DATABASE_URL is set, and so is --db-host; unset the variable, or leave the option out\n",
    )


def test_a_port_that_is_none_is_refused(platform: Platform) -> None:
    ended = platform.call("stats", "--db-port", "70000")
    assert ended.code == 2
    assert "Invalid value for '--db-port': 70000 is not in the range 1<=x<=65535." in ended.err


def test_a_password_is_warned_about_and_written_nowhere(
    postgres: tuple[Platform, list[str]], postgres_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform, options = postgres
    home = platform.home / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    options += ["--db-password", "hush-hush"]
    said: list[str] = []
    for command in (("db", "upgrade"), ("plan",), ("run", "--yes", "--json"), ("check",), ("run", "--nonsense")):
        ended = platform.call(*command, *options)
        said += [ended.out, ended.err]
        assert ended.code == (2 if command == ("run", "--nonsense") else 0), ended
        assert ended.err.count(WARNING) == (command != ("run", "--nonsense"))
    assert platform.files() != set()
    assert "hush-hush" not in "".join(said)
    for path in platform.home.rglob("*"):
        assert not path.is_file() or b"hush-hush" not in path.read_bytes(), path
    assert any(path.name == "index.db" or path.suffix == ".db" for path in Path(home).rglob("*"))
    engine = create_engine(postgres_url, poolclass=NullPool)
    tables = MetaData()
    tables.reflect(engine)
    with engine.connect() as conn:
        rows = [row for table in tables.sorted_tables for row in conn.execute(select(table))]
    assert len(rows) > len(platform.files())
    assert "hush-hush" not in str(rows)
    assert list(platform.backups.glob("cleanup_*.log"))  # which is among what was searched above


def test_an_upgrade_waits_for_a_database_and_then_says_what_is_wrong(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEANUP_DATABASE_WAIT_SECONDS", "1")
    ended = platform.call("db", "upgrade", "--db-host", "127.0.0.1", "--db-port", "1")
    assert ended.code == 4
    assert "Waiting up to 1 s for the database: nothing answers for the Postgres database" in ended.err
    assert "Error: nothing answers for the Postgres database 'dagster' at 127.0.0.1:1; start the database" in ended.err
    assert ended.out == ""
