"""A scan without Dagster: the read-only half of a run, in a process of its own, for the list of files.

It is what a dry run is, with a plan and a row of its own: nothing else is written, and nothing can be deleted here.
"""

import sys

from cleanup_dagster.bootstrap import open_service
from cleanup_dagster.handles import Request
from cleanup_dagster.retention.models import CleanupType
from cleanup_dagster.service import MET
from cleanup_dagster.settings import ConfigError, load_settings


def scan(run_id: str, executed_by: str) -> None:
    """Make a dry run. Raises ConfigError, or what is in `MET`."""
    with open_service(load_settings()) as service:
        run = service.begin(Request(run_id, CleanupType.MANUAL, dry_run=True, executed_by=executed_by))
        checked = service.check(run, [service.scan(run, target) for target in run.targets])
        service.audit(checked, [])


def main() -> int:
    """Scan under the run id and in the name that the arguments give."""
    try:
        scan(sys.argv[1], sys.argv[2])
    except (ConfigError, *MET) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
