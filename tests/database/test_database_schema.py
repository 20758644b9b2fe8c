import shutil
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from database_helpers import ask, finish, python, run_sql
from sqlalchemy import URL, Engine, inspect
from sqlalchemy.exc import DBAPIError

from cleanup_dagster.database import migrations, schema
from cleanup_dagster.database.engine import open_engine, reading
from cleanup_dagster.database.errors import UPGRADE, DatabaseUnavailable, SchemaMismatch
from cleanup_dagster.database.installation import installation_id
from cleanup_dagster.database.policies import load_policies
from cleanup_dagster.database.schema import (
    REVISIONS,
    SchemaState,
    open_configured,
    open_embedded,
    require_current,
    schema_state,
    upgrade,
)
from cleanup_dagster.database.tables import metadata
from cleanup_dagster.retention.defaults import DEFAULT_POLICIES

OUR_TABLES = sorted(table.name for table in metadata.sorted_tables)


def whole_schema(engine: Engine) -> list[tuple[Any, ...]]:
    """Return every table, index and trigger, for a comparison of before and after."""
    if engine.dialect.name == "sqlite":
        return ask(engine, "SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2")
    return ask(
        engine,
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'public' ORDER BY 1, 2",
    )


def shipped(location: Path | None = None) -> list[str]:
    scripts = ScriptDirectory(str(location or Path(str(migrations.__file__)).parent))
    return [script.revision for script in scripts.walk_revisions()][::-1]


def test_the_code_knows_every_revision_that_it_ships() -> None:
    assert shipped() == list(REVISIONS)


def test_the_migrations_make_exactly_what_the_code_describes(engine: Engine) -> None:
    def ours(_object: Any, name: str | None, kind: str, *_: Any) -> bool:
        return kind != "table" or name != schema.VERSION_TABLE

    with engine.connect() as conn:
        options = {"include_object": ours, "version_table": schema.VERSION_TABLE, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(conn, opts=options), metadata) == []


def test_first_upgrade_creates_and_seeds(engine: Engine) -> None:
    assert schema_state(engine) is SchemaState.CURRENT
    require_current(engine)
    with reading(engine) as conn:
        assert load_policies(conn) == {policy.data_type: policy for policy in DEFAULT_POLICIES}
        assert len(installation_id(conn)) == 36


def test_what_people_did_to_the_seeds_stays_done(engine: Engine) -> None:
    run_sql(
        engine,
        "DELETE FROM cleanup_policies WHERE data_type = 'temp_files'",
        "UPDATE cleanup_policies SET enabled = false",
    )
    before = ask(engine, "SELECT * FROM cleanup_policies ORDER BY 1"), ask(engine, "SELECT * FROM cleanup_installation")
    upgrade(engine)
    after = ask(engine, "SELECT * FROM cleanup_policies ORDER BY 1"), ask(engine, "SELECT * FROM cleanup_installation")
    assert before == after


def test_even_an_emptied_policy_table_is_never_seeded_again(engine: Engine) -> None:
    run_sql(engine, "DELETE FROM cleanup_policies")
    upgrade(engine)
    assert ask(engine, "SELECT * FROM cleanup_policies") == []


def test_a_database_shared_with_dagster_keeps_dagsters_version(empty: Engine, url: URL) -> None:
    if empty.dialect.name == "sqlite":
        Path(str(url.database)).touch()
    run_sql(
        empty,
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)",
        "INSERT INTO alembic_version VALUES ('29b539ebc72a')",
        "CREATE TABLE runs (id INTEGER PRIMARY KEY, run_id TEXT)",
        "INSERT INTO runs VALUES (1, 'dagsters own')",
    )
    assert schema_state(empty) is SchemaState.ABSENT
    upgrade(empty)
    require_current(empty)
    assert ask(empty, "SELECT version_num FROM alembic_version") == [("29b539ebc72a",)]
    assert ask(empty, "SELECT * FROM runs") == [(1, "dagsters own")]
    assert ask(empty, "SELECT version_num FROM cleanup_alembic_version") == [(REVISIONS[-1],)]


def test_a_configured_database_is_never_created(empty: Engine, url: URL) -> None:
    with pytest.raises(SchemaMismatch, match=f"has no cleanup tables yet; run `{UPGRADE}`"):
        open_configured(url)
    assert schema_state(empty) is SchemaState.ABSENT
    if empty.dialect.name == "sqlite":
        assert not Path(str(url.database)).exists()
    else:
        assert inspect(empty).get_table_names() == []


def test_a_configured_database_that_is_current_opens(engine: Engine) -> None:
    opened = open_configured(engine.url)
    assert ask(opened, "SELECT count(*) FROM cleanup_policies") == [(len(DEFAULT_POLICIES),)]
    opened.dispose()


