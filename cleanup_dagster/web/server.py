"""Serving the page: who may reach it is decided here, before anything listens."""

import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import uvicorn

from cleanup_dagster.settings import Settings
from cleanup_dagster.state import open_state
from cleanup_dagster.web.app import create_app
from cleanup_dagster.web.connections import Connection
from cleanup_dagster.web.tokens import Tokens, TokensError, tokens_of
from cleanup_dagster.web_settings import Web

_KEEP_ALIVE_SECONDS = 30


class ServeError(Exception):
    """The page is not served as it is configured; the message says what to change."""


class Address(NamedTuple):
    """Where the page is, and the link by which the first person logs in, or None when it was shown before."""

    page: str
    login: str | None


def serve(settings: Settings, reload: Callable[[], Settings], ready: Callable[[Address], None]) -> None:
    """Serve until somebody ends the process. `ready` is told where, once the address is taken.

    Raises ServeError, or UnsafeDirectoryError when the state directory is not ours alone.
    """
    web = settings.web
    with open_state(settings.state_dir):
        require_safe(settings)
        listener = _listening(web)
        try:
            tokens = tokens_of(settings)  # last: what shows the login link once must not fail after it was made
        except TokensError as error:
            listener.close()
            raise ServeError(str(error)) from None
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(settings, tokens, reload),
                host=web.host,
                port=web.port,
                http=Connection,
                log_level="warning",
                access_log=False,
                server_header=False,
                date_header=True,
                proxy_headers=bool(web.trusted_proxy),
                forwarded_allow_ips=list(web.trusted_proxy),
                ssl_certfile=web.tls_certificate,
                ssl_keyfile=web.tls_key,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=5,
                ws="none",
            )
        )
        ready(address_of(web, tokens))
        server.run(sockets=[listener])


def require_safe(settings: Settings) -> None:
    """Refuse to listen where others can reach the page, unless they need a token and cannot overhear it.

    Raises ServeError.
    """
    web = settings.web
    for path in filter(None, (web.tls_certificate, web.tls_key)):
        if not os.access(path, os.R_OK):
            raise ServeError(f"{path} cannot be read; correct web.tls_certificate and web.tls_key")
    if web.tls_certificate and web.tls_key:
        _require_pair(web.tls_certificate, web.tls_key)
    if web.is_loopback:
        return
    if settings.operator_token is None and settings.viewer_token is None:
        raise ServeError(
            f"{web.host} can be reached from other machines, so set a token of your own in CLEANUP_WEB_OPERATOR_TOKEN "
            "(openssl rand -hex 32), or listen on 127.0.0.1"
        )
    if not (web.tls_certificate or web.trusted_proxy):
        raise ServeError(
            f"{web.host} can be reached from other machines, so tokens would cross the network in the clear; set "
            "web.tls_certificate and web.tls_key, or name the proxy that does TLS in web.trusted_proxy, or listen on "
            "127.0.0.1"
        )


def _require_pair(certificate: Path, key: Path) -> None:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        problem = str(error)
    else:
        return
    raise ServeError(f"{certificate} and {key} are no certificate and its key ({problem}); give unencrypted PEM files")


def address_of(web: Web, tokens: Tokens) -> Address:
    """Return where the page is, and once, when the tokens were made just now, how to log in."""
    host = f"[{web.host}]" if ":" in web.host else web.host
    url = f"{'https' if web.tls_certificate else 'http'}://{host}:{web.port}"
    return Address(f"{url}/pipeline-management", f"{url}/login#token={tokens.fresh}" if tokens.fresh else None)


def _listening(web: Web) -> socket.socket:
    family = socket.AF_INET6 if ":" in web.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((web.host, web.port))
        listener.listen()
    except OSError as error:
        listener.close()
        problem = error.strerror
    else:
        listener.set_inheritable(True)
        return listener
    raise ServeError(f"{web.host}:{web.port} cannot be listened on: {problem}; choose another with --port")
