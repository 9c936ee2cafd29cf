"""Settings of the service: one frozen object, from arguments and variables."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

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
    base: Path | None = Field(
        default=None, description="A `.manifest` folder whose runs are taken in at the start."
    )

    @model_validator(mode="before")
    @classmethod
    def _split_hosts(cls, values: object) -> object:
        if isinstance(values, dict) and isinstance(values.get("allowed_hosts"), str):
            hosts = [host.strip() for host in values["allowed_hosts"].split(",")]
            return {**values, "allowed_hosts": tuple(filter(None, hosts))}
        return values

    @model_validator(mode="after")
    def _refuse_strangers(self) -> Self:
        if self.auth == "none" and not is_loopback(self.host):
            raise ValueError(
                f"{self.host} can be reached from other machines, and nobody would be asked for a "
                "token: add `--auth tokens` (and make one with `manifest token create`), or "
                "listen at 127.0.0.1"
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