def test_a_newer_schema_is_refused_and_left_alone(engine: Engine) -> None:
    run_sql(engine, "UPDATE cleanup_alembic_version SET version_num = '0099_from_tomorrow'")
    before = whole_schema(engine)
    assert schema_state(engine) is SchemaState.NEWER
    for attempt in (require_current, upgrade):
        with pytest.raises(SchemaMismatch, match="made by a newer cleanup_dagster; upgrade the package on this host"):
            attempt(engine)
    with pytest.raises(SchemaMismatch):
        open_configured(engine.url)
    if engine.dialect.name == "sqlite":
        with pytest.raises(SchemaMismatch):
            open_embedded(Path(str(engine.url.database)))
    assert whole_schema(engine) == before


@pytest.mark.parametrize("table", OUR_TABLES)
def test_a_lost_table_is_refused_by_name(engine: Engine, table: str) -> None:
    run_sql(engine, f"DROP TABLE {table}" + (" CASCADE" if engine.dialect.name == "postgresql" else ""))
    for attempt in (require_current, upgrade):
        with pytest.raises(SchemaMismatch, match=f"has lost its table {table}; restore it"):
            attempt(engine)


def test_a_lost_column_is_refused_by_name(engine: Engine) -> None:
    run_sql(engine, "ALTER TABLE cleanup_policies DROP COLUMN keep_last")
    with pytest.raises(SchemaMismatch, match=r"has lost the column cleanup_policies\.keep_last"):
        require_current(engine)


@pytest.fixture
def tomorrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the code know one more revision, which adds a column."""
    location = tmp_path / "migrations"
    shutil.copytree(Path(str(migrations.__file__)).parent, location)
    (location / "versions" / "0002_more.py").write_text(
        "from alembic import op\nimport sqlalchemy as sa\n"
        "revision = '0002_more'\ndown_revision = '0001_initial'\n"
        "def upgrade():\n    op.add_column('cleanup_runs', sa.Column('more', sa.Text()))\n"
    )
    monkeypatch.setattr(schema, "SCRIPT_LOCATION", str(location))
    monkeypatch.setattr(schema, "REVISIONS", ("0001_initial", "0002_more"))
    assert shipped(location) == list(schema.REVISIONS)


@pytest.mark.usefixtures("tomorrow")
def test_an_older_configured_schema_is_refused_until_upgraded(empty: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as yesterday:
        yesterday.setattr(schema, "_migrate", at_first_revision)
        yesterday.setattr(schema, "REVISIONS", REVISIONS)
        upgrade(empty)
    run_sql(empty, "DELETE FROM cleanup_policies WHERE data_type = 'dbt_logs'")
    assert schema_state(empty) is SchemaState.OLDER
    with pytest.raises(SchemaMismatch, match=f"older cleanup_dagster; run `{UPGRADE}`"):
        open_configured(empty.url)
    upgrade(empty)
    require_current(empty)
    assert ask(empty, "SELECT more FROM cleanup_runs") == []
    assert ask(empty, "SELECT * FROM cleanup_policies WHERE data_type = 'dbt_logs'") == []


@pytest.mark.usefixtures("tomorrow")
def test_an_older_embedded_file_is_migrated_when_opened(sqlite_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(str(sqlite_url.database))
    with monkeypatch.context() as yesterday:
        yesterday.setattr(schema, "_migrate", at_first_revision)
        yesterday.setattr(schema, "REVISIONS", REVISIONS)
        open_embedded(path)
    assert ask(open_embedded(path), "SELECT more FROM cleanup_runs") == []


def at_first_revision(conn: Any) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", schema.SCRIPT_LOCATION)
    config.attributes["connection"] = conn
    command.upgrade(config, "0001_initial")


def test_a_migration_that_breaks_leaves_nothing_behind(empty: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(_conn: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(schema, "_seed", break_off)
        with pytest.raises(KeyboardInterrupt):
            upgrade(empty)
    assert schema_state(empty) is SchemaState.ABSENT
    assert inspect(empty).get_table_names() == []
    upgrade(empty)
    require_current(empty)


def test_embedded_needs_its_directory(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="does not exist; create it"):
        open_embedded(tmp_path / "none" / "cleanup.db")
    assert list(tmp_path.iterdir()) == []


def test_embedded_is_made_once_and_found_again(tmp_path: Path) -> None:
    def identify() -> str:
        with reading(open_embedded(tmp_path / "cleanup.db")) as conn:
            return installation_id(conn)

    assert identify() == identify()
    assert [path.name for path in tmp_path.iterdir()] == ["cleanup.db"]


FIRST_USE = """
import sys
from pathlib import Path
from cleanup_dagster.database import schema
from cleanup_dagster.database.engine import open_engine, reading
from cleanup_dagster.database.installation import installation_id
import alembic.command
print("ready", flush=True)
sys.stdin.readline()
kind, where = sys.argv[1:]
if kind == "embedded":
    engine = schema.open_embedded(Path(where))
