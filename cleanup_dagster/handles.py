"""What the steps of a run pass to each other: small frozen values that say where the contents are, never the contents.

A failure travels in them as a value (`problem`), because a step that raised would keep the audit from being written.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from cleanup_dagster.backups.manifest import ManifestRef
from cleanup_dagster.retention.guardrails import Refusal
from cleanup_dagster.retention.models import (
    SKIPPED_STATES,
    CleanupType,
    Policy,
    PolicyProblem,
    Reason,
    Restored,
    RestoreState,
    State,
    Stock,
    Tally,
    Verdict,
)


class Request(Struct, frozen=True):
    """What somebody asked for. `run_id` is Dagster's, so that a run has one name everywhere.

    `plan` is the run id of the dry run whose reviewed plan is to be applied, exactly. A run under `disk_pressure`
    prunes expired backups before anything else, and writes archives, to another disk where one is configured.
    """

    run_id: str
    cleanup_type: CleanupType
    dry_run: bool
    executed_by: str
    skip_backup: bool = False
    plan: str = ""
    disk_pressure: bool = False


class Run(Struct, frozen=True):
    """A run that has begun: its moment, the policies as they were read, and what was wrong with them."""

    request: Request
    now_ns: int
    policies: dict[str, Policy | PolicyProblem]
    targets: tuple[str, ...]
    problems: tuple[str, ...] = ()
    recovered: tuple[str, ...] = ()
    pruned: Tally = Tally()


class ScanTask(Struct, frozen=True):
    """One target of a run, to be scanned."""

    run: Run
    target: str


class Plan(Struct, frozen=True):
    """What a run means to do in one target. The verdicts are in `manifest`; here are their sums and some examples.

    A `problem` kept the target from being judged. A warning concerns one data type: it is kept whole, the others go on,
    and the run fails at its end. A `note` explains an empty plan.
    """

    run: Run
    target: str
    root: str
    data_types: tuple[str, ...]
    manifest: ManifestRef | None
    scanned: Tally = Tally()
    expired: dict[str, Tally] = {}
    kept: dict[Reason, Tally] = {}
    largest: tuple[Verdict, ...] = ()
    oldest: tuple[Verdict, ...] = ()
    note: str = ""
    warnings: tuple[str, ...] = ()
    problem: str = ""
    present: dict[str, Stock] = {}

    @property
    def deletable(self) -> Tally:
        """Everything that is to go, over all data types."""
        return total(self.expired.values())


class CheckedPlan(Struct, frozen=True):
    """All plans of a run, and the guardrails that stop it. `bypassed` ones were overruled by the run's type."""

    run: Run
    plans: tuple[Plan, ...]
    refusals: tuple[Refusal, ...] = ()
    bypassed: tuple[Refusal, ...] = ()

    @property
    def may_delete(self) -> bool:
        """Whether anything may be taken: a live run that nothing refuses."""
        return not self.run.request.dry_run and not self.refusals


class Counts(Struct, frozen=True):
    """What became of one data type's items, by state."""

    states: dict[State, Tally] = {}

    @property
    def deleted(self) -> Tally:
        """What is gone."""
        return self.states.get(State.DELETED, Tally())

    @property
    def failed(self) -> Tally:
        """What could not be dealt with and needs somebody."""
        return total(t for s, t in self.states.items() if s is not State.DELETED and s not in SKIPPED_STATES)

    @property
    def skipped(self) -> Tally:
        """What was left for a good reason."""
        return total(t for s, t in self.states.items() if s in SKIPPED_STATES)

    def plus(self, other: "Counts") -> "Counts":
        """Return both together."""
        states = dict(self.states)
        for state, tally in other.states.items():
            states[state] = states.get(state, Tally()).plus(tally.files, tally.bytes)
        return Counts(states)


class BackedUp(Struct, frozen=True):
    """The receipts of one target, intent committed. Without `receipts` there is nothing to delete.

    `unsettled` means that its copies could not be withdrawn after a `problem`: recovery has to.
    """

    plan: Plan
    receipts: ManifestRef | None = None
    copied: dict[str, Tally] = {}
    counts: dict[str, Counts] = {}
    problem: str = ""
    unsettled: bool = False


