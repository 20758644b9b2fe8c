"""The page as others on the network meet it: over TLS, behind a proxy, and however slowly or long they speak."""

import contextlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from end_to_end_helpers import Platform as RealPlatform
from end_to_end_helpers import free_port, started
from web_helpers import API, OPERATOR, VIEWER, Platform, bearer, eventually

from cleanup_dagster.web.connections import Connection
from cleanup_dagster.web.server import ServeError, require_safe

PROXY = "127.0.0.2"


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a certificate for localhost, its key, and the key of another one."""
    home = tmp_path_factory.mktemp("tls")
    for name in ("page", "other"):
        key, certificate = str(home / f"{name}.key"), str(home / f"{name}.crt")
        making = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        alternative = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate]
        subprocess.run([*making.split(), *alternative], check=True, capture_output=True)
    return home


@pytest.fixture(scope="module")
def served(pem: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[int]:
    """The port of the page on a real process, with TLS and a proxy that is trusted."""
    platform = RealPlatform(tmp_path_factory.mktemp("platform"))
    port = free_port()
    platform.extra = {
        "CLEANUP_WEB_HOST": "0.0.0.0",  # noqa: S104  whom it trusts is what is tested
        "CLEANUP_WEB_PORT": str(port),
        "CLEANUP_WEB_TLS_CERTIFICATE": str(pem / "page.crt"),
        "CLEANUP_WEB_TLS_KEY": str(pem / "page.key"),
        "CLEANUP_WEB_TRUSTED_PROXY": PROXY,
        "CLEANUP_WEB_OPERATOR_TOKEN": OPERATOR,
        "CLEANUP_WEB_VIEWER_TOKEN": VIEWER,
        "DAGSTER_WEBSERVER_URL": "http://127.0.0.1:1",
    }
    with started(platform, "cleanup-operations", "serve") as (process, log):

        def listens() -> bool:
            assert process.poll() is None, log.read_text(encoding="utf-8")
            with socket.socket() as asking:
                return asking.connect_ex(("127.0.0.1", port)) == 0

        eventually("the page listens", listens)
        yield port


@contextmanager
def asking(port: int, pem: Path, address: str = "127.0.0.1", **headers: str) -> Generator[httpx.Client]:
    """Somebody at an address of this machine, who knows the certificate."""
    trusting = ssl.create_default_context(cafile=str(pem / "page.crt"))
    transport = httpx.HTTPTransport(verify=trusting, local_address=address)
    with httpx.Client(base_url=f"https://localhost:{port}", transport=transport, headers=headers, timeout=30) as client:
        yield client


def test_it_is_served_over_tls_alone(served: int, pem: Path) -> None:
    with asking(served, pem) as client:
        cookie = client.post("/login", json={"token": OPERATOR}).headers["set-cookie"]
        assert "Secure" in cookie.split("; ")
        session = client.get(f"{API}/session").json()
        change = {"data_type": "dbt_logs", "retention_days": 8}
        own = {"X-CSRF-Token": session["csrf_token"], "Origin": f"https://localhost:{served}"}
        assert client.post(f"{API}/policies", json=change, headers=own).status_code == 200
    with pytest.raises(httpx.ConnectError, match="certificate"):
        httpx.get(f"https://localhost:{served}/healthz")
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"http://localhost:{served}/healthz")


@pytest.mark.parametrize(("address", "seen"), [("127.0.0.1", "127.0.0.1"), (PROXY, "203.0.113.9")])
def test_only_the_declared_proxy_says_who_asks(served: int, pem: Path, address: str, seen: str) -> None:
    said = {"X-Forwarded-For": "198.51.100.1, 203.0.113.9", "X-Forwarded-Proto": "http"}
    with asking(served, pem, address, **said) as client:
        hold = {"pattern": f"/srv/{address}/*", "reason": "audit"}
        assert client.post(f"{API}/holds", json=hold, headers=bearer(OPERATOR)).status_code == 201
        (held,) = (
            one
            for one in client.get(f"{API}/holds", headers=bearer(VIEWER)).json()["holds"]
            if one["pattern"] == hold["pattern"]
        )
        assert held["placed_by"] == f"operator via token from {seen}"
        cookie = client.post("/login", json={"token": VIEWER}).headers["set-cookie"]
        assert ("Secure" in cookie.split("; ")) == (address != PROXY)


def test_nobody_escapes_the_limit_by_naming_other_addresses(served: int, pem: Path) -> None:
    with asking(served, pem, "127.0.0.3") as client:
        codes = [
            client.post("/login", json={"token": "wrong"}, headers={"X-Forwarded-For": f"203.0.113.{n}"}).status_code
            for n in range(7)
        ]
    assert codes == [401] * 5 + [429] * 2


@pytest.mark.parametrize(
    ("web", "tokens", "refusal"),
    [
        ({}, False, None),
        ({"host": "::1"}, False, None),
        ({"host": "0.0.0.0"}, False, "set a token of your own in CLEANUP_WEB_OPERATOR_TOKEN"),  # noqa: S104
        ({"host": "0.0.0.0"}, True, "tokens would cross the network in the clear"),  # noqa: S104
        ({"host": "::"}, True, "tokens would cross the network in the clear"),
        ({"host": "page.example.org"}, True, "tokens would cross the network in the clear"),
        ({"host": "0.0.0.0", "trusted_proxy": ["10.0.0.5"]}, False, "set a token of your own"),  # noqa: S104
        ({"host": "0.0.0.0", "trusted_proxy": ["10.0.0.5"]}, True, None),  # noqa: S104
        ({"host": "0.0.0.0", "tls_certificate": "page.crt", "tls_key": "page.key"}, True, None),  # noqa: S104
        ({"tls_certificate": "page.crt", "tls_key": "other.key"}, False, "are no certificate and its key"),
        ({"tls_certificate": "page.crt", "tls_key": "nothing.key"}, False, "nothing.key cannot be read"),
    ],
)
def test_where_others_can_reach_it_it_wants_a_token_and_tls(
    platform: Platform, pem: Path, web: dict[str, Any], tokens: bool, refusal: str | None
) -> None:
    placed = {key: str(pem / value) if key.startswith("tls_") else value for key, value in web.items()}
    platform.configure(web=placed)
    if not tokens:
        for name in ("CLEANUP_WEB_OPERATOR_TOKEN", "CLEANUP_WEB_VIEWER_TOKEN"):
            del platform.environ[name]
    if refusal is None:
        require_safe(platform.settings())
        return
    with pytest.raises(ServeError, match=refusal):
        require_safe(platform.settings())


@pytest.fixture
def plain(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Generator[int]:
    """The port of the page in this process, which looks at its connections often."""
    monkeypatch.setattr("cleanup_dagster.web.connections._SECONDS", 0.2)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(platform.app(), http=Connection, log_level="critical", ws="none", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    eventually("it has started", lambda: server.started)
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(30)


@pytest.mark.parametrize("begun", [b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: a"])
def test_who_says_no_more_is_not_waited_for(plain: int, begun: bytes) -> None:
    with socket.create_connection(("127.0.0.1", plain), timeout=20) as slow:
        slow.sendall(begun)
        assert slow.recv(1) == b""


def test_who_takes_no_answer_is_not_waited_for(plain: int) -> None:
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", plain))
        slow.settimeout(20)
        slow.sendall(b"GET /static/vendor/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 9)
        time.sleep(1.5)
        assert _all_that_comes(slow) < 9 * 1_700_000  # the kernel itself takes some megabytes in


def test_who_asks_now_and_then_is_answered(plain: int) -> None:
    with httpx.Client(base_url=f"http://localhost:{plain}") as client:
        for _ in range(4):
            assert client.get("/healthz").status_code == 200
            time.sleep(0.15)
        assert len(client.get("/static/vendor/swagger-ui-bundle.js").content) > 1_700_000


def test_a_head_without_end_is_not_read_to_its_end(plain: int) -> None:
    with socket.create_connection(("127.0.0.1", plain), timeout=20) as endless:
        endless.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            _send_headers(endless, 1_000)


def _send_headers(to: socket.socket, count: int) -> None:
    for number in range(count):
        to.sendall(b"X-%d: %s\r\n" % (number, b"a" * 8_000))


def _all_that_comes(from_: socket.socket) -> int:
    taken = 0
    with contextlib.suppress(ConnectionResetError):
        while part := from_.recv(65_536):
            taken += len(part)
    return taken
