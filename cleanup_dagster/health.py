"""Whether an installation could do its work now: each part looked at by itself, with what to do about a failure.

Nothing that a run would judge or delete is touched. The round trip takes place in a temporary directory of its own,
with a database, a target and backups of its own, through the same service that the job uses.
"""

import contextlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from enum import Enum
from pathlib import Path

from msgspec import Struct

from cleanup_dagster.bootstrap import open_database, open_service
from cleanup_dagster.config_writers import others
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.errors import DatabaseUnavailable, SchemaMismatch
from cleanup_dagster.database.policies import list_policies
from cleanup_dagster.database.runs import unfinished_live_runs
from cleanup_dagster.filesystem.private import UnsafeDirectoryError, private_directory
from cleanup_dagster.filesystem.space import free_bytes, is_volatile
from cleanup_dagster.filesystem.tree import RootError, RootMissingError, open_root
from cleanup_dagster.handles import Request, RestoreRequest, Run
from cleanup_dagster.installation import Installation
from cleanup_dagster.planning import wrong_clock
from cleanup_dagster.retention.guardrails import format_bytes
from cleanup_dagster.retention.models import CleanupType, RestoreState
from cleanup_dagster.service import CleanupService
from cleanup_dagster.settings import Settings, Target, load_settings
from cleanup_dagster.state import open_state

_DAY = 86_400


class Health(str, Enum):
    """How one part is. A warning stops no run."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    NOT_CHECKED = "not checked"


class Finding(Struct, frozen=True):
    """What was found about one part, and what to do about it unless it is well.

    `unusable` says that nothing can run at all: database, state directory or configuration.
    """

    part: str
    health: Health
    said: str
    advice: str = ""
    unusable: bool = False


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at every part of an installation but Dagster's, and yield what is found, one part after the other."""
    with ExitStack() as stack:
        installation = yield from _opened(stack, settings)
        if installation is not None:
            yield from _with_database(installation)
    for target in settings.targets:
        yield _target(settings, target)
    if settings.dagster_runs is not None:
        yield Finding(f"target {settings.dagster_runs.name}", Health.OK, "the runs of Dagster's instance")
    if not settings.all_targets:
        yield Finding("targets", Health.WARNING, "none is configured", "add targets to cleanup.yaml")
    for directory in settings.backup_directories:
        yield _backup_directory(directory)
    yield from _space(settings)
    yield round_trip()


def configuration(settings: Settings) -> Finding:
    """Say where the settings come from, and who else can change them there."""
    file = settings.config_file
    if file is None:
        return Finding("config", Health.OK, "the defaults and the environment")
    try:
        found = others(file)
    except OSError as error:
        return Finding("config", Health.FAILED, f"{file}: {error.strerror}", "put it back, or name another")
    if not found:
        return Finding("config", Health.OK, str(file))
    said = f"{file} names what is deleted, and others can change it: {'; '.join(one.said for one in found)}"
    advice = "; ".join(one.advice for one in found)
    if any(one.anybody for one in found):
        return Finding("config", Health.FAILED, said, f"{advice}; until then every live run is refused")
    return Finding("config", Health.WARNING, said, f"{advice}; or leave it, if they may decide what is deleted here")


def _opened(stack: ExitStack, settings: Settings) -> Generator[Finding, None, Installation | None]:
    try:
        state = stack.enter_context(open_state(settings.state_dir))
    except (UnsafeDirectoryError, OSError) as error:
        yield Finding("state", Health.FAILED, str(error), "correct state_dir or its permissions", unusable=True)
        return None
    if not os.access(state.path, os.W_OK | os.X_OK):
        said = f"{state.path} cannot be written"
        yield Finding("state", Health.FAILED, said, "chmod 700, or mount it writable", unusable=True)
        return None
    yield Finding("state", Health.OK, f"{state.path} is ours alone")
    try:
        engine = open_database(settings, state)
    except DatabaseUnavailable as error:
        yield Finding("database", Health.FAILED, str(error), "nothing can run before it answers", unusable=True)
        return None
    except SchemaMismatch as error:
        yield Finding("database", Health.OK, "it answers")
        yield Finding("tables", Health.FAILED, str(error), "nothing can run before they are right", unusable=True)
        return None
    stack.callback(engine.dispose)
    yield Finding("database", Health.OK, "it answers")
    yield Finding("tables", Health.OK, "all there, in the version of this package")
    return Installation(settings, engine, state)


def _with_database(installation: Installation) -> Iterator[Finding]:
    for look in (_belonging, _policies, _clock, _interrupted):
        try:
            yield look(installation)
        except (DatabaseUnavailable, SchemaMismatch) as error:
            yield Finding("database", Health.FAILED, str(error), "nothing can run before it answers", unusable=True)
            return


