"""Which directories are never cleaned, whatever a configuration says."""

import os
import pwd
from pathlib import Path

import pytest

from cleanup_dagster.retention.guardrails import Limits
from cleanup_dagster.roots import blocks_the_way, forbidden_root, forbidden_store, path_problem
from cleanup_dagster.settings import load_settings

TMP = "/tmp"  # noqa: S108
OWN = "name a directory of your own"


def account(home: str, uid: int = 1000) -> pwd.struct_passwd:
    return pwd.struct_passwd(("someone", "x", uid, uid, "", home, "/bin/sh"))


@pytest.fixture
def homes(monkeypatch: pytest.MonkeyPatch) -> list[pwd.struct_passwd]:
    accounts: list[pwd.struct_passwd] = []
    monkeypatch.setattr(pwd, "getpwall", lambda: accounts)
    return accounts


@pytest.mark.parametrize(
    "name", ["bin", "boot", "dev", "etc", "lib", "lib64", "libx32", "proc", "run", "sbin", "sys", "usr"]
)
def test_system_directories_and_all_below(name: str) -> None:
    for path in (f"/{name}", f"/{name}/some/where"):
        assert forbidden_root(Path(path)) == f"lies in the system directory /{name}; {OWN}"
        assert forbidden_store(Path(path)) is not None


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/", f"is the root of the file system; {OWN}"),
        ("//data", "is not written in its normal form; write '/data'"),
        ("/data/../etc", "holds '..'; write the path it means, without it"),
        ("data", "is not an absolute path; write it in full, from / on"),
        ("~/logs", "is not an absolute path; write it in full, from / on"),
        ("/a\0b", "holds a NUL character, which no path can; write an absolute path"),
        ("/a\ud800", "holds characters that no file name can; write an absolute path"),
        ("/var", f"is shared by the whole system; {OWN} below /var"),
        ("/opt", f"is shared by the whole system; {OWN} below /opt"),
        ("/home", "is a home directory or holds them; name a directory below a home, such as its project's logs"),
        ("/root", "is a home directory or holds them; name a directory below a home, such as its project's logs"),
        ("/Users", "is a home directory or holds them; name a directory below a home, such as its project's logs"),
        ("/" + "x" * 300, "cannot be looked at (File name too long); name an existing directory"),
    ],
)
def test_the_words(path: str, problem: str) -> None:
    assert forbidden_root(Path(path)) == problem


@pytest.mark.parametrize(
    "path", [TMP, "/var/log/app", "/opt/app/logs", "/srv", "/mnt", "/media", "/home/x/project/logs"]
)
def test_what_may_be_cleaned(path: str, homes: list[pwd.struct_passwd]) -> None:
    homes += [account("/home/x"), account("/", 0), account("/nonexistent", 65534), account("/var/log", 33)]
    assert forbidden_root(Path(path)) is None


@pytest.mark.parametrize("text", ["/data/", "/data/.", "/./data", "//data", "/a//b"])
def test_paths_are_written_in_their_normal_form(text: str) -> None:
    assert (
        path_problem(text) == f"is not written in its normal form; write {os.path.normpath('/' + text.lstrip('/'))!r}"
    )


def test_homes(homes: list[pwd.struct_passwd]) -> None:
    homes += [
        account("/data/people/ann"),
        account("/data/admin", 0),
        account("/data/me", os.getuid()),
        account("/d/x", 999),
    ]
    for home in ("/data/people/ann", "/data/admin", "/data/me"):
        assert "is a home directory" in (forbidden_root(Path(home)) or "")
    assert forbidden_root(Path("/data/people")) == f"holds the home directory /data/people/ann; {OWN}"
    assert "holds the home directory" in (forbidden_root(Path("/data"), recursive=False) or "")
    assert forbidden_root(Path("/data/people/ann/logs")) is None
    assert forbidden_root(Path("/data/people/an")) is None
    assert forbidden_root(Path("/d/x")) is None, "a service's account, not a person's"


def test_the_home_of_a_service_that_is_us(homes: list[pwd.struct_passwd], monkeypatch: pytest.MonkeyPatch) -> None:
    homes.append(account("/d/x", 999))
    monkeypatch.setattr(os, "getuid", lambda: 999)
    assert "is a home directory" in (forbidden_root(Path("/d/x")) or "")


def test_homes_behind_a_link(homes: list[pwd.struct_passwd], tmp_path: Path) -> None:
    (tmp_path / "real" / "ann").mkdir(parents=True)
    (tmp_path / "home").symlink_to("real")
    homes.append(account(str(tmp_path / "home" / "ann")))
    assert "is a home directory" in (forbidden_root(tmp_path / "real" / "ann") or "")
    assert "holds the home directory" in (forbidden_root(tmp_path / "real") or "")


