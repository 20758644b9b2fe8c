# ruff: noqa: INP001 - a script of the documentation, no package
"""Write the tables of `docs/configuration.md` from the settings themselves: `python -m docs.reference`.

With `--check` nothing is written, and the exit code is 1 when the tables are not what it would write.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cleanup_dagster.environment import OVERRIDES
from cleanup_dagster.run_history.target import RunsTarget
from cleanup_dagster.settings import NOT_IN_FILE, Settings
from cleanup_dagster.targets import Duration, LimitKeys, Size, Target

PAGE = Path(__file__).with_name("configuration.md")
_BEGIN, _END = "<!-- made by `make reference` -->", "<!-- end of what is made -->"
_VARIABLES = {key: variable for variable, key in OVERRIDES.items()}
_SIZES = tuple((f"{prefix}iB", 1024**power) for power, prefix in ((4, "T"), (3, "G"), (2, "M"), (1, "K")))
_TIMES = (("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60))
#: What the model leaves to the moment of loading.
_DEPENDS: dict[tuple[str, ...], str] = {
    ("state_dir",): "`$DAGSTER_HOME/cleanup`, else the user's state directory",
    ("workers",): "the cores this process may use, up to 4",
    ("targets", "patterns"): '`["operation_*.json"]` for kind operations, else `["*"]`',
    ("targets", "excludes"): "`[]`; for data_type dbt_logs what dbt loads, as shown above; for temp_files see below",
    ("targets", "recursive"): "`false` for kind operations, else `true`",
    ("targets", "limits"): "those of `limits`; `max_share: 1.0` for data_type temp_files",
    ("targets", "data_type"): "required for kind files",
    ("dagster_runs", "limits"): "those of `limits`",
}
_PLAIN: dict[tuple[str, ...], str] = {
    ("targets", "patterns"): "a list of globs",
    ("targets", "excludes"): "a list of globs",
    ("targets", "kind"): "operations or files",
    ("dagster_runs", "statuses"): "some of success, failure, canceled",
    ("dagster_runs", "job_names"): "a list of names; `*` and `?` are allowed",
}
_TITLES = {"targets": "`targets`, of kind operations or files", "dagster_runs": "`targets`, of kind dagster_runs"}


def tables() -> str:
    """Return the generated part of the page."""
    lines: list[str] = []
    sections: list[tuple[tuple[str, ...], type[BaseModel]]] = [((), Settings)]
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            sections.append(((name,), field.annotation))
    sections += [(("limits",), LimitKeys), (("targets",), Target), (("dagster_runs",), RunsTarget)]
    nested = {key for key, _ in sections}
    for key, model in sections:
        title = _TITLES.get(key[0], f"`{key[0]}`") if key else "Top level"
        lines += [f"### {title}", "", "| Key | Default | It is | Variable |", "|---|---|---|---|"]
        lines += [_row((*key, name), field) for name, field in _fields(model, key) if (*key, name) not in nested]
        lines.append("")
    return "\n".join(lines)


def _fields(model: type[BaseModel], key: tuple[str, ...]) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        if key or name not in NOT_IN_FILE:
            yield name, field


def _row(key: tuple[str, ...], field: FieldInfo) -> str:
    what = _PLAIN.get(key) or field.description or "a mapping with max_files, max_bytes and their kin"
    cells = [f"`{key[-1]}`", _DEPENDS.get(key) or _default(field), what.replace("|", "\\|")]
    variable = _VARIABLES.get(key)
    return f"| {' | '.join([*cells, f'`{variable}`' if variable else ''])} |"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    return "required" if value is PydanticUndefined else f"`{_written(value, field)}`"


def _written(value: Any, field: FieldInfo) -> str:
    """Return a default as YAML has it, with the unit that people would write."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    for kind, units in ((Size, _SIZES), (Duration, _TIMES)):
        if get_args(kind)[1] in field.metadata and value:
            space = " " if kind is Size else ""
            return next((f"{value // n:.0f}{space}{unit}" for unit, n in units if not value % n), f"{value:g}")
    if isinstance(value, tuple):
        return "[]" if not value else str(list(value)).replace("'", '"')  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, float):
        return f"{value:g}"
    return f'"{value}"' if "*" in str(value) else str(value)


def main(arguments: list[str]) -> int:
    """Write the tables, or compare them."""
    before = PAGE.read_text(encoding="utf-8")
    made = f"{_BEGIN}\n\n{tables()}\n{_END}"
    after = re.sub(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", lambda _: made, before, flags=re.DOTALL)
    if "--check" in arguments:
        return int(after != before)
    PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
