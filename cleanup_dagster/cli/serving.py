"""`serve`: the page and the API, until somebody ends them."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

from cleanup_dagster.cli import exits
from cleanup_dagster.cli.exits import CliError

if TYPE_CHECKING:
    from cleanup_dagster.cli.session import Session


def serve(session: Session, host: str | None, port: int | None) -> int:
    """Serve until the process is ended."""
    from cleanup_dagster.bootstrap import wait_for_database
    from cleanup_dagster.settings import load_settings
    from cleanup_dagster.web.server import ServeError
    from cleanup_dagster.web.server import serve as serve_page

    def say(text: str) -> None:
        session.out.say(text)
        session.out.flush()  # whoever reads a pipe waits for the link

    gc.enable()
    for variable, value in (("CLEANUP_WEB_HOST", host), ("CLEANUP_WEB_PORT", port)):
        if value is not None:
            os.environ[variable] = str(value)
    settings = session.settings
    wait_for_database(settings, session.out.note)
    with session.installation():
        pass  # a schema that is absent, older or newer is refused here, before anything listens
    try:
        serve_page(settings, load_settings, say)
    except ServeError as error:
        raise CliError(str(error), exits.UNUSABLE) from None
    return exits.DONE