def _belonging(installation: Installation) -> Finding:
    stranger = installation.stranger()
    if stranger:
        return Finding("installation", Health.FAILED, stranger, "live runs are refused until then", unusable=True)
    return Finding("installation", Health.OK, "state directory and database belong together")


def _policies(installation: Installation) -> Finding:
    with reading(installation.database) as conn:
        rows = list_policies(conn)
    wrong = [f"{row.data_type}: {row.problem}" for row in rows if row.problem]
    if wrong:
        advice = "correct it with `cleanup-operations policies set`, or `policies reset`"
        return Finding("policies", Health.FAILED, "; ".join(wrong), advice)
    known = {row.data_type for row in rows}
    types = {name for target in installation.settings.all_targets for name in target.data_types}
    lacking = sorted(types - known)
    if lacking:
        said = f"no policy governs {', '.join(lacking)}, so all of it is kept"
        return Finding("policies", Health.WARNING, said, "`cleanup-operations policies reset` brings back the defaults")
    enabled = sum(1 for row in rows if row.enabled)
    if not enabled:
        advice = "enable one with `cleanup-operations policies enable`"
        return Finding("policies", Health.WARNING, f"all {len(rows)} are disabled, so nothing is deleted", advice)
    return Finding("policies", Health.OK, f"{enabled} of {len(rows)} are enabled")


def _clock(installation: Installation) -> Finding:
    run = Run(Request("", CleanupType.MANUAL, dry_run=True, executed_by=""), installation.clock(), {}, ())
    doubts = [doubt.message for doubt in wrong_clock(installation, run)]
    if doubts:
        return Finding("clock", Health.FAILED, "; ".join(doubts), "live runs are refused until then")
    others = "the database's clock and the last run" if installation.settings.database_url else "the last run"
    return Finding("clock", Health.OK, f"nothing is said against it by {others}")


def _interrupted(installation: Installation) -> Finding:
    with reading(installation.database) as conn:
        unfinished = unfinished_live_runs(conn)
    if not unfinished:
        return Finding("runs", Health.OK, "none was interrupted, none is at work")
    with installation.state.lock() as lock:
        at_work = lock is None
    run = unfinished[-1]
    where = f"run {run.run_id[:8]} of process {run.pid} on {run.host}"
    if at_work:
        return Finding("runs", Health.OK, f"{where} is at work")
    return Finding("runs", Health.WARNING, f"{where} did not end", "the next live run there settles it")


def _target(settings: Settings, target: Target) -> Finding:
    part = f"target {target.name}"
    forbidden = settings.root_problem(target)
    if forbidden:
        return Finding(part, Health.FAILED, f"{target.root} {forbidden}", "correct its root in cleanup.yaml")
    try:
        with open_root(target.root) as root:
            writable = os.access(".", os.W_OK | os.X_OK, dir_fd=root, effective_ids=True)
    except RootMissingError as error:
        if target.optional:
            return Finding(part, Health.OK, f"{error}, and it is optional")
        return Finding(part, Health.FAILED, str(error), "create it, or correct its root in cleanup.yaml")
    except (RootError, OSError) as error:
        return Finding(part, Health.FAILED, str(error), "correct its root or its permissions")
    if not writable:
        said = f"{target.root} can be read, but nothing in it removed"
        return Finding(part, Health.FAILED, said, "run as a user who may write there")
    return Finding(part, Health.OK, str(target.root))


def _backup_directory(directory: Path) -> Finding:
    try:
        if not os.path.lexists(directory):
            return _still_to_be_made(directory)
        with private_directory(directory, "backup directory") as fd:
            writable = os.access(".", os.W_OK | os.X_OK, dir_fd=fd)
    except UnsafeDirectoryError as error:
        return Finding("backups", Health.FAILED, str(error), "until then every live run is refused")
    except OSError as error:
        return Finding("backups", Health.FAILED, f"{directory}: {error.strerror}", "make it reachable for this user")
    if not writable:
        return Finding("backups", Health.FAILED, f"{directory} cannot be written", "chmod 700, or mount it writable")
    return Finding("backups", Health.OK, f"{directory} is ours alone")


def _still_to_be_made(directory: Path) -> Finding:
    existing = next(parent for parent in directory.parents if parent.exists())
    if os.access(existing, os.W_OK | os.X_OK):
        return Finding("backups", Health.OK, f"{directory} will be made by the first live run")
    advice = f"make {existing} writable for this user"
    return Finding("backups", Health.FAILED, f"{directory} cannot be made", advice)


