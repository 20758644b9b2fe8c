"""Runs that die on a scratch platform, and what has to be so once the next one settled them."""

from pathlib import Path

import pytest
from service_helpers import Platform, left_behind, request
from undo_helpers import counts, killed, undo

from cleanup_dagster.filesystem.quarantine import Quarantine
from cleanup_dagster.handles import CheckedPlan
from cleanup_dagster.installation import RunRefusedError
from cleanup_dagster.retention.models import RestoreState

FILES = 150  # more than one batch of plain copies
GONE = 140


def garbage(platform: Platform, number: int = FILES) -> dict[str, str]:
    """Write expired logs, and return their contents by path."""
    return {str(platform.log(f"{n % 5}/{n}.log", 31, f"content {n}")): f"content {n}" for n in range(number)}


def dies(
    platform: Platform, at: object = Quarantine, name: str = "remove", call: int = GONE, run_id: str = "died"
) -> None:
    """Let a live run die just before a call: before the file number GONE is unlinked, unless told otherwise."""
    platform.configure()
    killed(at, name, call, lambda: platform.run(run_id=run_id))


def recovers(platform: Platform, expected: int = 1) -> list[str]:
    """Begin a run, which settles what died, and take nothing else."""
    with platform.service() as service:
        run = service.begin(request())
        service.audit(CheckedPlan(run, ()), ())
    recovered = run.recovered
    assert len(recovered) == expected, recovered
    return list(recovered)


def safe(platform: Platform, before: dict[str, str]) -> set[str]:
    """Check that every file is in place or has its copy, and return which are gone."""
    kept = {copy.read_text() for copy in platform.backups.rglob("*.backup")}
    quarantined = {path.read_text() for path in platform.logs.glob(".cleanup-q-*/*")}
    gone = {path for path in before if not Path(path).exists()}
    assert {before[path] for path in gone} <= kept | quarantined
    assert all(Path(path).read_text() == before[path] for path in before if path not in gone)
    return gone


def audited(platform: Platform, run_id: str = "died") -> list[tuple[object, ...]]:
    """Return what the audit says of a run's logs: the outcome, and how many were deleted."""
    return platform.ask(
        f"SELECT outcome, records_deleted FROM cleanup_audit WHERE run_id = '{run_id}' AND data_type = 'system_logs'"  # noqa: S608
    )


def fresh_database(platform: Platform) -> None:
    """Replace the embedded database by none."""
    for path in platform.state.glob("cleanup.db*"):
        path.unlink()


def as_after_the_loss(platform: Platform) -> None:
    """Do what the refusal tells the operator to do."""
    with pytest.raises(RunRefusedError, match=r"when it was replaced on purpose, remove .*/installation_id") as refusal:
        platform.run()
    named = str(refusal.value).rsplit("remove ", 1)[1]
    assert named == str(platform.state / "installation_id")
    Path(named).unlink()


def everything_is_as_it_should_be(platform: Platform, before: dict[str, str], gone: set[str]) -> None:
    """The run is in the audit, its files can be restored, and nothing is left lying about."""
    assert audited(platform) == [("recovered", len(gone))]
    assert platform.ask("SELECT status FROM cleanup_runs WHERE run_id = 'died'") == [("interrupted",)]
    assert left_behind(platform.home) == []
    with platform.service() as service:
        assert service.verify_backups(of_run="died").damaged == ()
    report = undo(platform, "died")
    assert counts(report).get(RestoreState.RESTORED) == len(gone), report
    assert report.problems == ()
    assert {path: Path(path).read_text() for path in before} == before
