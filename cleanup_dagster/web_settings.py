"""Where the page listens, whom it answers, and where it finds Dagster: the section `web:` of the configuration."""

import ipaddress
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from cleanup_dagster.config_file import shown
from cleanup_dagster.targets import AbsolutePath, Strict, WholeText

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_PORT = "a port from 1 to 65535"


def _names(value: object) -> object:
    """Return the list that a variable's comma-separated text means."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


class Web(Strict):
    """The page and its API."""

    host: str = Field(default="127.0.0.1", description="the address to listen on, such as 127.0.0.1 or 0.0.0.0")
    port: WholeText = Field(default=3001, ge=1, le=65535, description=_PORT)
    allowed_hosts: Names = Field(
        default=(), description="a list of host names by which the page is reached, such as [cleanup.example.org]"
    )
    trusted_proxy: Names = Field(
        default=(), description="a list of the addresses or networks of the proxy in front, such as [10.0.0.5]"
    )
    tls_certificate: AbsolutePath | None = Field(default=None, description="an absolute path of a PEM file, or null")
    tls_key: AbsolutePath | None = Field(default=None, description="an absolute path of a PEM file, or null")
    dagster_url: str = Field(
        default="http://127.0.0.1:3000", description="the URL of Dagster's webserver, such as http://127.0.0.1:3000"
    )
    dagster_public_url: str | None = Field(
        default=None, description="the URL by which browsers reach Dagster's webserver, or null for dagster_url"
    )

    @property
    def links_to(self) -> str:
        """Where a browser finds Dagster."""
        return self.dagster_public_url or self.dagster_url

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address to listen on."""
        return is_loopback(self.host)

    @field_validator("host")
    @classmethod
    def _check_host(cls, value: str) -> str:
        if not (is_address(value) or _HOST_NAME.fullmatch(value.lower())):
            raise ValueError(f"{shown(value)} is no address to listen on; write 127.0.0.1, ::1, 0.0.0.0 or a host name")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _check_allowed_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not (is_address(name) or _HOST_NAME.fullmatch(name.lower())):
                raise ValueError(
                    f"{shown(name)} is no host name; write it without scheme, port and *, such as cleanup.example.org"
                )
        return tuple(name.lower() for name in value)

    @field_validator("trusted_proxy")
    @classmethod
    def _check_trusted_proxy(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            try:
                ipaddress.ip_network(name)
            except ValueError:
                raise ValueError(f"{shown(name)} is no address or network; write 10.0.0.5 or 10.0.0.0/24") from None
        return value

    @field_validator("dagster_url", "dagster_public_url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            fits = False
        else:
            fits = fits and not (parts.query or parts.fragment or parts.username or parts.password)
        if not fits:
            named = "this (not shown here, it may hold a password)" if "@" in value else shown(value)
            raise ValueError(f"{named} is no URL of a webserver; write http://host:3000, without user and query")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _check_tls(self) -> "Web":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together; set both or neither")
        return self


def is_address(text: str) -> bool:
    """Tell whether `text` is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Tell whether `host` names this machine to itself alone."""
    return host.lower() == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)
