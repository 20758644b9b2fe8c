"""Watching an installation from outside of its runs: figures to plot, questions that raise an alarm, and the alarm."""

import logging
from collections.abc import Iterator, Sequence

from cleanup_dagster import checkup, figures
from cleanup_dagster.alerting import Alert, Notices, send
from cleanup_dagster.checkup import Overdue, Silence
from cleanup_dagster.database.errors import DatabaseUnavailable
from cleanup_dagster.figures import Disk, StoreFigures, TypeFigures
from cleanup_dagster.handles import CheckedPlan, Deleted
from cleanup_dagster.installation import Installation, Progress

_log = logging.getLogger(__name__)


class Watch:
    """What one installation's faces show and ask of it. Nothing here changes a file or a record of a run."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    def types(self, checked: CheckedPlan, results: Sequence[Deleted]) -> Iterator[TypeFigures]:
        """Yield the figures of each data type at the end of a run, without those that the database does not give."""
        try:
            held = figures.held_by_type(self._installation)
        except DatabaseUnavailable as error:
            _log.warning("what the backups hold is not known: %s", error)
            held = None
        yield from figures.figures_of_types(self._installation, checked, tuple(results), held)

    def store(self) -> StoreFigures:
        """Return what the backups hold. Raises DatabaseUnavailable."""
        return figures.figures_of_store(self._installation)

    def disks(self) -> list[Disk]:
        """Return the filesystems of targets and backups, the fullest first."""
        return figures.disks(self._installation.settings)

    def overdue(self, data_types: frozenset[str], progress: Progress) -> Iterator[Overdue]:
        """Scan, and say what of each data type should have gone long ago. Raises DatabaseUnavailable."""
        grace = self._installation.settings.alerts.overdue_grace
        return checkup.overdue(self._installation, data_types, grace, progress)

    def silence(self, *, scheduled: bool) -> Silence:
        """Tell whether live cleanups go on succeeding. Raises DatabaseUnavailable."""
        return checkup.silence(self._installation, self._installation.settings.alerts.silent_after, scheduled=scheduled)

    def interrupted(self) -> str:
        """Say which run died and waits to be settled; empty when none does. Raises DatabaseUnavailable."""
        return checkup.interrupted(self._installation)

    def tell(self, trouble: str, problem: str) -> str:
        """Tell somebody of a trouble that began, goes on or is over (`problem` is empty), once and not at every look.

        Returns what kept the alert from being sent; empty when nothing had to be sent, or it was.
        """
        settings, now_ns = self._installation.settings, self._installation.clock()
        if settings.alert_webhook is None:
            return ""
        notices = Notices(self._installation.state.path)
        if problem and not notices.due(trouble, now_ns, settings.alerts.repeat):
            return ""
        if not problem and not notices.open(trouble):
            return ""
        alert = Alert(
            "check_failed" if problem else "check_recovered",
            f"{trouble}: {problem}" if problem else f"{trouble}: all is well again",
            {"check": trouble},
        )
        unsent = send(settings.alert_webhook, settings.alerts, alert)
        if unsent:
            return unsent
        if problem:
            notices.told(trouble, now_ns)
        else:
            notices.over(trouble)
        return ""
