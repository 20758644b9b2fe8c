"""What stops a live run before its first deletion.

Four guardrails (number, bytes, share, growth) ask whether a person meant this much; a reviewed plan or an emergency
answers yes. The others (clock, free space, volatile backup) protect the bytes themselves, and nothing bypasses them.
"""

import statistics
from collections.abc import Iterator, Sequence
from enum import Enum

from msgspec import Struct

from cleanup_dagster.retention.models import NS_PER_SECOND, Tally
from cleanup_dagster.retention.times import from_ns

GIB = 1024**3
#: Below this many files neither a share nor a growth says anything: 3 of 4 files is a quiet day, not a mistake.
SMALL = 100
GROWTH_MIN_RUNS = 3
GROWTH_RUNS = 7


#: How an operator says, in either database, that runs which started in the future had a wrong clock.
FORGET_THE_FUTURE = "UPDATE cleanup_runs SET started_at = CURRENT_TIMESTAMP WHERE started_at > CURRENT_TIMESTAMP"


class Guardrail(str, Enum):
    """The named limits of a live run."""

    FILES = "files"
    BYTES = "bytes"
    SHARE = "share"
    GROWTH = "growth"
    CLOCK = "clock"
    FREE_SPACE = "free_space"
    VOLATILE_BACKUP = "volatile_backup"


#: The guardrails that applying a reviewed plan, or the type emergency, bypasses. Never the others.
BYPASSABLE = frozenset({Guardrail.FILES, Guardrail.BYTES, Guardrail.SHARE, Guardrail.GROWTH})


class Limits(Struct, frozen=True):
    """The limits of one target. `max_share` is a fraction of the files scanned, `max_growth` a factor of the median."""

    max_files: int = 100_000
    max_bytes: int = 100 * GIB
    max_share: float = 0.5
    max_growth: float = 10.0
    free_space_reserve: int = GIB
    allow_volatile_backup: bool = False


class BackupSpace(Struct, frozen=True):
    """Where one target's backups go. `needed` bytes of copies; None for `available` when the run makes no backup."""

    needed: int
    available: int | None
    volatile: bool = False
    source_volatile: bool = False


class Refusal(Struct, frozen=True):
    """A guardrail that tripped: the figure, the limit, and in `message` the ways on that exist for it."""

    guardrail: Guardrail
    subject: str
    message: str


def plan_refusals(
    target: str,
    scanned: Tally,
    expired: Tally,
    limits: Limits,
    recent_deletions: Sequence[int],
    what: str = "files",
) -> Iterator[Refusal]:
    """Yield the bypassable guardrails that one target's plan trips.

    `recent_deletions` are the files this target lost in its latest live runs, newest first; runs that deleted nothing
    say nothing about growth and are left out by the caller. `what` is what the target has.
    """
    ways = "review the dry run and apply its plan, raise the limit in cleanup.yaml, or run with type emergency"
    if expired.files > limits.max_files:
        yield Refusal(
            Guardrail.FILES,
            target,
            f"{target}: {expired.files:,} {what} would go, more than max_files = {limits.max_files:,}; {ways}",
        )
    if expired.bytes > limits.max_bytes:
        yield Refusal(
            Guardrail.BYTES,
            target,
            f"{target}: {format_bytes(expired.bytes)} would go, "
            f"more than max_bytes = {format_bytes(limits.max_bytes)}; {ways}",
        )
    if scanned.files >= SMALL and expired.files / scanned.files > limits.max_share:
        yield Refusal(
            Guardrail.SHARE,
            target,
            f"{target}: {expired.files:,} of {scanned.files:,} {what} would go ({expired.files / scanned.files:.1%}), "
            f"more than max_share = {100 * limits.max_share:g}%; {ways}",
        )
    recent = recent_deletions[:GROWTH_RUNS]
    if len(recent) >= GROWTH_MIN_RUNS and expired.files >= SMALL:
        median = statistics.median(recent)
        if not median or expired.files / median > limits.max_growth:
            yield Refusal(
                Guardrail.GROWTH,
                target,
                f"{target}: {expired.files:,} {what} would go, more than max_growth = {limits.max_growth:g} times the "
                f"median of the last {len(recent)} runs ({median:,.0f}); {ways}",
            )


def clock_refusals(
    host_now_ns: int, database_now_ns: int | None, last_run_ns: int | None, max_skew_seconds: int
) -> Iterator[Refusal]:
    """Yield a refusal when this host's clock cannot be trusted: a clock ten years fast expires everything.

    `database_now_ns` is None for the embedded database, which has no clock of its own; `last_run_ns` is when the latest
    run started, by its host's clock.
    """
    if database_now_ns is not None and abs(host_now_ns - database_now_ns) > max_skew_seconds * NS_PER_SECOND:
        apart = abs(host_now_ns - database_now_ns) // NS_PER_SECOND
        yield Refusal(
            Guardrail.CLOCK,
            "clock",
            f"the host's clock and the database's are {apart:,} seconds apart, more than {max_skew_seconds}; "
            "correct the clock (timedatectl status) before anything is judged by age",
        )
    if last_run_ns is not None and host_now_ns < last_run_ns - max_skew_seconds * NS_PER_SECOND:
        behind = (last_run_ns - host_now_ns) // NS_PER_SECOND
        yield Refusal(
            Guardrail.CLOCK,
            "clock",
            f"the host's clock is {behind:,} seconds before the start of the last run, "
            f"{from_ns(last_run_ns):%Y-%m-%d %H:%M} UTC; correct the clock (timedatectl status) before anything is "
            f"judged by age, or, if it was that run's clock that was wrong, say so: {FORGET_THE_FUTURE}",
        )


def backup_refusals(target: str, space: BackupSpace, limits: Limits) -> Iterator[Refusal]:
    """Yield the refusals of one target's backup store: too small for the copies, or more volatile than the source."""
    if space.available is None or not space.needed:
        return
    if space.needed + limits.free_space_reserve > space.available:
        yield Refusal(
            Guardrail.FREE_SPACE,
            target,
            f"{target}: the backup needs {format_bytes(space.needed)} and a reserve of "
            f"{format_bytes(limits.free_space_reserve)}, but {format_bytes(space.available)} are free where backups "
            "go; free space there, point backup.directory at another disk, or run with type emergency and skip_backup",
        )
    if space.volatile and not space.source_volatile and not limits.allow_volatile_backup:
        yield Refusal(
            Guardrail.VOLATILE_BACKUP,
            target,
            f"{target}: the backup directory lies in memory (tmpfs) and the files do not, so a power cut loses "
            "both; point backup.directory at a disk, or set limits.allow_volatile_backup",
        )


def format_bytes(size: int) -> str:
    """Return a size as people read it, in binary units: `1.4 GiB`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