class Deleted(Struct, frozen=True):
    """How one target ended. `unsettled` means that recovery has to finish it: the run's row stays open for that."""

    plan: Plan
    copied: dict[str, Tally] = {}
    counts: dict[str, Counts] = {}
    open_checks: tuple[str, ...] = ()
    directories_removed: int = 0
    problem: str = ""
    unsettled: bool = False


class Step(Struct, frozen=True):
    """How far a run is: what it does (`deleted`) in which target, and with how many of how many (0: unknown).

    `what` is what it counts: `files` or `runs`.
    """

    done: str
    target: str
    files: int
    of: int
    began_ns: int
    at_ns: int
    what: str = "files"


class Pruned(Struct, frozen=True):
    """What was over: copies past their retention, and the problems met while removing them."""

    copies: Tally = Tally()
    problems: tuple[str, ...] = ()


class Report(Struct, frozen=True):
    """How a run ended, once its audit is written. Any problem makes the run fail visibly."""

    checked: CheckedPlan
    status: str
    results: tuple[Deleted, ...] = ()
    problems: tuple[str, ...] = ()
    log: str = ""

    @property
    def counts(self) -> dict[str, Counts]:
        """What became of the items, by data type."""
        merged: dict[str, Counts] = {}
        for result in self.results:
            merged = merge(merged, result.counts)
        return merged


class RestoreRequest(Struct, frozen=True):
    """What is to be put back: everything of `of_run`, or what matches a path and a data type of those given.

    `paths` are absolute paths or globs in text form; a directory stands for everything below it.
    """

    run_id: str
    of_run: str
    executed_by: str
    paths: tuple[str, ...] = ()
    data_types: tuple[str, ...] = ()
    dry_run: bool = True


class RestoreReport(Struct, frozen=True):
    """How a restore ended, by state, with the first few items that could not be put back. `what` they are called."""

    request: RestoreRequest
    states: dict[RestoreState, Tally]
    troubled: tuple[Restored, ...]
    holds: tuple[int, ...]
    manifests: str
    problem: str = ""
    what: str = "files"

    @property
    def problems(self) -> tuple[str, ...]:
        """What kept files from being restored; empty when everything that was asked for is in its place."""
        said = _TROUBLE if self.what != "runs" else _TROUBLE | _TROUBLE_OF_RUNS
        trouble = [f"{t.files:,} {self.what}: {said[s]}" for s, t in self.states.items() if not s.is_well]
        return (*trouble, *filter(None, [self.problem]))


_TROUBLE = {
    RestoreState.EXISTS: "a newer file has the name; move it away to restore the old one",
    RestoreState.NO_BACKUP: "the run was told to skip backups",
    RestoreState.MISSING: "the backup is not there any more",
    RestoreState.DAMAGED: "the backup has other bytes than were written, so it was not used",
    RestoreState.FAILED: "the file could not be written",
}
_TROUBLE_OF_RUNS = {
    RestoreState.EXISTS: "the run is there, and not as it was archived",
    RestoreState.FAILED: "the run could not be put back",
}


def counts_of(by_state: Mapping[tuple[str, State], Tally]) -> dict[str, Counts]:
    """Return tallies by data type and state as counts by data type."""
    states: dict[str, dict[State, Tally]] = {}
    for (data_type, state), tally in by_state.items():
        states.setdefault(data_type, {})[state] = tally
    return {data_type: Counts(of_type) for data_type, of_type in states.items()}


def merge(one: Mapping[str, Counts], other: Mapping[str, Counts]) -> dict[str, Counts]:
    """Return the counts by data type of both together."""
    merged = dict(one)
    for data_type, counts in other.items():
        merged[data_type] = merged.get(data_type, Counts()).plus(counts)
    return merged


def total(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of tallies."""
    files = size = 0
    for tally in tallies:
        files += tally.files
        size += tally.bytes
    return Tally(files, size)
