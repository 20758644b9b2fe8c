"""Serving the page: who may reach it is decided here, before anything listens."""

import os
import ssl
from collections.abc import Callable
from pathlib import Path

import uvicorn

from cleanup_dagster.settings import Settings
from cleanup_dagster.state import open_state
from cleanup_dagster.web.app import create_app
from cleanup_dagster.web.tokens import Tokens, TokensError, tokens_of
from cleanup_dagster.web_settings import Web

_KEEP_ALIVE_SECONDS = 30


class ServeError(Exception):
    """The page is not served as it is configured; the message says what to change."""


def serve(settings: Settings, reload: Callable[[], Settings], say: Callable[[str], None]) -> None:
    """Serve until somebody ends the process. `say` takes what a person at the terminal should read.

    Raises ServeError, or UnsafeDirectoryError when the state directory is not ours alone.
    """
    web = settings.web
    with open_state(settings.state_dir):
        try:
            tokens = tokens_of(settings)
        except TokensError as error:
            raise ServeError(str(error)) from None
        require_safe(web, tokens)
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(settings, tokens, reload),
                host=web.host,
                port=web.port,
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
        sockets = [_listening(server.config)]
        greet(web, tokens, settings, say)
        server.run(sockets=sockets)


def require_safe(web: Web, tokens: Tokens) -> None:
    """Refuse to listen where others can reach the page, unless they need a token and cannot overhear it.

    Raises ServeError.
    """
    for path in filter(None, (web.tls_certificate, web.tls_key)):
        if not os.access(path, os.R_OK):
            raise ServeError(f"{path} cannot be read; correct web.tls_certificate and web.tls_key")
    if web.tls_certificate and web.tls_key:
        _require_pair(web.tls_certificate, web.tls_key)
    if web.is_loopback:
        return
    if not tokens.configured:
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


def greet(web: Web, tokens: Tokens, settings: Settings, say: Callable[[str], None]) -> None:
    """Say where the page is, and once, when they were made just now, how to log in."""
    host = f"[{web.host}]" if ":" in web.host else web.host
    url = f"{'https' if web.tls_certificate else 'http'}://{host}:{web.port}"
    say(f"Cleanup: {url}/pipeline-management")
    if tokens.fresh:
        say(f"Log in once with: {url}/login#token={tokens.fresh}")
        say(f"The tokens are kept in {settings.state_dir / 'web_tokens.json'}; this link is not shown again.")


def _listening(config: uvicorn.Config):  # noqa: ANN202
    import socket

    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError as error:
        listener.close()
        problem = error.strerror
    else:
        listener.set_inheritable(True)
        return listener
    raise ServeError(f"{config.host}:{config.port} cannot be listened on: {problem}; choose another with --port")