def _space(settings: Settings) -> Iterator[Finding]:
    directory = settings.backup.directory
    try:
        free = free_bytes(directory)
        volatile = is_volatile(directory)
        sources = [target for target in settings.targets if target.root.exists() and not is_volatile(target.root)]
    except OSError as error:
        yield Finding("free space", Health.FAILED, f"{directory}: {error.strerror}", "make it reachable")
        return
    reserve = max((target.limits.free_space_reserve for target in settings.all_targets), default=0)
    said = f"{format_bytes(free)} free where the backups go"
    if free <= reserve:
        advice = "free space there, or point backup.directory at another disk"
        yield Finding("free space", Health.FAILED, f"{said}, the reserve is {format_bytes(reserve)}", advice)
    else:
        yield Finding("free space", Health.OK, f"{said}, and {format_bytes(reserve)} in reserve")
    if volatile and any(not target.limits.allow_volatile_backup for target in sources):
        said = f"{directory} lies in memory (tmpfs), and the files do not"
        yield Finding("volatile", Health.FAILED, said, "point backup.directory at a disk; live runs are refused")


def round_trip() -> Finding:
    """Scan, classify, back up, delete and restore a scratch file in a temporary directory of its own."""
    step = "making a scratch directory"
    try:
        scratch = Path(tempfile.mkdtemp(prefix="cleanup-check-")).resolve()
    except OSError as error:
        return _broken(step, str(error))
    try:
        file = _scratch_file(scratch)
        before = file.read_bytes()
        step = "opening a scratch database"
        with open_service(_scratch_settings(scratch)) as service:
            for step, problem in _steps(service, file, before):
                if problem:
                    return _broken(step, problem)
    except Exception as error:  # noqa: BLE001  whatever it is, it is what this check is there to find
        return _broken(step, str(error) or type(error).__name__)
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(scratch)
    return Finding("round trip", Health.OK, "a scratch file was found, judged, backed up, deleted and restored")


def _broken(step: str, problem: str) -> Finding:
    advice = f"free space in {tempfile.gettempdir()} or set TMPDIR; if that is not it, report it as a bug"
    return Finding("round trip", Health.FAILED, f"{step} failed: {problem}", advice)


def _scratch_file(scratch: Path) -> Path:
    root = scratch / "files"
    root.mkdir(mode=0o700)
    file = root / "operation_check.json"
    file.write_text(json.dumps({"status": "completed", "pipeline_name": "check"}), encoding="utf-8")
    then = time.time() - 200 * _DAY
    os.utime(file, (then, then))
    return file


def _scratch_settings(scratch: Path) -> Settings:
    config = scratch / "cleanup.yaml"
    content = {  # JSON is YAML
        "state_dir": str(scratch / "state"),
        "backup": {"directory": str(scratch / "backups")},
        "limits": {"free_space_reserve": 0, "allow_volatile_backup": True},
        "targets": [{"name": "check", "kind": "operations", "root": str(scratch / "files")}],
    }
    config.write_text(json.dumps(content), encoding="utf-8")
    return load_settings({}, config)


def _steps(service: CleanupService, file: Path, before: bytes) -> Iterator[tuple[str, str]]:
    """Go through a run and its undo; yield each step's name before it, and after it with what went wrong."""
    yield "beginning a run", ""
    run = service.begin(Request(str(uuid.uuid4()), CleanupType.MANUAL, dry_run=False, executed_by="check"))
    yield "scanning", ""
    plan = service.scan(run, "check")
    yield "scanning", plan.problem
    kinds = ", ".join(plan.expired) or "nothing"
    yield "classifying", "" if kinds == "completed_operations" else f"completed_operations was expected, not {kinds}"
    yield "checking the guardrails", ""
    checked = service.check(run, [plan])
    yield "checking the guardrails", "; ".join(refusal.message for refusal in checked.refusals)
    yield "backing up", ""
    backed_up = service.back_up(plan)
    yield "backing up", backed_up.problem
    yield "deleting", ""
    deleted = service.delete(backed_up)
    yield "deleting", deleted.problem or ("the file is still there" if file.exists() else "")
    yield "writing the audit", ""
    report = service.audit(checked, [deleted])
    yield "writing the audit", "; ".join(report.problems)
    yield "restoring", ""
    asked = RestoreRequest(str(uuid.uuid4()), run.request.run_id, "check", dry_run=False)
    restored = service.restore(asked)
    yield "restoring", "; ".join(restored.problems)
    same = restored.states.keys() == {RestoreState.RESTORED} and file.read_bytes() == before
    yield "restoring", "" if same else "the file is not what it was"
