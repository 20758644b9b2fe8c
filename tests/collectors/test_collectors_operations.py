"""Operation files as the platform writes them, and as it should not."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from collector_helpers import NOW, scan_operations, write

from cleanup_dagster.filesystem.identity import difference
from cleanup_dagster.retention.models import NS_PER_DAY, NS_PER_SECOND, AgeSource, Reason

OLD = NOW - 40 * NS_PER_DAY
STARTED = (NOW - 50 * NS_PER_DAY) / NS_PER_SECOND

DASHBOARD_PROGRESS = {
    "operation_id": "op1",
    "status": "running",
    "message": "Loading",
    "progress": 40,
    "completed": False,
    "start_time": STARTED,
}
DASHBOARD_RESULT = {
    "success": True,
    "reply": "Done",
    "ui_blocks": [{"type": "table", "rows": [[1, 2.5, None, "Größe"]]}],
    "operation_id": "op1",
    "completed": True,
    "status": "completed",
}
DASHBOARD_FAILURE = {**DASHBOARD_RESULT, "success": False, "status": "failed"}
DASHBOARD_ERROR = {"operation_id": "op1", "status": "error", "completed": True, "success": False, "message": "boom"}
OTHER_WRITER = {
    "operation_id": "op1",
    "pipeline_name": "sales",
    "status": "SUCCESS",
    "start_time": "2025-11-12T11:00:00",
    "end_time": "2025-11-12T12:00:00+00:00",
    "progress": 100,
    "message": "ok",
}


@pytest.mark.parametrize(
    ("content", "data_type", "since_ns", "source", "active"),
    [
        (DASHBOARD_PROGRESS, "pipeline_operations", NOW - 50 * NS_PER_DAY, AgeSource.START_TIME, True),
        (DASHBOARD_RESULT, "completed_operations", OLD, AgeSource.MTIME, False),
        (DASHBOARD_FAILURE, "failed_operations", OLD, AgeSource.MTIME, False),
        (DASHBOARD_ERROR, "failed_operations", OLD, AgeSource.MTIME, False),
        (OTHER_WRITER, "completed_operations", NOW - 50 * NS_PER_DAY, AgeSource.END_TIME, False),
        ({}, "pipeline_operations", OLD, AgeSource.MTIME, False),
    ],
    ids=["progress", "result", "failure", "error", "other writer", "says nothing"],
)
def test_every_shape_is_understood(
    tmp_path: Path, content: dict[str, Any], data_type: str, since_ns: int, source: AgeSource, active: bool
) -> None:
    write(tmp_path / "operation_1.json", json.dumps(content), OLD)
    found = scan_operations(tmp_path)["operation_1.json"]
    assert (found.data_type, found.since_ns, found.age_from, found.active) == (data_type, since_ns, source, active)
    assert found.obstacle is None
    assert found.pipeline == content.get("pipeline_name")


def test_only_operation_files_in_the_root_itself(tmp_path: Path) -> None:
    for path in (
        "operation_1.json",
        "operation_.json",
        "operation_1.json.bak",
        "my_operation_1.json",
        "d/operation_2.json",
    ):
        write(tmp_path / path, "{}")
    assert sorted(scan_operations(tmp_path)) == ["operation_.json", "operation_1.json"]


BAD = {
    "empty": (b"", "the file is empty"),
    "blank": (b" \n\t", "the file is empty"),
    "truncated": (json.dumps(DASHBOARD_RESULT).encode()[:-9], "the content is not JSON (Input data was truncated)"),
    "two objects": (b'{"status": "completed"}{}', "the content is not JSON"),
    "nested": (b'{"a":' + b"[" * 200_000, "the JSON is nested too deeply"),
    "a list": (b'[{"status": "completed"}]', "the JSON is not an operation"),
    "a text": (b'"completed"', "the JSON is not an operation"),
    "null": (b"null", "the JSON is not an operation"),
    "not UTF-8": (b'{"status": "completed", "message": "caf\xe9"}', "the content is not UTF-8"),
    "UTF-16": (json.dumps(DASHBOARD_RESULT).encode("utf-16"), "the content is not UTF-8"),
    "NaN": (b'{"status": NaN}', "the content is not JSON"),
    "not JSON": (b"status: completed", "the content is not JSON"),
    "zeros": (b"\0" * 100, "the content is not JSON"),
}
bad = pytest.mark.parametrize(("content", "problem"), BAD.values(), ids=BAD)


@bad
def test_what_cannot_be_read_is_kept_and_says_why(tmp_path: Path, content: bytes, problem: str) -> None:
    write(tmp_path / "operation_1.json", content, OLD)
    found = scan_operations(tmp_path)["operation_1.json"]
    assert found.obstacle is Reason.UNREADABLE_CONTENT
    assert found.note.startswith(problem)
    assert found.data_type == "pipeline_operations"


@bad
def test_what_cannot_be_read_goes_by_its_mtime_when_the_target_says_so(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    write(tmp_path / "operation_1.json", content, OLD)
    found = scan_operations(tmp_path, delete_unreadable=True)["operation_1.json"]
    assert (found.obstacle, found.since_ns, found.age_from) == (None, OLD, AgeSource.MTIME)
    assert found.data_type == "pipeline_operations"
    assert found.note.startswith(problem)


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "operation_1.json", json.dumps(DASHBOARD_RESULT), OLD)
    write(tmp_path / "operation_2.json", b"{}", OLD)
    os.truncate(tmp_path / "operation_2.json", 1024**4)
    sizes: list[int] = []
    read = os.read

    def record(fd: int, size: int) -> bytes:
        sizes.append(os.fstat(fd).st_size)
        return read(fd, size)

    monkeypatch.setattr(os, "read", record)
    found = scan_operations(tmp_path)
    assert found["operation_1.json"].obstacle is None
    assert found["operation_2.json"].obstacle is Reason.UNREADABLE_CONTENT
    assert found["operation_2.json"].note == "it holds 1,099,511,627,776 bytes, more than max_json_bytes = 1,048,576"
    assert sizes == [(tmp_path / "operation_1.json").stat().st_size]


@pytest.mark.needs_root
def test_a_file_that_another_is_mounted_over_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's bind-mounted file belongs to the mount, and what it hides is not ours to judge."""
    root = tmp_path / "root"
    root.mkdir()
    ordinary = write(root / "operation_1.json", json.dumps(DASHBOARD_RESULT), OLD)
    covered = write(root / "operation_2.json", b"{}", OLD)
    over = write(tmp_path / "secret", b'{"status": "completed"}', OLD)
    read: list[int] = []
    whole = os.read

    def record(fd: int, size: int) -> bytes:
        read.append(os.fstat(fd).st_ino)
        return whole(fd, size)

    subprocess.run(["mount", "--bind", str(over), str(covered)], check=True)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "read", record)
            found = scan_operations(root)
    finally:
        subprocess.run(["umount", "--lazy", str(covered)], check=True)
    assert found["operation_2.json"].obstacle is Reason.OTHER_MOUNT
    assert found["operation_1.json"].obstacle is None
    assert read == [ordinary.stat().st_ino]


