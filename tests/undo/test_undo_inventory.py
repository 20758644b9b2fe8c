"""What backups there are, until when, and that every byte of them is read again."""

import random
from pathlib import Path

import pytest
from service_helpers import Platform, files
from undo_helpers import clean, copies, flip, undo

from cleanup_dagster.backups.manifest import read_header, write_manifest
from cleanup_dagster.inventory import Damage, Verification
from cleanup_dagster.retention.models import NS_PER_DAY, RestoreState, Tally


def verify(platform: Platform, of_run: str | None = None) -> Verification:
    with platform.service() as service:
        return service.verify_backups(of_run=of_run)


def test_each_target_of_each_run_is_listed_with_its_sums_and_its_expiry(each_format: Platform) -> None:
    each_format.config["backup"]["retention_days"] = 3
    each_format.log("a.log", 31, "four")
    each_format.log("b.log", 31, "seven..")
    each_format.operation("old", 91)
    first = clean(each_format)
    each_format.log("c.log", 31, "x")
    second = clean(each_format)
    with each_format.service() as service:
        listed = service.backups()
        assert [(b.run_id, b.target, b.files) for b in listed] == [
            (first, "logs", 2),
            (first, "operations", 1),
            (second, "logs", 1),
        ]
        assert (listed[0].bytes, listed[0].root, listed[0].directory) == (
            11,
            str(each_format.logs),
            str(each_format.backups),
        )
        assert all(b.expires_ns == b.made_ns + 3 * NS_PER_DAY for b in listed)
        assert [b.run_id for b in service.backups(second)] == [second]
        assert service.backups("none") == []


def test_what_is_listed_goes_when_it_has_expired_and_not_before(each_format: Platform) -> None:
    each_format.log("a.log", 31)
    run_id = clean(each_format)
    with each_format.service() as service:
        (listed,) = service.backups()
        each_format.clock.ahead_ns = listed.expires_ns - each_format.clock() - 60 * 10**9
        assert service.expired_backups() == []
    clean(each_format)
    assert len(copies(each_format)) == 1
    each_format.clock.advance(seconds=61)
    with each_format.service() as service:
        assert [b.run_id for b in service.expired_backups()] == [run_id]
    clean(each_format)
    assert copies(each_format) == []
    assert not list(each_format.backups.rglob("*.receipts.*"))
    with each_format.service() as service:
        assert service.backups() == []


def test_runs_of_both_formats_share_a_backup_directory(platform: Platform) -> None:
    """The format was changed between two runs, and back; each is listed, verified, restored and pruned by itself."""
    runs: dict[str, str] = {}
    for day, kind in enumerate(("files", "archive", "files", "archive")):
        platform.target("logs")["format"] = kind
        platform.log("the same.log", 31, f"of day {day}")
        platform.log(f"d/{day}.log", 31)
        runs[clean(platform)] = f"of day {day}"
        platform.clock.advance(days=1)
    with platform.service() as service:
        assert {backups.run_id: backups.files for backups in service.backups()} == dict.fromkeys(runs, 2)
    assert verify(platform).sound.files == 8
    for day, (run_id, content) in enumerate(runs.items()):
        assert undo(platform, run_id).problems == ()
        assert (platform.logs / "the same.log").read_text() == content
        (platform.logs / "the same.log").unlink()
        (platform.logs / f"d/{day}.log").unlink()
    for left in (3, 2, 1, 0):
        platform.clock.advance(days=1 if left < 3 else 3.5)
        assert platform.run().pruned.copies.files == 2
        found = verify(platform)
        assert (found.sound.files, found.damaged) == (2 * left, ())
    assert copies(platform) == []


def test_sound_backups_verify(each_format: Platform) -> None:
    each_format.log("a.log", 31, "four")
    each_format.operation("old", 91)
    clean(each_format)
    found = verify(each_format)
    assert found.damaged == ()
    assert found.sound.files == 2


def test_any_byte_of_any_copy_that_is_flipped_is_found_and_named(platform: Platform) -> None:
    for number in range(2):
        platform.log(f"d/{number}.log", 31, f"content of {number}" * (number + 1))
    run_id = clean(platform)
    for copy in copies(platform):
        for position in range(copy.stat().st_size):
            flip(copy, position)
            place = f"d/{copy.name}"
            assert verify(platform).damaged == (
                Damage(run_id, place.removesuffix(".backup"), place, "its bytes are not what was written"),
            )
            flip(copy, position)
    assert verify(platform).damaged == ()


def test_bytes_at_the_end_of_a_large_copy_are_read_too(platform: Platform) -> None:
    platform.log("large.log", 31, "x" * (5 << 20))
    clean(platform)
    (copy,) = copies(platform)
    for position in (0, (1 << 20) - 1, 1 << 20, (5 << 20) - 1):
        flip(copy, position)
        assert len(verify(platform).damaged) == 1, position
        flip(copy, position)
    with copy.open("ab") as file:
        file.write(b"!")
    assert len(verify(platform).damaged) == 1


