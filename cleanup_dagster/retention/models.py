"""The values every room shares.

All are frozen, and those that come by the million are no concern of the garbage collector: nothing in them can refer
back to them. Moments are integer nanoseconds since 1970-01-01 UTC (`*_ns`), sizes are bytes, and paths are
in the reversible text form of `cleanup_dagster.filesystem.names`, relative to the target's root, so that a value can be
logged, stored and shown without another thought for what a hostile file name may contain.
"""

from enum import Enum

from msgspec import Struct

NS_PER_SECOND = 1_000_000_000
NS_PER_DAY = 86_400 * NS_PER_SECOND

#: Characters of a pipeline's name that are kept; a name is a label, not a document.
PIPELINE_LENGTH = 200

OPERATION_DATA_TYPES = ("pipeline_operations", "completed_operations", "failed_operations")


class CleanupType(str, Enum):
    """Why a run was started. Of cleanups only `emergency` changes what may be done: it bypasses some guardrails.

    `restore` is the type that undo has in runs and audit; nobody can ask for a cleanup of that type.
    """

    AUTOMATIC = "automatic"
    MANUAL = "manual"
    EMERGENCY = "emergency"
    RESTORE = "restore"


class Reason(str, Enum):
    """The rule that decided about one item. Every verdict carries exactly one."""

    EXPIRED = "expired"
    NOT_EXPIRED = "not_expired"
    HELD = "held"
    NO_POLICY = "no_policy"
    POLICY_DISABLED = "policy_disabled"
    POLICY_INVALID = "policy_invalid"
    STILL_ACTIVE = "still_active"
    RECENTLY_MODIFIED = "recently_modified"
    KEEP_LAST = "keep_last"
    PUT_BACK = "put_back"
    UNREADABLE_CONTENT = "unreadable_content"
    # What a scan met and will neither follow nor read:
    SYMLINK = "symlink"
    NOT_REGULAR = "not_regular"
    HARD_LINKED = "hard_linked"
    OTHER_MOUNT = "other_mount"
    OWN_DIRECTORY = "own_directory"
    TOO_DEEP = "too_deep"
    UNREADABLE = "unreadable"
    # What keeps one of Dagster's own runs:
    NOT_FINISHED = "not_finished"
    NOT_SELECTED = "not_selected"
    ODD_RUN_ID = "odd_run_id"
    KEPT_BY_TAG = "kept_by_tag"
    RUN_KEY = "run_key"
    BACKFILL_AT_WORK = "backfill_at_work"
    ASSET_STATE = "asset_state"
    JOB_PARTITION = "job_partition"
    RETRY_GROUP = "retry_group"


class AgeSource(str, Enum):
    """Where the moment came from that an item's age is measured from."""

    END_TIME = "end_time"
    START_TIME = "start_time"
    MTIME = "mtime"
    CTIME = "ctime"
    UPDATE_TIME = "update_timestamp"


class Policy(Struct, frozen=True):
    """How long one data type is kept. `keep_last` newest items of each pipeline stay even when expired."""

    data_type: str
    retention_days: int
    enabled: bool
    keep_last: int = 0
    description: str = ""


class PolicyProblem(Struct, frozen=True):
    """A policy row that cannot be obeyed. Its data type is kept whole, and the run fails saying why."""

    data_type: str
    message: str


class Hold(Struct, frozen=True):
    """A promise that something stays.

    `pattern` is a glob over absolute paths in text form; `until_ns` None is for ever.
    """

    id: int
    pattern: str
    reason: str
    data_type: str | None = None
    pipeline: str | None = None
    until_ns: int | None = None


class Identity(Struct, frozen=True, gc=False, array_like=True):
    """Which file, in which state. No ctime: the quarantine's rename changes it on ext4 (measured).

    Up to that rename the ctime is compared beside it (`changed_ns` of candidate and receipt).
    """

    dev: int
    ino: int
    size: int
    mtime_ns: int
    uid: int
    gid: int
    mode: int