def test_the_limit_itself_is_read(tmp_path: Path) -> None:
    content = json.dumps(DASHBOARD_RESULT)
    write(tmp_path / "operation_1.json", content)
    assert scan_operations(tmp_path, max_json_bytes=len(content))["operation_1.json"].obstacle is None
    assert scan_operations(tmp_path, max_json_bytes=len(content) - 1)["operation_1.json"].obstacle is not None


@pytest.mark.parametrize(
    "change",
    [b'{"status": "completed", "more": 1}', b'{"status": "completed"', b'{"status": "COMPLETED"}'],
    ids=["grown", "shrunk", "same size"],
)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_file_that_is_written_while_it_is_read_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: bytes, moment: str
) -> None:
    """It is seen at once, or judged in a state that it is not in any more, and then a run does not touch it."""
    file = write(tmp_path / "operation_1.json", b'{"status": "completed"}', OLD)
    read = os.read

    def and_write(fd: int, size: int) -> bytes:
        if moment == "before":
            file.write_bytes(change)
        content = read(fd, size)
        if moment == "after":
            file.write_bytes(change)
        return content

    monkeypatch.setattr(os, "read", and_write)
    found = scan_operations(tmp_path)["operation_1.json"]
    if found.obstacle is None:
        assert difference(found.identity, file.stat(), found.changed_ns) is not None
    else:
        assert (found.obstacle, found.note) == (Reason.UNREADABLE_CONTENT, "it was being written while it was read")


