"""Why one file is kept or would go, and when: by the very code that plans a run, narrowed to that file."""

import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct
from wcmatch import glob

from cleanup_dagster.backups.manifest import read_manifest
from cleanup_dagster.collectors.files import compile_patterns, with_contents
from cleanup_dagster.database.engine import reading
from cleanup_dagster.database.holds import load_holds
from cleanup_dagster.database.policies import load_policies
from cleanup_dagster.database.run_targets import KeptBackups
from cleanup_dagster.filesystem.names import split, to_text
from cleanup_dagster.handles import Plan, Request, Run
from cleanup_dagster.installation import Installation, Progress
from cleanup_dagster.inventory import kept_backups
from cleanup_dagster.planning import plan_target, within_limits
from cleanup_dagster.retention.models import NS_PER_DAY, CleanupType, Policy, PolicyProblem, Reason, Receipt, Verdict
from cleanup_dagster.retention.rules import ACTIVE_WITHIN_NS, sentence
from cleanup_dagster.settings import Target


class OutsideError(ValueError):
    """A path that no target could ever take; the message says which targets there are."""


class Copy(Struct, frozen=True):
    """A backup of the file: the run that deleted it, where the copy lies, and until when. Paths are in text form."""

    run_id: str
    deleted_ns: int
    copy: str
    expires_ns: int


def copy_of(installation: Installation, kept: KeptBackups, receipt: Receipt) -> Copy:
    """Return the copy of what a receipt in `kept` names."""
    expires_ns = kept.run_started_ns + installation.settings.backup.retention_days * NS_PER_DAY
    return Copy(kept.run_id, kept.finished_ns, f"{to_text(kept.directory)}/{receipt.backup}", expires_ns)


class Explanation(Struct, frozen=True):
    """What governs one file. Without a `verdict` nothing does, and `reason` says why.

    `due_ns` is the moment from which a live run would take it, when that depends on time alone.
    """

    path: str
    exists: bool
    reason: str
    target: str | None = None
    verdict: Verdict | None = None
    policy: Policy | PolicyProblem | None = None
    due_ns: int | None = None
    copies: tuple[Copy, ...] = ()


def explain(installation: Installation, path: str, progress: Progress) -> Explanation:
    """Say what governs the file at an absolute path in the system's form. Writes nothing that stays.

    Raises OutsideError for a path in no target's root and for a directory, else as `plan_target` does.
    """
    place = Path(os.path.realpath(os.path.dirname(path)), os.path.basename(path))  # noqa: PTH119, PTH120  keeps a link as it is
    if any(place == target.root for target in installation.settings.targets):
        raise OutsideError(f"{to_text(str(place))} is the root of a target; name a file in it")
    targets = _targets_around(installation, place)
    copies = tuple(sorted(_copies(installation, targets, place), key=lambda copy: -copy.deleted_ns))
    shown = to_text(str(place))
    try:
        status = place.lstat()
    except FileNotFoundError:
        gone = "there is no such file"
        return Explanation(shown, exists=False, reason=gone, target=targets[0].name, copies=copies)
    if stat.S_ISDIR(status.st_mode):
        raise OutsideError(f"{shown} is a directory; name a file in it")
    for target in targets:
        if _wants(target, place):
            return _judged(installation, target, place, copies, progress)
    reasons = "; ".join(_not_wanted(target, place) for target in targets)
    return Explanation(shown, exists=True, reason=reasons, copies=copies)


def _targets_around(installation: Installation, place: Path) -> list[Target]:
    targets = installation.settings.targets
    around = [target for target in targets if place != target.root and place.is_relative_to(target.root)]
    if not around:
        known = ", ".join(f"{target.name} ({target.root})" for target in targets) or "none"
        raise OutsideError(f"{to_text(str(place))} lies in no target, so nothing ever touches it; targets: {known}")
    return around


def _relative(target: Target, place: Path) -> str:
    return str(place.relative_to(target.root))


def _wants(target: Target, place: Path) -> bool:
    path = _relative(target, place)
    if "/" in path and not target.recursive:
        return False
    if target.excludes and compile_patterns(with_contents(target.excludes)).fullmatch(path):
        return False
    return compile_patterns(target.patterns).fullmatch(path) is not None


