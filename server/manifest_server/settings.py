"""Settings of the service: one frozen object, from arguments and variables."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from manifest.errors import SettingsInvalid

PREFIX: Final = "MANIFEST_SERVER_"

_MEGABYTE: Final = 2**20


class ServerSettings(BaseSettings):
    """What decides how the service runs.

    Each is also a variable: ``MANIFEST_SERVER_`` and the name in capitals.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    database_url: str = Field(
        default="sqlite:///manifest.db",
        description="Where runs are kept: sqlite:///path or postgresql://user@host/name.",
    )
    blob_url: str | None = Field(
        default=None,
        description="Where blobs are kept: s3://bucket/prefix or file:///folder; in the database "
        "by default. Credentials for S3 come from the variables that AWS uses.",
    )
    blob_endpoint: str | None = Field(
        default=None, description="The address of an S3 server other than Amazon's."
    )
    host: str = Field(default="127.0.0.1", description="The address to listen at.")
    port: int = Field(default=8765, ge=0, le=65535, description="The port; 0 takes a free one.")
    auth: Literal["tokens", "none"] = Field(
        default="none",
        description="`tokens` asks every request for one; `none` serves one user of this machine.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("localhost", "127.0.0.1", "[::1]"),
        description="Names that requests may call this service by; others are refused.",
    )
    most_manifest_bytes: int = Field(
        default=16 * _MEGABYTE, gt=0, description="The largest manifest, uncompressed."
    )
    most_blob_bytes: int = Field(
        default=256 * _MEGABYTE, gt=0, description="The largest blob, uncompressed."
    )
    most_row_bytes: int = Field(
        default=16 * _MEGABYTE, gt=0, description="The most rows of a trail in one request."
    )
    most_waiting_runs: int = Field(
        default=1000, gt=0, description="How many runs may wait to be committed; more are refused."
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="How many processes serve; SQLite is best served by one.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("127.0.0.1", "::1"),
        description="Addresses whose X-Forwarded-For and X-Forwarded-Proto are believed.",
    )
    requests_per_second: float = Field(
        default=500.0,
        ge=0,
        description="What one token may ask for steadily; 0 sets no limit.",
    )
    slow_body_seconds: float = Field(
        default=20.0, gt=0, description="How long a body may come slower than 16 KiB a second."
    )
    grace_seconds: int = Field(
        default=30, ge=0, description="How long requests under way are waited for at the end."
    )

    @field_validator("allowed_hosts", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @model_validator(mode="after")
    def _refuse_strangers(self) -> Self:
        if self.auth == "none" and not is_loopback(self.host):
            raise ValueError(
                f"{self.host} can be reached from other machines, and nobody would be asked for a "
                "token: add `--auth tokens` (and make one with `manifest token create`), or "
                "listen at 127.0.0.1"
            )
        return self


def load_settings(**given: Any) -> ServerSettings:
    """The settings: what is given, else the variables, else the defaults.

    Raises:
        SettingsInvalid: One of them cannot be.
    """
    try:
        return ServerSettings(**given)
    except ValidationError as error:
        raise SettingsInvalid("; ".join(_told(each, given) for each in error.errors())) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _told(fault: Any, given: dict[str, Any]) -> str:
    reason = str(fault["msg"]).removeprefix("Value error, ")
    if not fault["loc"]:
        return reason
    name = str(fault["loc"][0])
    said = f"--{name}" if name in given else f"{PREFIX}{name.upper()}"
    return f"{said} is {fault['input']!r}: {reason}"