def test_a_flipped_byte_of_an_archive_is_found_or_harms_no_file(platform: Platform) -> None:
    platform.target("logs")["format"] = "archive"
    chance = random.Random(5)  # noqa: S311 - not for secrets
    before = {f"{n}.log": "".join(chance.choices("abcdefgh ", k=400)) for n in range(12)}
    for name, content in before.items():
        platform.log(name, 31, content)
    run_id = clean(platform)
    (archive,) = copies(platform)
    for position in range(0, archive.stat().st_size, 197):
        flip(archive, position)
        damaged = verify(platform).damaged
        report = undo(platform, run_id, dry=True)
        assert len(damaged) == report.states.get(RestoreState.DAMAGED, Tally()).files, position
        flip(archive, position)
    assert verify(platform).damaged == ()


def test_an_archive_that_is_cut_off_or_gone_names_each_of_its_files(platform: Platform) -> None:
    platform.target("logs")["format"] = "archive"
    for name in ("a.log", "b.log"):
        platform.log(name, 31, name * 100)
    clean(platform)
    (archive,) = copies(platform)
    whole = archive.read_bytes()
    archive.write_bytes(whole[:40])
    assert {damage.path for damage in verify(platform).damaged} == {"a.log", "b.log"}
    archive.unlink()
    assert {damage.path for damage in verify(platform).damaged} == {"a.log", "b.log"}


def test_missing_emptied_and_swapped_copies_are_each_named(platform: Platform) -> None:
    for name in ("a.log", "b.log", "c.log", "d.log", "e.log", "sound.log"):
        platform.log(name, 31)
    clean(platform)
    (platform.backups / "a.log.backup").unlink()
    (platform.backups / "b.log.backup").write_bytes(b"")
    (platform.backups / "c.log.backup").unlink()
    (platform.backups / "c.log.backup").symlink_to(platform.backups / "sound.log.backup")
    (platform.backups / "d.log.backup").unlink()
    (platform.backups / "d.log.backup").mkdir()
    (platform.backups / "e.log.backup").write_bytes((platform.backups / "sound.log.backup").read_bytes())
    found = verify(platform)
    assert {damage.path for damage in found.damaged} == {"a.log", "b.log", "c.log", "d.log", "e.log"}
    assert found.sound.files == 1
    assert "No such file" in next(damage.problem for damage in found.damaged if damage.path == "a.log")


def test_a_manifest_that_was_changed_or_lost_is_named_and_the_other_runs_are_still_read(platform: Platform) -> None:
    platform.log("a.log", 31)
    first = clean(platform)
    platform.log("b.log", 31)
    second = clean(platform)
    platform.log("c.log", 31)
    clean(platform)
    changed = platform.state / "manifests" / first / "logs.receipts.jsonl.zst"
    header = read_header(changed)
    changed.unlink()
    with write_manifest(changed, header) as forged:  # whole, and silent about what was backed up
        forged.close()
    for lost in (platform.state / "manifests" / second).glob("*"):
        lost.unlink()
    for lost in platform.backups.rglob(f"{second}*"):
        lost.unlink()
    found = verify(platform)
    assert found.sound.files == 1
    assert [(damage.run_id, damage.path) for damage in found.damaged] == [
        (first, str(platform.logs)),
        (second, str(platform.logs)),
    ]
    assert "none of the 1 backups of target logs can be vouched for" in found.damaged[0].problem
    assert "cannot be read: No such file" in found.damaged[1].problem


def test_a_manifest_that_is_lost_is_read_from_its_replica(each_format: Platform) -> None:
    each_format.log("a.log", 31)
    run_id = clean(each_format)
    (each_format.state / "manifests" / run_id / "logs.receipts.jsonl.zst").unlink()
    assert verify(each_format).sound.files == 1
    assert undo(each_format, run_id).problems == ()
    assert files(each_format.logs) == {"a.log"}


@pytest.mark.parametrize("there", [True, False])
def test_a_backup_directory_that_is_not_mounted_is_damage_and_is_not_made(platform: Platform, *, there: bool) -> None:
    platform.log("a.log", 31)
    clean(platform)
    platform.backups.rename(platform.home / "elsewhere")
    if there:
        platform.backups.mkdir(mode=0o777)
        platform.backups.chmod(0o777)
    (damage,) = verify(platform).damaged
    assert ("open to others" if there else "is not there") in damage.problem
    assert platform.backups.exists() == there


def test_one_run_can_be_verified_alone(platform: Platform) -> None:
    platform.log("a.log", 31)
    first = clean(platform)
    platform.log("b.log", 31)
    second = clean(platform)
    for copy in copies(platform):
        flip(copy, 0)
    assert [damage.path for damage in verify(platform, first).damaged] == ["a.log"]
    assert [damage.path for damage in verify(platform, second).damaged] == ["b.log"]
    assert [damage.path for damage in verify(platform).damaged] == ["a.log", "b.log"]


def test_backups_of_another_host_are_neither_listed_nor_read(platform: Platform) -> None:
    platform.log("a.log", 31)
    clean(platform)
    platform.sql("UPDATE cleanup_runs SET state_id = 'theirs', host = 'elsewhere'")
    with platform.service() as service:
        assert service.backups() == []
    assert verify(platform) == Verification(Tally(), ())


def test_each_file_of_a_run_is_listed_with_its_copy(platform: Platform) -> None:
    path = platform.log("d/a.log", 31, "four")
    run_id = clean(platform)
    with platform.service() as service:
        (listed,) = service.backed_up_files(run_id)
    assert (listed.path, listed.bytes, listed.data_type) == (str(path), 4, "system_logs")
    assert Path(listed.copy).read_text() == "four"