else:
    engine = open_engine(where)
    schema.upgrade(engine)
with reading(engine) as conn:
    print(installation_id(conn))
"""


def test_first_use_by_several_processes_at_once_makes_one_installation(empty: Engine, url: URL) -> None:
    sqlite = empty.dialect.name == "sqlite"
    where = str(url.database) if sqlite else url.render_as_string(hide_password=False)
    racers = [python(FIRST_USE, "embedded" if sqlite else "upgrade", where) for _ in range(4)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    assert len({finish(racer) for racer in racers}) == 1
    assert ask(empty, "SELECT count(*) FROM cleanup_policies") == [(len(DEFAULT_POLICIES),)]


def make_original_tables(engine: Engine) -> None:
    """What the platform's first script left: its two tables, with rows, and a policy that somebody took out."""
    if engine.dialect.name == "sqlite":
        Path(str(engine.url.database)).touch()
    key = "SERIAL PRIMARY KEY" if engine.dialect.name == "postgresql" else "INTEGER PRIMARY KEY"
    run_sql(
        engine,
        "CREATE TABLE cleanup_policies (data_type VARCHAR(50) PRIMARY KEY, retention_days INTEGER NOT NULL,"
        " enabled BOOLEAN DEFAULT true, description TEXT, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,"
        " updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)",
        f"CREATE TABLE cleanup_audit (id {key}, data_type VARCHAR(50), cleanup_type VARCHAR(20),"
        " records_deleted INTEGER, space_freed_bytes BIGINT, executed_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,"
        " executed_by VARCHAR(100))",
        "INSERT INTO cleanup_policies (data_type, retention_days) VALUES ('dbt_logs', 5)",
        "INSERT INTO cleanup_audit (data_type, cleanup_type, records_deleted, space_freed_bytes)"
        " VALUES ('dbt_logs', 'manual', 3, 4096), ('dbt_logs', 'manual', 1, NULL)",
    )


def test_the_tables_of_the_first_script_are_adopted(empty: Engine) -> None:
    make_original_tables(empty)
    upgrade(empty)
    require_current(empty)
    # Somebody chose these policies: nothing that was not there starts to delete.
    assert ask(empty, "SELECT data_type, retention_days, keep_last FROM cleanup_policies") == [("dbt_logs", 5, 0)]
    assert ask(empty, "SELECT id, records_deleted, run_id, outcome FROM cleanup_audit ORDER BY id") == [
        (1, 3, None, "done"),
        (2, 1, None, "done"),
    ]
    with pytest.raises(DBAPIError, match="insert-only"):
        run_sql(empty, "DELETE FROM cleanup_audit")


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("CREATE TABLE cleanup_policies (data_type TEXT PRIMARY KEY)", "lacks the column retention_days"),
        (
            "CREATE TABLE cleanup_policies (data_type TEXT, retention_days INTEGER, enabled BOOLEAN,"  # noqa: ISC004
            " description TEXT, created_at TIMESTAMP, updated_at TIMESTAMP)",
            r"has a primary key other than \(data_type\)",
        ),
    ],
)
def test_a_table_that_is_something_else_is_not_adopted(empty: Engine, table: str, complaint: str) -> None:
    if empty.dialect.name == "sqlite":
        Path(str(empty.url.database)).touch()
    run_sql(empty, table)
    with pytest.raises(SchemaMismatch, match=f"{complaint}; rename the table"):
        upgrade(empty)
    assert inspect(empty).get_table_names() == ["cleanup_policies"]


@pytest.mark.parametrize("count", [0, 2])
def test_an_installation_that_is_not_one_is_refused(engine: Engine, count: int) -> None:
    run_sql(engine, "DELETE FROM cleanup_installation")
    for number in range(count):
        run_sql(engine, f"INSERT INTO cleanup_installation (id) VALUES ('{number}')")  # noqa: S608
    with reading(engine) as conn, pytest.raises(SchemaMismatch, match=f"holds {count} rows"):
        installation_id(conn)


def test_asking_for_the_state_needs_a_server(postgres_url: URL) -> None:
    with pytest.raises(DatabaseUnavailable):
        schema_state(open_engine(postgres_url.set(database="nowhere")))


def test_a_run_does_not_pay_for_alembic() -> None:
    code = "import sys; from cleanup_dagster.database import schema; print('alembic' in sys.modules)"
    assert finish(python(code)) == "False"
