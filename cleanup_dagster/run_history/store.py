"""What purging needs of an instance's storage. Implemented beside Dagster, which nothing here imports.

Rows travel as the lines of a document (`document.py`): as the database itself writes them, not as objects.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from msgspec import Struct

from cleanup_dagster.retention.models import RestoreState, State

#: Below this stand the instances in plans, receipts and holds: `/dagster_runs/<id of the run storage>/<job>/<run id>`.
ROOT = "/dagster_runs"

Line = bytes


class RunStoreError(Exception):
    """The instance's storage cannot be used, or is not one whose runs can be purged and put back exactly."""


class RunLogError(RunStoreError):
    """One run's logs cannot be read: it stays, and the others go."""


class RunRow(Struct, frozen=True):
    """One run as its row and its tags tell of it. `number` is its id in the storage; moments are nanoseconds."""

    number: int
    run_id: str
    job: str
    status: str
    ended_ns: int | None
    updated_ns: int
    retry_root: str | None = None
    backfill: str | None = None
    run_key: str | None = None
    keep: str | None = None


class Keep(Struct, frozen=True):
    """What must be known after a purge as before: by which events assets are, and whether jobs' partitions are."""

    asset_events: str = "keep_latest"
    job_partitions: bool = True


class Weight(Struct, frozen=True):
    """How much of a run there is. `needed` says what would be unknown without it, of an asset or of a `partition`."""

    events: int = 0
    bytes: int = 0
    needed: str = ""
    partition: str = ""


class Doomed(Struct, frozen=True):
    """A run about to be purged: only when its document has this sha256 now."""

    run_id: str
    sha256: str
    events: int


class Ended(Struct, frozen=True):
    """How purging one run ended."""

    state: State
    detail: str = ""


class RunStore(Protocol):
    """The runs of one instance. Every method raises RunStoreError when the storage cannot be used."""

    #: Whether a batch goes in one transaction. If not, a crash can leave a run that has lost some of its rows.
    atomic: bool

    def root(self, *, create: bool) -> str:
        """Return where this instance stands below `ROOT`. Without `create` nothing is written to find out."""
        ...

    def problems(self) -> list[str]:
        """Return why nothing may be purged here: what is missing, and what would mend it. Empty when all is well."""
        ...

    def runs(self, keep_tag: str) -> Iterator[RunRow]:
        """Yield every run, oldest row first, as a stream."""
        ...

    def retry_roots(self) -> frozenset[str]:
        """Return the runs that were executed again."""
        ...

    def backfills(self) -> Mapping[str, bool]:
        """Return the backfills there are, and whether each has ended."""
        ...

    def weigh(self, run_ids: Sequence[str], keep: Keep) -> Mapping[str, Weight]:
        """Return how much there is of some runs, and which of them the state of an asset or a partition depends on."""
        ...

    def documents(self, run_ids: Sequence[str]) -> Iterator[tuple[str, Iterator[Line]]]:
        """Yield the document of each run that is there. Each must be read before the next is asked for."""
        ...

    def purge(self, groups: Sequence[Sequence[Doomed]], keep: Keep) -> Mapping[str, Ended]:
        """Delete runs, each group whole or not at all, and only when they are still exactly what was archived."""
        ...

    def present(self, run_ids: Sequence[str]) -> frozenset[str]:
        """Return which of some runs have a row."""
        ...

    def clear(self, run_id: str, logs: Mapping[str, str]) -> str:
        """Remove the logs of a purged run, as far as they have these sha256, and say why they could not go. Idempotent.

        That is no error: its rows are gone, and a log that others own would block every run after this one.
        """
        ...

    def restore(self, run_id: str, lines: Callable[[], Iterable[Line]], *, dry_run: bool) -> tuple[RestoreState, str]:
        """Put a run's missing rows and files back, all of them exactly or none. Replaces nothing."""
        ...

    def maintain(self) -> None:
        """Let the database reuse what was deleted."""
        ...


#: Opens the store of the instance that the job runs on.
OpenRunStore = Callable[[], AbstractContextManager[RunStore]]


def is_runs_root(root: str) -> bool:
    """Tell whether a plan's or an intent's root is an instance, and no directory."""
    return root.startswith(f"{ROOT}/")
