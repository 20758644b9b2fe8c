"""The tokens that open the page, one per role: from the environment, else made at the first start and kept here.

In memory there are only their digests; no message, log line or URL that reaches a server holds one.
"""

import contextlib
import hashlib
import os
import secrets
from enum import IntEnum
from hmac import compare_digest
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from cleanup_dagster.filesystem.private import sync_directory
from cleanup_dagster.settings import Settings

_FILE = "web_tokens.json"


class Role(IntEnum):
    """What somebody may do; a higher role may do all that a lower one may."""

    VIEWER = 1
    OPERATOR = 2

    @property
    def word(self) -> str:
        """The role as it is written."""
        return self.name.lower()


class TokensError(Exception):
    """The tokens cannot be kept or read; the message says what to do."""


class _Kept(Struct, frozen=True):
    operator: str
    viewer: str


class Tokens(NamedTuple):
    """The digests of the tokens that are accepted, and the operator's own when it was made just now."""

    digests: dict[Role, bytes]
    fresh: str = ""

    def role_of(self, token: str) -> Role | None:
        """Return whose token it is, or None. Takes as long for a wrong one as for a right one."""
        digest = _digest(token)
        found = [role for role, known in self.digests.items() if compare_digest(digest, known)]
        return max(found, default=None)


def tokens_of(settings: Settings) -> Tokens:
    """Return the tokens of an installation: those of the environment, else those of the state directory.

    With one in the environment the kept ones do not count: what was configured is all there is. The state directory
    must exist. Raises TokensError.
    """
    given = {Role.OPERATOR: settings.operator_token, Role.VIEWER: settings.viewer_token}
    configured = {role: token.get_secret_value() for role, token in given.items() if token is not None}
    if len(set(configured.values())) < len(configured):
        raise TokensError("the operator's and the viewer's token are the same; set two different ones")
    if configured:
        return Tokens({role: _digest(token) for role, token in configured.items()})
    path = settings.state_dir / _FILE
    kept, fresh = _kept(path)
    digests = {Role.OPERATOR: _digest(kept.operator), Role.VIEWER: _digest(kept.viewer)}
    return Tokens(digests, kept.operator if fresh else "")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _kept(path: Path) -> tuple[_Kept, bool]:
    """Return the tokens in the file, and whether they were made just now."""
    try:
        if path.exists():
            return _read(path), False
        made = _Kept(secrets.token_urlsafe(32), secrets.token_urlsafe(32))
        return (made, True) if _write(path, made) else (_read(path), False)
    except OSError as error:
        problem = f"the tokens in {path} cannot be kept: {error.strerror}"
    raise TokensError(problem)


def _read(path: Path) -> _Kept:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise TokensError(f"{path} can be read by others; remove it, and new tokens are made at the next start")
        content = file.read()
    try:
        return msgspec.json.decode(content, type=_Kept)
    except msgspec.MsgspecError:
        pass
    raise TokensError(f"{path} is damaged; remove it, and new tokens are made at the next start")


def _write(path: Path, tokens: _Kept) -> bool:
    """Write the file whole under its name; False when another process was faster."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(tokens))
            file.flush()
            os.fsync(fd)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
            sync_directory(path.parent)
            return True
        return False
    finally:
        temporary.unlink()
