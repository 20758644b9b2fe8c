# ruff: noqa: INP001 - scripts of CI, no package
"""Fail unless the lock files have, for each requirement in `pyproject.toml`, one version that it allows here.

The image's two files must have the very versions of `requirements.lock`, which are the ones that are tested.
"""

import re
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def locked(path: str) -> dict[str, Requirement]:
    """Return what a lock file pins for this Python and platform."""
    found: dict[str, Requirement] = {}
    for line in re.findall(r"^[A-Za-z0-9].*", Path(path).read_text(encoding="utf-8"), re.MULTILINE):
        pinned = Requirement(line.rstrip(" \\"))
        if pinned.marker is None or pinned.marker.evaluate():
            found[canonicalize_name(pinned.name)] = pinned
    return found


project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
groups = project["dependency-groups"]
runtime, build = project["project"]["dependencies"], groups["build"]
development = [requirement for requirement in groups["dev"] if isinstance(requirement, str)]  # the rest includes groups
everything = locked("requirements.lock")

problems: list[str] = []
for path, texts in (
    ("requirements.lock", [*runtime, *build, *development]),
    ("deployment/runtime.lock", runtime),
    ("deployment/build.lock", build),
):
    pins = locked(path)
    for requirement in map(Requirement, texts):
        found = pins.get(canonicalize_name(requirement.name))
        version = str(found.specifier).removeprefix("==") if found else None
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement} is not what {path} has ({version or 'nothing'}); run: make lock")
    problems += [
        f"{path} has {pin}, which is not what requirements.lock has; run: make lock"
        for name, pin in pins.items()
        if name not in everything or everything[name].specifier != pin.specifier
    ]
sys.stdout.write("\n".join(problems) + "\n" if problems else f"{len(everything)} pins meet all requirements.\n")
sys.exit(bool(problems))