def _not_wanted(target: Target, place: Path) -> str:
    path = _relative(target, place)
    if "/" in path and not target.recursive:
        return f"target {target.name} does not look below its root"
    if compile_patterns(target.patterns).fullmatch(path) is None:
        return f"the patterns of target {target.name} do not name it ({', '.join(target.patterns)})"
    return f"target {target.name} excludes it ({', '.join(target.excludes)})"


def _judged(
    installation: Installation, target: Target, place: Path, copies: tuple[Copy, ...], progress: Progress
) -> Explanation:
    run_id = f"explain-{uuid.uuid4()}"
    with reading(installation.database) as conn:
        policies = load_policies(conn)
    request = Request(run_id, CleanupType.MANUAL, dry_run=True, executed_by="")
    run = Run(request, installation.clock(), policies, (target.name,))
    # The newest N of a pipeline are only known once all of them were seen.
    newest_matter = any(isinstance(policy, Policy) and policy.keep_last for policy in policies.values())
    looked_at = target if newest_matter else _narrowed(target, place)
    try:
        plan = plan_target(installation, run, looked_at, progress)
        verdict = _verdict_on(plan, to_text(_relative(target, place)))
    finally:
        installation.state.remove(installation.state.plan(run_id, target.name).parent)
    shown = to_text(str(place))
    if verdict is None:
        gone = "it went while it was looked at"
        return Explanation(shown, exists=False, reason=gone, target=target.name, copies=copies)
    policy = within_limits(policies, target).get(verdict.candidate.data_type)
    due_ns = _due_ns(installation, verdict, target, run.now_ns, copies)
    return Explanation(shown, True, sentence(verdict), target.name, verdict, policy, due_ns, copies)


def _narrowed(target: Target, place: Path) -> Target:
    return target.model_copy(update={"patterns": (glob.escape(_relative(target, place), unix=True),)})


def _verdict_on(plan: Plan, path: str) -> Verdict | None:
    """Return the verdict on `path` (text form), or on the directory above it that was not entered."""
    if plan.manifest is None:
        return None
    above = {path}
    while path := split(path)[0]:
        above.add(path)
    found = (v for v in read_manifest(Path(plan.manifest.path), Verdict) if v.candidate.path in above)
    return next(found, None)


def _due_ns(
    installation: Installation, verdict: Verdict, target: Target, now_ns: int, copies: tuple[Copy, ...]
) -> int | None:
    candidate, days = verdict.candidate, verdict.retention_days
    expires_ns = candidate.since_ns + (days or 0) * NS_PER_DAY
    modified_ns = candidate.identity.mtime_ns
    if verdict.delete:
        return now_ns
    if verdict.reason is Reason.NOT_EXPIRED:
        return max(expires_ns, modified_ns + target.min_age_ns)
    if verdict.reason is Reason.STILL_ACTIVE:
        return max(expires_ns, modified_ns + ACTIVE_WITHIN_NS)
    if verdict.reason is Reason.RECENTLY_MODIFIED:
        return modified_ns + target.min_age_ns
    if verdict.reason is Reason.PUT_BACK:
        return max((copy.expires_ns for copy in copies), default=None)
    if verdict.reason is Reason.HELD:
        return _hold_ends_ns(installation, verdict)
    return None


def _hold_ends_ns(installation: Installation, verdict: Verdict) -> int | None:
    with reading(installation.database) as conn:
        holds = {f"hold {hold.id}: {hold.reason}": hold for hold in load_holds(conn)}
    hold = holds.get(verdict.detail)
    return None if hold is None else hold.until_ns


def _copies(installation: Installation, targets: list[Target], place: Path) -> Iterator[Copy]:
    """Yield the backups of the file that are not pruned, from the receipts: one pass over each of its targets'."""
    paths = {(target.name, str(target.root)): to_text(_relative(target, place)) for target in targets}
    for kept in kept_backups(installation):
        path = paths.get((kept.target, kept.root))
        if path is not None:
            yield from (
                copy_of(installation, kept, receipt)
                for receipt in read_manifest(Path(kept.manifest), Receipt)
                if receipt.path == path and receipt.backup
            )
