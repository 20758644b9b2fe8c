"""A webhook on this machine: it remembers what was posted, and answers as it is told."""

import json
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "very-secret-token"  # noqa: S105  is looked for in logs


class Webhook:
    """What came in, and what is answered: a status, or `None` for silence until the end."""

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []
        self.status: int | None = 200
        self.over = threading.Event()
        self.url = ""


@contextmanager
def webhook() -> Generator[Webhook]:
    """Serve one on a free port of the loopback."""
    hook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hook.posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if hook.status is None:
                hook.over.wait(30)
                return
            self.send_response(hook.status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the name that the base gives it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hook.url = f"http://127.0.0.1:{server.server_address[1]}/hooks/{SECRET}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        hook.over.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


def took(started: float) -> float:
    """Return the seconds since a moment of the monotonic clock."""
    return time.monotonic() - started
