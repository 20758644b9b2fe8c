"""Which policy governs an operation file, and from when its age counts: what `operation_*.json` says about itself.

Three writers share the name. The dashboard writes progress (`status: running`, epoch floats), later rewrites the
file in place as a result (`success`, `completed`, `status`, no time at all); others use `pipeline_name` and ISO times.
"""

from datetime import tzinfo
from typing import Any

import msgspec
from msgspec import Struct

from cleanup_dagster.retention.models import PIPELINE_LENGTH, AgeSource
from cleanup_dagster.retention.times import EARLIEST_NS, read_moment

COMPLETED_STATUSES = frozenset({"completed", "success", "succeeded", "done"})
FAILED_STATUSES = frozenset({"failed", "failure", "error", "cancelled", "canceled"})
#: Saying one of these is a claim to be alive; a claim counts while the file was modified within ACTIVE_WITHIN.
ACTIVE_STATUSES = frozenset({"running", "pending", "queued", "started", "starting", "in_progress"})

_END_TIME, _START_TIME = AgeSource.END_TIME, AgeSource.START_TIME  # looked up for every file, an enum's member costs
_SHOWN = 40  # characters of a foreign value that a note quotes


class OperationFile(Struct, frozen=True):
    """The fields of an operation file that decide; every other field is skipped without being built."""

    status: Any = None
    success: Any = None
    start_time: Any = None
    end_time: Any = None
    pipeline_name: Any = None


class Classification(Struct, frozen=True, gc=False):
    """What an operation file says: the data type that governs it, and from when its age counts."""

    data_type: str
    since_ns: int
    age_from: AgeSource
    status: str | None
    pipeline: str | None
    active: bool
    note: str


_decoder = msgspec.json.Decoder(OperationFile)


def read_operation(content: bytes) -> OperationFile:
    """Return the deciding fields of an operation file.

    Raises ValueError, with a sentence for people, when `content` is not one readable JSON object.
    """
    try:
        if not content.isascii():
            content.decode("utf-8")  # the decoder does not look at strings it skips
        return _decoder.decode(content)
    except UnicodeDecodeError:
        raise ValueError("the content is not UTF-8") from None
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    except msgspec.ValidationError as error:  # not an object, or a number too large for any of its fields
        raise ValueError(f"the JSON is not an operation ({error})") from None
    except (msgspec.DecodeError, ValueError) as error:
        if not content.strip():
            raise ValueError("the file is empty") from None
        raise ValueError(f"the content is not JSON ({error})") from None


def classify(content: OperationFile, mtime_ns: int, now_ns: int, naive_zone: tzinfo | None) -> Classification:
    """Return which policy governs an operation and from when its age counts."""
    status = _status(content)
    since_ns, age_from, note = _since(content, mtime_ns, now_ns, naive_zone)
    if status in COMPLETED_STATUSES:
        data_type = "completed_operations"
    elif status in FAILED_STATUSES:
        data_type = "failed_operations"
    else:
        data_type = "pipeline_operations"
    return Classification(
        data_type, since_ns, age_from, status, _pipeline(content), active=status in ACTIVE_STATUSES, note=note
    )


def _status(content: OperationFile) -> str | None:
    if isinstance(content.status, str) and (status := content.status.strip()):
        return status.casefold()[:PIPELINE_LENGTH]
    if content.success is True:
        return "success"
    if content.success is False:
        return "failed"
    return None


def _pipeline(content: OperationFile) -> str | None:
    name = content.pipeline_name
    return name[:PIPELINE_LENGTH] if isinstance(name, str) and name.strip() else None


def _since(content: OperationFile, mtime_ns: int, now_ns: int, naive_zone: tzinfo | None) -> tuple[int, AgeSource, str]:
    for source, value in ((_END_TIME, content.end_time), (_START_TIME, content.start_time)):
        if value is None:
            continue
        moment_ns = read_moment(value, naive_zone)
        if moment_ns is None:
            problem = "cannot be read"
        elif moment_ns < EARLIEST_NS:
            problem = "is before the year 2000"
        elif moment_ns > now_ns:
            problem = "is in the future"
        else:
            return moment_ns, source, ""
        note = f"{source.value} {_shown(value)} {problem}, so the modification time counts"
        return mtime_ns, AgeSource.MTIME, note
    return mtime_ns, AgeSource.MTIME, ""


def _shown(value: object) -> str:
    """Return a value as a note quotes it; a list or an object by its kind, since its text may be too deep to write."""
    return repr(str(value)[:_SHOWN]) if isinstance(value, (str, int, float)) else f"(a {type(value).__name__})"