def test_a_read_that_ends_early_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "operation_1.json", b'{"status": "completed"} ', OLD)
    read = os.read
    monkeypatch.setattr(os, "read", lambda fd, size: read(fd, size)[:-1])  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    found = scan_operations(tmp_path)["operation_1.json"]
    assert (found.obstacle, found.note) == (Reason.UNREADABLE_CONTENT, "it was being written while it was read")


def test_a_symlink_swapped_in_between_look_and_read_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "operation_1.json", b"{}", OLD)
    secret = write(tmp_path / "secret", b'{"status": "completed"}', OLD)
    whole = os.open

    def swap_first(path: Any, *arguments: Any, **keywords: Any) -> int:
        if path == "operation_1.json":
            file.unlink()
            file.symlink_to(secret)
        return whole(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", swap_first)
    found = scan_operations(tmp_path)["operation_1.json"]
    assert (found.obstacle, found.note) == (Reason.SYMLINK, "")


def test_a_file_that_goes_before_it_is_read_is_not_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "operation_1.json", b"{}", OLD)
    whole = os.open

    def remove_first(path: Any, *arguments: Any, **keywords: Any) -> int:
        if path == "operation_1.json":
            (tmp_path / path).unlink()
        return whole(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", remove_first)
    assert scan_operations(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"operation_a\nb.json", r"operation_a\u000ab.json"),
        (b"operation_\x1b[2J.json", r"operation_\u001b[2J.json"),
        (b"operation_" + b"n" * 240 + b".json", "operation_" + "n" * 240 + ".json"),
        (b"operation_\xff\xfe.json", r"operation_\xff\xfe.json"),
    ],
    ids=["newline", "escape", "255 bytes", "not UTF-8"],
)
def test_hostile_names_are_read_all_the_same(tmp_path: Path, name: bytes, text: str) -> None:
    write(tmp_path / os.fsdecode(name), json.dumps(DASHBOARD_RESULT), OLD)
    found = scan_operations(tmp_path)
    assert {path: c.data_type for path, c in found.items()} == {text: "completed_operations"}


def test_hostile_values_are_only_values(tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "status": "completed\x1b[31m",
        "pipeline_name": "x" * 100_000,
        "end_time": "DROP TABLE",
        "start_time": [[]],
    }
    write(tmp_path / "operation_1.json", json.dumps(content), OLD)
    found = scan_operations(tmp_path)["operation_1.json"]
    assert (found.data_type, found.since_ns, len(found.pipeline or "")) == ("pipeline_operations", OLD, 200)
    assert found.note == "end_time 'DROP TABLE' cannot be read, so the modification time counts"


def test_what_is_no_regular_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "operation_fifo.json")
    (tmp_path / "operation_link.json").symlink_to("/etc/passwd")
    (tmp_path / "operation_directory.json").mkdir()
    assert {path: c.obstacle for path, c in scan_operations(tmp_path).items()} == {
        "operation_fifo.json": Reason.NOT_REGULAR,
        "operation_link.json": Reason.SYMLINK,
        "operation_directory.json": Reason.NOT_REGULAR,
    }
