"""Only requests that call the service by its name pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from manifest_server.middleware.hosts import Hosts

Wrap = Callable[..., TestClient]
ALLOWED = ["localhost", "runs.example.org", "[::1]"]


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8765", "runs.example.org:443", "[::1]", "[::1]:8765"],
)
def test_a_known_name_passes(wrapped: Wrap, host: str) -> None:
    assert wrapped(Hosts, ALLOWED).put("/echo", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "localhost@evil.example",
        "evil.example:localhost",
        "evil.example/localhost",
        "[::1",
        "::1",
        "localhost:80:80",
        "localhost:²",
        "localhost ",
    ],
)
def test_any_other_name_is_refused(wrapped: Wrap, host: str) -> None:
    answer = wrapped(Hosts, ALLOWED).put("/echo", headers=[(b"Host", host.encode())])
    assert (answer.status_code, answer.json()["code"]) == (421, "host-refused")


@pytest.mark.parametrize("hosts", [[b""], [b"localhost", b"evil.example"]])
def test_one_name_must_be_said(wrapped: Wrap, hosts: list[bytes]) -> None:
    answer = wrapped(Hosts, ALLOWED).put("/echo", headers=[(b"Host", host) for host in hosts])
    assert (answer.status_code, answer.json()["code"]) == (400, "host-missing")


def test_a_star_allows_every_name(wrapped: Wrap) -> None:
    assert wrapped(Hosts, ["*"]).put("/echo", headers={"Host": "any.example"}).is_success