def test_homes_in_tmp_do_not_forbid_its_own_files(homes: list[pwd.struct_passwd]) -> None:
    homes += [account(f"{TMP}/ann"), account(TMP, 1001)]
    assert forbidden_root(Path(TMP), recursive=False) is None
    assert forbidden_root(Path(TMP)) == f"holds the home directory /tmp/ann; {OWN}"


@pytest.mark.parametrize("mark", ["PG_VERSION", "ibdata1"])
def test_databases(tmp_path: Path, mark: str) -> None:
    data = tmp_path / "data"
    (data / "base").mkdir(parents=True)
    (data / mark).touch()
    problem = f"lies in the data directory of a database ({data / mark} exists); name another directory"
    assert forbidden_root(data) == problem
    assert forbidden_root(data / "base") == problem
    assert forbidden_root(tmp_path) is None


@pytest.mark.needs_root
@pytest.mark.skipif(os.getuid() != 0, reason="another uid needs root")
def test_nobody_forbids_tmp_by_a_file_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").touch()
    os.chown(tmp_path / "PG_VERSION", 12345, 12345)
    assert forbidden_root(tmp_path) is None


def test_dagsters_storage(tmp_path: Path) -> None:
    home = tmp_path / "home"
    inside = f"lies in Dagster's storage (DAGSTER_HOME is {home}); name a directory outside it"
    assert forbidden_root(home, home) == inside
    assert forbidden_root(home / "storage", home, recursive=False) == inside
    assert forbidden_root(tmp_path, home) == (
        f"holds Dagster's storage (DAGSTER_HOME is {home}); name a directory that does not"
    )
    assert forbidden_root(tmp_path, home, recursive=False) is None
    assert forbidden_root(tmp_path / "homes", home) is None


def test_dagsters_storage_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "home").symlink_to("real")
    assert "lies in Dagster's storage" in (forbidden_root(tmp_path / "real", tmp_path / "home") or "")


def test_the_default_target_lives_beside_a_dagster_home_in_tmp() -> None:
    settings = load_settings({"DAGSTER_HOME": f"{TMP}/demo"})
    assert settings.state_dir == Path(TMP, "demo/cleanup")
    assert settings.root_problem(settings.targets[0]) is None


def test_links_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "real" / "logs").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").touch()
    real = f"name the real path, {str(tmp_path / 'real' / 'logs')!r}"
    assert forbidden_root(tmp_path / "link" / "logs") == f"leads through the symbolic link {tmp_path / 'link'}; {real}"
    assert (
        forbidden_root(tmp_path / "file" / "x")
        == f"is no directory, because {tmp_path / 'file'} is none; name a directory"
    )
    assert (
        forbidden_root(tmp_path / "file") == f"is no directory, because {tmp_path / 'file'} is none; name a directory"
    )
    assert forbidden_root(tmp_path / "absent" / "logs") is None


def test_a_run_can_ask_again(tmp_path: Path) -> None:
    config = tmp_path / "cleanup.yaml"
    root = tmp_path / "logs"
    config.write_text(f"targets: [{{name: a, kind: files, data_type: system_logs, root: {root}}}]")
    settings = load_settings({}, config)
    assert settings.root_problem(settings.targets[0]) is None
    root.symlink_to("/etc")
    assert settings.root_problem(settings.targets[0]) == (
        f"leads through the symbolic link {root}; name the real path, '/etc'"
    )


def test_stores(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "out").symlink_to(tmp_path / "data")
    assert forbidden_store(tmp_path) is None
    assert forbidden_store(tmp_path / "link" / "x") == f"lies in the system directory /etc; {OWN}"
    assert forbidden_store(Path("x")) == "is not an absolute path; write it in full, from / on"
    root = tmp_path / "data" / "logs"
    for directory in (root, root.parent, tmp_path, Path("/"), tmp_path / "out"):
        assert blocks_the_way(directory, root)
    for directory in (root / "backups", tmp_path / "dat", tmp_path / "data" / "log"):
        assert not blocks_the_way(directory, root)


def test_temporary_files_and_operations_share_tmp() -> None:
    settings = load_settings({"CLEANUP_TEMP_FILES_DIR": TMP})
    assert settings.targets[1].excludes == ("operation_*.json",)
    assert settings.targets[1].limits == Limits(max_share=1.0)
