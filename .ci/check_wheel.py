# ruff: noqa: INP001 - scripts of CI, no package
"""Fail unless the wheel given has the files that are loaded by path or read by people, not imported."""

import sys
import zipfile
from pathlib import Path

source = Path("cleanup_dagster")
wheel = zipfile.ZipFile(sys.argv[1])
names = set(wheel.namelist())
wanted = [
    *source.rglob("*.py"),
    *(path for kind in ("templates", "static") for path in (source / "web" / kind).rglob("*.*")),
]
missing = [str(path) for path in sorted(wanted) if str(path) not in names]
if not any(name.endswith("licenses/LICENSE") for name in names):
    missing.append("LICENSE")
sys.stdout.write(
    f"missing: {', '.join(missing)}\n" if missing else f"{len(names)} files, the migrations and the page among them.\n"
)
sys.exit(bool(missing))
