"""The configuration file itself: whether it can be read, and what in it is no configuration."""

from collections.abc import Callable
from pathlib import Path

import pytest
from settings_helpers import Write

from cleanup_dagster.settings import ConfigError, Settings, load_settings


class TestTheFile:
    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ("", "is empty; write the settings that differ, or name no file to use the defaults"),
            ("# nothing\n", "is empty; write the settings that differ, or name no file to use the defaults"),
            ("- 1", "[1] is not a mapping of keys to values; begin with a key such as targets:"),
            ("text", "'text' is not a mapping of keys to values; begin with a key such as targets:"),
            (b"a: 1\nb: \xff", "line 2: is not UTF-8; save the file as UTF-8"),
            ("a: [", "line 1: is not YAML (expected the node content, but found '<stream end>')"),
            ("a: 1\n\tb: 2", "line 2: is not YAML (found character '\\t' that cannot start any token)"),
            ("executor: in_process\nexecutor: x", "line 2: the key 'executor' stands there twice; keep one of them"),
            ("backup:\n  a: 1\n  a: s3cret", "line 3: the key 'a' stands there twice; keep one of them"),
            ("a: 1\n---\nb: 2", "line 2: is not YAML (but found another document)"),
            ("a: 2026-13-45", "is not YAML; check it for control characters, dates and numbers that do not exist"),
            ("a: \x01", "is not YAML; check it for control characters, dates and numbers that do not exist"),
            ("a: " + "9" * 5000, "is not YAML; check it for control characters, dates and numbers that do not exist"),
            ("[" * 1500, "is nested far too deeply; a configuration needs four levels"),
            ("#" * (1024 * 1024 + 1), "is longer than 1 MiB; that is no configuration"),
        ],
    )
    def test_what_cannot_be_used(
        self, refused: Callable[..., tuple[str, ...]], tmp_path: Path, content: str | bytes, problem: str
    ) -> None:
        assert refused(content) == (f"{tmp_path / 'cleanup.yaml'}: {problem}",)

    def test_code_in_yaml_is_refused(self, refused: Callable[..., tuple[str, ...]]) -> None:
        (problem,) = refused("a: !!python/object/apply:os.system [true]")
        assert "is not YAML (could not determine a constructor for the tag" in problem

    def test_a_byte_order_mark_is_no_matter(self, load: Callable[..., Settings]) -> None:
        assert load(b"\xef\xbb\xbfexecutor: multiprocess").executor == "multiprocess"

    def test_a_named_file_must_exist(self, tmp_path: Path) -> None:
        path = tmp_path / "absent.yaml"
        for load in (lambda: load_settings({}, path), lambda: load_settings({"CLEANUP_CONFIG": str(path)})):
            with pytest.raises(ConfigError) as caught:
                load()
            assert caught.value.problems == (f"{path}: does not exist; create it, or name no file to use the defaults",)

    @pytest.mark.parametrize(
        ("path", "problem"),
        [
            ("/dev/null", "/dev/null: is not a regular file; name the YAML file itself"),
            ("/etc", "/etc: is not a regular file; name the YAML file itself"),
            (
                "/etc/passwd/x",
                "/etc/passwd/x: cannot be read (Not a directory); make it readable for the user who runs this",
            ),
        ],
    )
    def test_a_named_file_must_be_a_readable_file(self, path: str, problem: str) -> None:
        with pytest.raises(ConfigError) as caught:
            load_settings({"CLEANUP_CONFIG": path})
        assert caught.value.problems == (problem,)

    def test_an_unreadable_file(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write("executor: multiprocess")

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(ConfigError, match=r"cannot be read \(Permission denied\); make it readable"):
            load_settings({}, path)

    def test_what_the_parser_quotes_is_not_shown(self, refused: Callable[..., tuple[str, ...]]) -> None:
        for content in ('password: "s3cret', "password: s3cret\npassword: s3cret", "s3cret: [", "x: s3cret: y"):
            assert "s3cret" not in refused(content)[0].replace("the key 's3cret'", "")


def test_an_alias_bomb_stays_short(refused: Callable[..., tuple[str, ...]]) -> None:
    levels = "\n".join(f"  - &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(9))
    said = refused(f"naive_timezone:\n  - &a0 [x, x]\n{levels}\nexecutor: *a9\nstate_dir: &x [*x]")
    assert len(said) == 3
    assert all(len(line) < 400 for line in said)
