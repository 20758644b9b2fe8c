"""The schema's version: asked for by every run, changed only for an embedded file or by the command `UPGRADE`."""

from enum import Enum
from pathlib import Path
from uuid import uuid4

from sqlalchemy import URL, Connection, Engine, func, insert, inspect, select, text

from cleanup_dagster.database.engine import create_sqlite_file, open_engine, reading, sqlite_file
from cleanup_dagster.database.errors import UPGRADE, DatabaseUnavailable, SchemaMismatch
from cleanup_dagster.database.locks import UPGRADE_LOCK_KEY
from cleanup_dagster.database.tables import cleanup_installation, cleanup_policies, insert_new, metadata
from cleanup_dagster.database.urls import describe
from cleanup_dagster.retention.defaults import DEFAULT_POLICIES

VERSION_TABLE = "cleanup_alembic_version"
#: Every revision, oldest first; a test compares it with `migrations/versions`. Named here because each run asks for
#: the version, and importing Alembic for that would double a worker's start-up time.
REVISIONS = ("0001_initial",)
#: Where Alembic finds env.py: a path inside the package, so that a wheel needs no alembic.ini.
SCRIPT_LOCATION = "cleanup_dagster.database:migrations"


class SchemaState(str, Enum):
    """How the tables relate to this code. `newer` means that the database holds a revision this code does not know."""

    ABSENT = "absent"
    OLDER = "older"
    CURRENT = "current"
    NEWER = "newer"


def schema_state(engine: Engine) -> SchemaState:
    """Return the schema's state; a missing SQLite file is `absent` and stays missing. Raises DatabaseUnavailable."""
    if _file_is_missing(engine):
        return SchemaState.ABSENT
    with reading(engine) as conn:
        return _state(conn)


def require_current(engine: Engine) -> None:
    """Raise SchemaMismatch, saying what to do, unless every table is there in the version this code knows."""
    if _file_is_missing(engine):
        raise SchemaMismatch(_advice(engine, SchemaState.ABSENT))
    with reading(engine) as conn:
        state = _state(conn)
        if state is not SchemaState.CURRENT:
            raise SchemaMismatch(_advice(engine, state))
        _require_complete(conn)


def upgrade(engine: Engine) -> None:
    """Bring the schema to this code's version in one transaction, and seed it if it was absent. Safe to race.

    An absent SQLite file is created with mode 0600. Raises SchemaMismatch for a newer or incomplete schema and for an
    existing table that cannot be adopted, and DatabaseUnavailable.
    """
    path = sqlite_file(engine)
    if path is not None:
        create_sqlite_file(path)
    with engine.begin() as conn:
        if conn.dialect.name == "postgresql":
            conn.execute(select(func.pg_advisory_xact_lock(UPGRADE_LOCK_KEY)))
        state = _state(conn)
        if state is SchemaState.NEWER:
            raise SchemaMismatch(_advice(engine, state))
        if state is not SchemaState.CURRENT:
            _migrate(conn)
        if state is SchemaState.ABSENT:
            _seed(conn)
        _require_complete(conn)


def open_embedded(path: Path) -> Engine:
    """Return an engine on the SQLite file `path`, created, migrated and seeded as needed.

    The directory must exist; keeping it private (0700) is the caller's business. Raises SchemaMismatch for a newer
    schema, and DatabaseUnavailable.
    """
    if not path.parent.is_dir():
        raise DatabaseUnavailable(f"the directory {path.parent} for the embedded database does not exist; create it")
    engine = open_engine(URL.create("sqlite+pysqlite", database=str(path)))
    if schema_state(engine) in {SchemaState.ABSENT, SchemaState.OLDER}:
        upgrade(engine)
    require_current(engine)
    return engine


def open_configured(url: str | URL) -> Engine:
    """Return an engine on a database that somebody else keeps: never created, seeded or migrated here.

    Raises SchemaMismatch unless its schema is current, and DatabaseUnavailable.
    """
    engine = open_engine(url)
    try:
        require_current(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _file_is_missing(engine: Engine) -> bool:
    path = sqlite_file(engine)
    return path is not None and not Path(path).exists()


def _state(conn: Connection) -> SchemaState:
    if not inspect(conn).has_table(VERSION_TABLE):
        return SchemaState.ABSENT
    found = list(conn.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars())  # noqa: S608 - a constant
    if not found:
        return SchemaState.ABSENT
    if any(revision not in REVISIONS for revision in found):
        return SchemaState.NEWER
    return SchemaState.CURRENT if found == [REVISIONS[-1]] else SchemaState.OLDER


def _advice(engine: Engine, state: SchemaState) -> str:
    where = describe(engine.url)
    if state is SchemaState.NEWER:
        return f"{where} was made by a newer cleanup_dagster; upgrade the package on this host"
    what = "has no cleanup tables yet" if state is SchemaState.ABSENT else "has the tables of an older cleanup_dagster"
    return f"{where} {what}; run `{UPGRADE}`"


def _require_complete(conn: Connection) -> None:
    """A version number alone proves nothing: somebody may have dropped a table or restored half of a dump."""
    inspector = inspect(conn)
    where = describe(conn.engine.url)
    for table in metadata.sorted_tables:
        if not inspector.has_table(table.name):
            raise SchemaMismatch(f"{where} has lost its table {table.name}; restore it from a copy of the database")
        present = {column["name"] for column in inspector.get_columns(table.name)}
        lost = [column.name for column in table.columns if column.name not in present]
        if lost:
            raise SchemaMismatch(
                f"{where} has lost the column {table.name}.{lost[0]}; restore it from a copy of the database"
            )


def _migrate(conn: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", SCRIPT_LOCATION)
    config.attributes["connection"] = conn
    command.upgrade(config, "head")


def _seed(conn: Connection) -> None:
    """Write the defaults once. A policy table that already has rows is somebody's decision, and nothing is added."""
    if conn.execute(select(func.count()).select_from(cleanup_policies)).scalar_one() == 0:
        for policy in DEFAULT_POLICIES:
            conn.execute(
                insert_new(conn, cleanup_policies).values(
                    data_type=policy.data_type,
                    retention_days=policy.retention_days,
                    enabled=policy.enabled,
                    keep_last=policy.keep_last,
                    description=policy.description,
                )
            )
    if conn.execute(select(func.count()).select_from(cleanup_installation)).scalar_one() == 0:
        conn.execute(insert(cleanup_installation).values(id=str(uuid4())))
