"""A database that is just starting is waited for; whatever waiting cannot mend is not."""

import socket
import threading
import time
from collections.abc import Generator
from contextlib import closing

import pytest
from sqlalchemy import URL, Engine

from cleanup_dagster.bootstrap import wait_for_database
from cleanup_dagster.database.engine import open_engine
from cleanup_dagster.database.errors import DatabaseNotReady, DatabaseUnavailable
from cleanup_dagster.database.waiting import wait_until_ready
from cleanup_dagster.settings import load_settings


@pytest.fixture
def closed() -> Generator[int]:
    """A port that is taken and at which nobody answers."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def _engine(port: int) -> Engine:
    return open_engine(URL.create("postgresql", "dagster", "x", "127.0.0.1", port, "platform"))


def _forward(listener: socket.socket, socket_file: str) -> None:
    """Hand one connection at a time through to the server behind `socket_file`."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)

    while True:
        try:
            ours, _ = listener.accept()
        except OSError:
            return
        with ours, socket.socket(socket.AF_UNIX) as theirs:
            theirs.connect(socket_file)
            back = threading.Thread(target=pump, args=(theirs, ours))
            back.start()
            pump(ours, theirs)
            back.join()


def test_a_server_that_starts_late_is_waited_for(postgres_url: URL) -> None:
    said: list[str] = []
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    socket_file = f"{postgres_url.query['host']}/.s.PGSQL.{postgres_url.query.get('port', 5432)}"

    def start() -> None:
        time.sleep(0.5)
        listener.listen()
        _forward(listener, socket_file)

    server = threading.Thread(target=start, daemon=True)
    server.start()
    engine = open_engine(postgres_url.set(host="127.0.0.1", port=port, query={}))
    try:
        wait_until_ready(engine, 20, said.append)
    finally:
        engine.dispose()
        with closing(listener):
            listener.shutdown(socket.SHUT_RDWR)
        server.join(10)
    assert said[0].startswith("Waiting up to 20 s for the database: nothing answers for the Postgres database ")
    assert said[1].startswith("The database answers after ")
    assert len(said) == 2


def test_one_that_is_there_is_not_talked_about(postgres_url: URL) -> None:
    said: list[str] = []
    engine = open_engine(postgres_url)
    wait_until_ready(engine, 20, said.append)
    engine.dispose()
    assert said == []


def test_waiting_ends_in_time_and_says_what_is_wrong(closed: int) -> None:
    said: list[str] = []
    began = time.monotonic()
    with pytest.raises(DatabaseNotReady, match=r"nothing answers for .* \(waited \d s\)$"):
        wait_until_ready(_engine(closed), 1, said.append)
    assert 0.25 < time.monotonic() - began < 10
    assert len(said) == 1


def test_nothing_is_waited_for_when_that_is_configured(closed: int) -> None:
    said: list[str] = []
    environ = {
        "CLEANUP_DB_HOST": "127.0.0.1",
        "CLEANUP_DB_PORT": str(closed),
        "CLEANUP_STATE_DIR": "/nowhere",
        "CLEANUP_DATABASE_WAIT_SECONDS": "0",
    }
    with pytest.raises(DatabaseNotReady, match=r"correct host and port$"):
        wait_for_database(load_settings(environ), said.append)
    assert said == []


def test_what_does_not_pass_ends_it_at_once(postgres_url: URL) -> None:
    said: list[str] = []
    for url in (postgres_url.set(database="nowhere"), postgres_url.set(username="nobody_here")):
        engine = open_engine(url)
        with pytest.raises(DatabaseUnavailable) as caught:
            wait_until_ready(engine, 60, said.append)
        assert not isinstance(caught.value, DatabaseNotReady)
        engine.dispose()
    assert said == []


def test_the_embedded_database_is_never_waited_for() -> None:
    wait_for_database(load_settings({"CLEANUP_STATE_DIR": "/nowhere"}), pytest.fail)
