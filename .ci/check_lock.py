# ruff: noqa: INP001 - scripts of CI, no package
"""Fail unless `requirements.lock` has, for each requirement in `pyproject.toml`, one version that it allows here."""

import re
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
wanted = [Requirement(text) for text in project["project"]["dependencies"] + project["dependency-groups"]["dev"]]
locked: dict[str, Requirement] = {}
for line in re.findall(r"^[A-Za-z0-9].*", Path("requirements.lock").read_text(encoding="utf-8"), re.MULTILINE):
    pinned = Requirement(line.rstrip(" \\"))
    if pinned.marker is None or pinned.marker.evaluate():
        locked[canonicalize_name(pinned.name)] = pinned

problems: list[str] = []
for requirement in wanted:
    found = locked.get(canonicalize_name(requirement.name))
    version = str(found.specifier).removeprefix("==") if found else None
    if version is None or not requirement.specifier.contains(version, prereleases=True):
        problems.append(f"{requirement} is not what requirements.lock has ({version or 'nothing'}); run: make lock")
sys.stdout.write("\n".join(problems) + "\n" if problems else f"{len(wanted)} requirements are met.\n")
sys.exit(bool(problems))
