"""docker-compose.yml as compose reads it: anchors merged, variables put in, the rest as it stands."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

from ruamel.yaml import YAML

Services: TypeAlias = dict[str, dict[str, Any]]

PROJECT = Path(__file__).parents[2]
COMPOSE = PROJECT / "docker-compose.yml"
_REFERENCE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:?[-?])([^}]*))?\})")


class UnsetError(Exception):
    """A variable that has to be set is not; the text is what compose would say."""


def load_yaml(path: Path) -> Any:
    """Return what a YAML file holds."""
    return YAML(typ="safe", pure=True).load(path)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def interpolated(value: Any, environ: Mapping[str, str]) -> Any:
    """Return `value` with each `${NAME}` in its texts replaced, as compose does it. Raises UnsetError."""
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: _replacement(match, environ), value)
    if isinstance(value, list):
        return [interpolated(item, environ) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {key: interpolated(item, environ) for key, item in cast("dict[Any, Any]", value).items()}
    return value


def _replacement(match: "re.Match[str]", environ: Mapping[str, str]) -> str:
    dollar, name, operator, more = match.groups()
    if dollar:
        return "$"
    value = environ.get(name)
    if value is None or (value == "" and (operator or "").startswith(":")):
        if operator and operator.endswith("?"):
            raise UnsetError(f"required variable {name} is missing a value: {more}")
        return more or ""
    return value


def references(path: Path = COMPOSE) -> dict[str, set[str]]:
    """Return the variables that a compose file refers to, with the operator and default of each reference."""
    found: dict[str, set[str]] = {}
    for _, name, operator, more in _REFERENCE.findall(path.read_text(encoding="utf-8")):
        if name:
            found.setdefault(name, set()).add(f"{operator}{more}")
    return found


def services(environ: Mapping[str, str]) -> Services:
    """Return the services of docker-compose.yml in the order in which they depend on each other."""
    content = interpolated(load_yaml(COMPOSE), environ)["services"]
    ordered: Services = {}

    def add(name: str) -> None:
        for needed in content[name].get("depends_on", {}):
            add(needed)
        ordered.setdefault(name, content[name])

    for name in content:
        add(name)
    return ordered


def volumes(service: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a service's mounts by the place in the container."""
    return {mount["target"]: mount for mount in service.get("volumes", [])}


def ports(service: Mapping[str, Any]) -> dict[int, tuple[str, int]]:
    """Return the ports in the container, each with the address and port of the host at which it is published."""
    found: dict[int, tuple[str, int]] = {}
    for text in service.get("ports", []):
        address, host, inner = text.rsplit(":", 2)
        found[int(inner)] = (address, int(host))
    return found


def seconds(text: str) -> float:
    """Return the seconds that compose's `90s` or `1m` means."""
    number, unit = re.fullmatch(r"(\d+)([sm])", text).groups()  # pyright: ignore[reportOptionalMemberAccess]
    return int(number) * (60 if unit == "m" else 1)


def assignments(path: Path) -> dict[str, str]:
    """Return the variables that a file such as .env sets."""
    return dict(re.findall(r"^(\w+)=(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE))
