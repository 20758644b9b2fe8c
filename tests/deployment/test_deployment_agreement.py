"""What compose, the Dockerfile, .env.example and the pages say agrees with each other and with the code."""

import functools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import dagster as dg
import deployment_compose as compose
import pytest
from deployment_compose import PROJECT, Services

from cleanup_dagster.cli.app import root
from cleanup_dagster.orchestration.location import code_location
from cleanup_dagster.settings import Settings, load_settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_DOCKERFILE = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
_EXAMPLE = compose.assignments(PROJECT / ".env.example")
_PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
_UNITS = sorted((PROJECT / "deployment" / "systemd").glob("*.service"))
_BIN = Path(sys.executable).parent
#: What Dagster and the image of Postgres read besides what our files hand to them.
_FOREIGN = frozenset({"POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_INITDB_ARGS"})
_NAMES = re.compile(r"\b(?:CLEANUP|DAGSTER|DBT|POSTGRES|OPERATIONS|LOGS)_[A-Z_]*[A-Z]\b")


class _Recorder(dict[str, str]):
    """An empty environment that remembers what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


@functools.cache
def _read_by_settings() -> frozenset[str]:
    environ = _Recorder()
    load_settings(environ)
    return frozenset(environ.asked)


def _read_by_dagster_yaml() -> set[str]:
    return set(re.findall(r"\{env: (\w+)\}", (PROJECT / "dagster.yaml").read_text(encoding="utf-8")))


def _environ(tmp_path: Path) -> dict[str, str]:
    directories = {name: str(tmp_path / name) for name in ("OPERATIONS_DIR", "DBT_DIR", "LOGS_DIR")}
    secrets = {"POSTGRES_PASSWORD": "x" * 32, "CLEANUP_WEB_OPERATOR_TOKEN": "y" * 32, "CLEANUP_TIMEZONE": "UTC"}
    return {**_EXAMPLE, **directories, **secrets}


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return compose.services(_environ(tmp_path))


@pytest.fixture
def settings(services: Services, tmp_path: Path) -> Settings:
    """The settings of the code location, from the file that compose mounts and the environment that it sets."""
    environ = services["code"]["environment"] | {"CLEANUP_CONFIG": str(PROJECT / "deployment" / "cleanup.yaml")}
    del tmp_path
    return load_settings(environ)


def test_compose_refuses_to_start_without_what_has_no_default(tmp_path: Path) -> None:
    needed = {name for name, uses in compose.references().items() if any(use.startswith(":?") for use in uses)}
    environ = _environ(tmp_path)
    for name in needed:
        for missing in ({**environ, name: ""}, {key: value for key, value in environ.items() if key != name}):
            with pytest.raises(compose.UnsetError, match=f"required variable {name} is missing a value: "):
                compose.services(missing)
    assert {"POSTGRES_PASSWORD", "CLEANUP_WEB_OPERATOR_TOKEN", "OPERATIONS_DIR"} < needed


def test_the_example_has_every_variable_of_compose_and_no_other() -> None:
    assert _EXAMPLE.keys() == compose.references().keys()
    for name, uses in compose.references().items():
        (use,) = {use[:2] for use in uses}
        defaults = {text[2:] for text in uses}
        if use == ":?":
            assert _EXAMPLE[name] == "", f"{name} has no default"
        else:
            assert {_EXAMPLE[name]} == defaults, name


def test_every_variable_that_a_service_gets_is_read_by_somebody(services: Services) -> None:
    known = _read_by_settings() | _read_by_dagster_yaml() | _FOREIGN
    for name, service in services.items():
        assert set(service["environment"]) <= known, name
    assert set(services["code"]["environment"]) >= _read_by_dagster_yaml()


def test_the_pages_name_the_variables_that_are_read_and_no_other() -> None:
    known = _read_by_settings() | _read_by_dagster_yaml() | _FOREIGN | compose.references().keys()
    for page in _PAGES:
        named = set(_NAMES.findall(page.read_text(encoding="utf-8")))
        assert named <= known, page.name
    reference = (PROJECT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert {name for name in _read_by_settings() if not re.search(rf"`\$?{name}\b", reference)} == set()
    deployment = (PROJECT / "docs" / "deployment.md").read_text(encoding="utf-8")
    assert {name for name in compose.references() if f"`{name}`" not in deployment} == set()


def test_the_containers_configuration_fits_their_mounts(services: Services, settings: Settings) -> None:
    mounts = compose.volumes(services["code"])
    assert str(settings.config_file).endswith(str(mounts["/srv/config/cleanup.yaml"]["source"]).removeprefix("./"))
    assert services["code"]["environment"]["CLEANUP_CONFIG"] in mounts
    platform = {place for place in mounts if place.startswith("/srv/platform/")}
    for target in settings.targets:
        assert any(target.root.is_relative_to(place) for place in platform), target.name
    for place in platform:
        assert any(target.root.is_relative_to(place) for target in settings.targets), place
    assert {str(settings.state_dir), str(settings.backup.directory), str(settings.dagster_home)} <= mounts.keys()
    for place, mount in compose.volumes(services["page"]).items():
        assert mount["source"] == mounts[place]["source"], "the page sees what the runs see"
        assert place == str(settings.state_dir) or mount["read_only"]


def test_the_image_has_the_directories_that_volumes_are_mounted_on(services: Services) -> None:
    (made,) = re.findall(
        r"install -d -m 0700 -o \$\{CLEANUP_UID\} -g \$\{CLEANUP_GID\} (.*)$", _DOCKERFILE, re.MULTILINE
    )
    ours = [service for name, service in services.items() if name != "postgres"]
    mounted = {m["target"] for service in ours for m in service["volumes"] if m["type"] == "volume"}
    assert set(made.split()) == mounted
    declared = compose.load_yaml(compose.COMPOSE)["volumes"]
    assert {m["source"] for service in services.values() for m in service["volumes"] if m["type"] == "volume"} == set(
        declared
    )
    for service in ours:
        assert service["user"] == "1000:1000"
        assert service["build"]["args"] == {"CLEANUP_UID": "1000", "CLEANUP_GID": "1000"}


def test_image_and_project_have_one_version(services: Services) -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f'image.version="{version}"' in _DOCKERFILE
    assert {service["image"] for name, service in services.items() if name != "postgres"} == {
        f"cleanup-dagster:{version}"
    }
    assert re.search(r"^ARG BASE=python:3\.\d+\.\d+-slim-\w+$", _DOCKERFILE, re.MULTILINE), "pinned exactly"
    assert re.fullmatch(r"postgres:\d+\.\d+-\w+", services["postgres"]["image"]), "pinned exactly"


def test_the_build_gets_the_files_it_copies() -> None:
    allowed = re.findall(r"^!(.*)$", (PROJECT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    for line in re.findall(r"^COPY (?!--from)(.*)$", _DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (PROJECT / source).exists(), source
            assert any(Path(source).match(pattern) for pattern in allowed), source


def test_names_and_ports_of_the_services_agree(services: Services, settings: Settings) -> None:
    (location,) = compose.load_yaml(PROJECT / "deployment" / "workspace.yaml")["load_from"]
    (local,) = compose.load_yaml(PROJECT / "workspace.yaml")["load_from"]
    server, module = location["grpc_server"], local["python_module"]
    assert server["location_name"] == module["location_name"]
    code = services[server["host"]]
    assert _option(code["command"], "--port") == str(server["port"]) == _option(code["healthcheck"]["test"], "--port")
    assert _option(code["command"], "--module-name") == module["module_name"]
    page = load_settings(services["page"]["environment"] | {"CLEANUP_CONFIG": ""}).web
    assert page.port == Settings.model_fields["web"].get_default(call_default_factory=True).port
    assert set(compose.ports(services["page"])) == {page.port}
    assert f"http://127.0.0.1:{page.port}/healthz" in services["page"]["healthcheck"]["test"][-1]
    host, port = page.dagster_url.removeprefix("http://").split(":")
    assert _option(services[host]["command"], "--port") == port
    for name in ("webserver", "daemon"):
        assert _option(services[name]["command"], "--workspace") in compose.volumes(services[name])
    for text in (services[name]["environment"]["DAGSTER_POSTGRES_HOST"] for name in ("code", "webserver", "daemon")):
        assert text == "postgres"
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value().endswith("@postgres:5432/dagster")


def _option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def _our_commands(services: Services) -> Iterator[list[str]]:
    """Yield each `cleanup-operations` that a unit or a service starts; what the pages show is parsed elsewhere."""
    for unit in _UNITS:
        for line in re.findall(
            r"^Exec\w+=\S*/cleanup-operations (.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE
        ):
            yield line.split()
    for service in services.values():
        for line in re.findall(r"cleanup-operations ([a-z -]+)", " ".join(service.get("command", []))):
            yield line.split()


def test_every_command_of_ours_that_is_started_exists(services: Services) -> None:
    commands = list(_our_commands(services))
    for words in commands:
        command: click.Command = root
        for word in words:
            assert isinstance(command, click.Group), words
            command = command.commands[word]
    assert {tuple(words) for words in commands} == {("serve",), ("db", "upgrade")}


def test_every_program_of_a_service_is_in_the_image(services: Services) -> None:
    for name, service in services.items():
        if name == "postgres":
            continue
        checks = service.get("healthcheck", {}).get("test", ["CMD", "sh"])
        for program in (service["command"][0], checks[1]):
            assert program == "sh" or (_BIN / program).exists(), f"{name}: {program}"


def test_every_job_and_schedule_that_is_shown_exists(tmp_path: Path) -> None:
    location = code_location(load_settings({"CLEANUP_STATE_DIR": str(tmp_path)}))
    jobs = {job.name for job in location.jobs or [] if isinstance(job, dg.JobDefinition)}
    schedules = {schedule.name for schedule in location.schedules or [] if isinstance(schedule, dg.ScheduleDefinition)}
    for page in _PAGES:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"dagster job \w+ .*?-j (\w+)", text)) <= jobs, page.name
        assert set(re.findall(r"dagster schedule \w+ (\w+)", text)) <= schedules, page.name


def test_no_variable_leads_a_make_target_to_a_real_installation() -> None:
    text = (PROJECT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (named,) = re.findall(r"^SETTINGS := (.*)$", text, re.MULTILINE)
    assert set(named.split()) == _read_by_settings() - {"DAGSTER_HOME"}, "of which each target sets its own"
    assert "\nunexport $(SETTINGS)\n" in text


def test_the_override_for_root_fits_the_services(services: Services) -> None:
    override = compose.load_yaml(PROJECT / "deployment" / "compose.root.yml")["services"]
    assert override.keys() == services.keys() - {"postgres"}
    for service in override.values():
        assert service["user"] == "0:0"
        assert service["build"]["args"] == {"CLEANUP_UID": "0", "CLEANUP_GID": "0"}


def test_the_reference_is_not_stale() -> None:
    done = subprocess.run([sys.executable, "-m", "docs.reference", "--check"], cwd=PROJECT, check=False)
    assert done.returncode == 0, "run: make reference"


def _compose_is_here() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _compose_is_here(), reason="docker compose is not here, and nothing else could speak for it")
def test_compose_itself_reads_the_file_as_we_do(tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in _environ(tmp_path).items()), encoding="utf-8")
    command = [
        "docker",
        "compose",
        "--env-file",
        str(env_file),
        "--file",
        str(compose.COMPOSE),
        "config",
        "--format",
        "json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)["services"]
    ours = compose.services(_environ(tmp_path))
    assert theirs.keys() == ours.keys()
    for name, service in ours.items():
        assert theirs[name]["environment"] == service["environment"]
        assert theirs[name].get("command") == service.get("command")
        assert [m["target"] for m in theirs[name]["volumes"]] == [m["target"] for m in service["volumes"]]
