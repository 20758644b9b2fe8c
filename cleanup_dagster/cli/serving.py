"""`serve`: the page and the API, until somebody ends them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cleanup_dagster.cli import exits
from cleanup_dagster.cli.exits import CliError

if TYPE_CHECKING:
    from cleanup_dagster.cli.session import Session
    from cleanup_dagster.web.server import Address


def serve(session: Session, host: str | None, port: int | None) -> int:
    """Serve until the process is ended."""
    from cleanup_dagster.bootstrap import wait_for_database
    from cleanup_dagster.settings import load_settings
    from cleanup_dagster.web.server import ServeError
    from cleanup_dagster.web.server import serve as serve_page

    def ready(address: Address) -> None:
        session.out.if_interrupted = "the page is not served any more"
        session.finish({"url": address.page, "login_url": address.login}, lambda: _show(session, address))
        session.out.flush()  # whoever reads a pipe waits for it

    for option, value in (("--host", host), ("--port", port)):
        if value == "":
            raise CliError(f"{option} is empty; give a value, or leave the option out")
    session.begin()
    for variable, value in (("CLEANUP_WEB_HOST", host), ("CLEANUP_WEB_PORT", port)):
        if value is not None:
            os.environ[variable] = str(value)
    settings = session.settings
    wait_for_database(settings, session.out.note)
    with session.installation():
        pass  # a schema that is absent, older or newer is refused here, before anything listens
    try:
        serve_page(settings, load_settings, ready)
    except ServeError as error:
        raise CliError(str(error), exits.UNUSABLE) from None
    return exits.DONE


def _show(session: Session, address: Address) -> None:
    session.out.say(f"Cleanup: {address.page}")
    if address.login:
        session.out.say(f"Log in once with: {address.login}")
        kept = session.settings.state_dir / "web_tokens.json"
        session.out.say(f"The tokens are kept in {kept}; this link is not shown again.")