class Candidate(Struct, frozen=True, gc=False, omit_defaults=True):
    """One thing a scan met. With an `obstacle` it is reported and never touched, whatever the policies say."""

    path: str
    identity: Identity
    data_type: str
    since_ns: int
    age_from: AgeSource = AgeSource.MTIME
    status: str | None = None
    pipeline: str | None = None
    active: bool = False
    changed_ns: int = 0
    obstacle: Reason | None = None
    note: str = ""


class Verdict(Struct, frozen=True, gc=False, omit_defaults=True):
    """What is to happen to one candidate and by which rule. A plan is a stream of these."""

    candidate: Candidate
    delete: bool
    reason: Reason
    age_ns: int
    retention_days: int | None = None
    detail: str = ""


class Frame(Struct, frozen=True, gc=False, array_like=True):
    """Where an archived file's bytes are: its frame's place and length in the archive, and where they begin in it."""

    offset: int
    length: int
    inner: int


class Receipt(Struct, frozen=True, gc=False, omit_defaults=True):
    """Proof of one backup: `backup` is its place below the backup directory, empty when the run skipped backups.

    `inode` is the copy's own: by it a run that withdraws its copies tells them from others'. With a `frame` the place
    is an archive, and the frame says where in it the bytes are. `changed_ns` is the file's ctime when it was copied.
    """

    number: int
    path: str
    identity: Identity
    data_type: str
    sha256: str
    backup: str
    open_check: str
    pipeline: str | None = None
    inode: int = 0
    frame: Frame | None = None
    changed_ns: int = 0
    weight: int = 0

    @property
    def size(self) -> int:
        """The bytes of the item where it was: those of the copy, unless it has a `weight` of its own."""
        return self.weight or self.identity.size


class State(str, Enum):
    """How the attempt on one item ended. Only `DELETED` removed anything."""

    DELETED = "deleted"
    DRIFTED = "drifted"
    BUSY = "busy"
    GONE = "gone"
    HELD = "held"
    NOT_OWNER = "not_owner"
    CONFLICT = "conflict"
    FAILED = "failed"
    POSTPONED = "postponed"


#: States in which the item stays for a good reason that needs nobody's attention: it is simply left for the next run.
SKIPPED_STATES = frozenset({State.DRIFTED, State.BUSY, State.GONE, State.HELD, State.NOT_OWNER, State.POSTPONED})


class Outcome(Struct, frozen=True, gc=False, omit_defaults=True):
    """What became of one item, and by which open-file check it was known to be unused."""

    number: int
    path: str
    data_type: str
    state: State
    size: int
    detail: str = ""
    open_check: str = ""


class RestoreState(str, Enum):
    """How the attempt to put one file back ended. `PRESENT` means that the very bytes are there already."""

    RESTORED = "restored"
    WOULD_RESTORE = "would_restore"
    PRESENT = "present"
    EXISTS = "exists"
    NO_BACKUP = "no_backup"
    MISSING = "missing"
    DAMAGED = "damaged"
    FAILED = "failed"

    @property
    def is_well(self) -> bool:
        """Whether the file is, or in a dry run would be, where it belongs."""
        return self in {RestoreState.RESTORED, RestoreState.WOULD_RESTORE, RestoreState.PRESENT}


class Restored(Struct, frozen=True, omit_defaults=True):
    """What became of one file that was to be put back."""

    path: str
    data_type: str
    state: RestoreState
    size: int
    detail: str = ""


class Stock(Struct, frozen=True):
    """What a scan found of one data type, kept or not, and the age of the oldest in nanoseconds."""

    files: int = 0
    bytes: int = 0
    oldest_ns: int = 0

    def plus(self, other: "Stock") -> "Stock":
        """Return both together."""
        return Stock(self.files + other.files, self.bytes + other.bytes, max(self.oldest_ns, other.oldest_ns))


class Tally(Struct, frozen=True, gc=False):
    """A number of files and their bytes."""

    files: int = 0
    bytes: int = 0

    def plus(self, files: int, size: int) -> "Tally":
        """Return the sum of this tally and `files` more files of `size` bytes together."""
        return Tally(self.files + files, self.bytes + size)
