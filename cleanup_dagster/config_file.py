"""Reading `cleanup.yaml`, and saying in one line what is wrong with it: which key, which value, what would be right."""

import datetime as dt
import difflib
import re
import reprlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

#: Far more than any configuration needs; whatever is longer is another file, named by mistake.
MAX_BYTES = 1024 * 1024
MAX_SHOWN = 210

Key = tuple[int | str, ...]

_WORDS = {None: "null", True: "true", False: "false"}
_ABOUT_DATABASE = re.compile(r"database|dsn|password|(^|_)db(_|$)", re.IGNORECASE)
_HINT_DATABASE = "the database is set in the environment only: CLEANUP_DATABASE_URL or CLEANUP_DB_HOST and its kin"
_MAPPING = "a mapping of keys to values"

_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother = 2, 200, 100


class ConfigFileError(Exception):
    """The file as a whole cannot be used. The text says why, without the file's name or any of its values."""


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in the file `path`.

    Raises:
        ConfigFileError: it cannot be read, or what it holds is no YAML mapping in UTF-8.
    """
    return _mapping(_parsed(_text(path)))


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise ConfigFileError("is not a regular file; name the YAML file itself")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigFileError("does not exist; create it, or name no file to use the defaults") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigFileError(f"cannot be read ({reason}); make it readable for the user who runs this") from None
    if len(raw) > MAX_BYTES:
        raise ConfigFileError("is longer than 1 MiB; that is no configuration")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigFileError(f"line {line}: is not UTF-8; save the file as UTF-8") from None


def _parsed(text: str) -> object:
    try:
        return YAML(typ="safe", pure=True).load(text)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    except MarkedYAMLError as error:
        raise ConfigFileError(_yaml_problem(error)) from None
    except (YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        raise ConfigFileError(
            "is not YAML; check it for control characters, dates and numbers that do not exist"
        ) from None
    except RecursionError:
        raise ConfigFileError("is nested far too deeply; a configuration needs four levels") from None


def _yaml_problem(error: MarkedYAMLError) -> str:
    """Return the parser's complaint without the lines it quotes: they may hold what must not be shown."""
    problem = str(getattr(error, "problem", None) or "is not YAML").strip()
    mark = getattr(error, "problem_mark", None)
    line = f"line {mark.line + 1}: " if mark else ""
    if doubled := re.match(r'found duplicate key "?([^"\n]*?)"? with value', problem):
        return f"{line}the key {doubled[1]!r} stands there twice; keep one of them"
    return f"{line}is not YAML ({problem.splitlines()[0]})"


def _mapping(content: object) -> dict[str, Any]:
    if content is None:
        raise ConfigFileError("is empty; write the settings that differ, or name no file to use the defaults")
    if not isinstance(content, dict):
        raise ConfigFileError(f"{shown(content)} is not {_MAPPING}; begin with a key such as targets:")
    return cast("dict[str, Any]", content)


def shown(value: object) -> str:
    """Return `value` as a message shows it: short, and in the words of YAML."""
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    if isinstance(value, dt.date):  # YAML reads 2026-01-31 as one
        return str(value)
    try:
        text = _short.repr(value)
    except ValueError:  # an integer with more digits than Python is willing to write
        return "a number of thousands of digits"
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def dotted(key: Key) -> str:
    """Return a key as people write it: `targets[0].root`."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if re.fullmatch(r"[\w.-]+", part) else repr(part)
            text += f".{name}" if text else name
    return text


def wording(
    error: ValidationError, model: type[BaseModel], content: object, label: Callable[[Key], str], hidden: frozenset[str]
) -> Iterator[str]:
    """Yield one line for each thing pydantic found in `content`, but never the value of a key that is not known.

    A field's description completes the sentence "is not ...". `hidden` fields cannot be set in the file.
    """
    for details in error.errors(include_url=False):
        key = details["loc"]
        kind = details["type"]
        if kind in ("extra_forbidden", "invalid_key"):
            text = _unknown(str(key[-1]), _fields(model, key[:-1]).keys() - hidden)
        elif kind == "value_error":
            text = str(details.get("ctx", {}).get("error", details["msg"]))
        else:
            expected = _fields(model, key[:-1])[str(key[-1])].description if key else _MAPPING
            value = shown(_written(content, key))
            text = f"is missing; it must be {expected}" if kind == "missing" else f"{value} is not {expected}"
        yield f"{label(key)}: {text}"


def _unknown(key: str, valid: set[str]) -> str:
    near = difflib.get_close_matches(key, valid, n=1)
    if near:
        return f"is no known key; did you mean {near[0]}?"
    if _ABOUT_DATABASE.search(key):
        return f"is no known key; {_HINT_DATABASE}"
    return f"is no known key; known here are {', '.join(sorted(valid))}"


def _written(content: object, key: Key) -> object:
    """Return a value as it was written: pydantic reports `10 GiB` as a number."""
    for part in key:
        content = cast("dict[object, object]", content).get(part) if isinstance(content, dict) else None
    return content


def _fields(model: type[BaseModel], path: Key) -> dict[str, FieldInfo]:
    for part in path:
        model = cast("type[BaseModel]", model.model_fields[str(part)].annotation)  # only models hold keys
    return model.model_fields
