"""Settings refuse what is not safe."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from manifest_server.settings import ServerSettings, is_loopback


def test_refuses_to_serve_strangers_without_tokens() -> None:
    with pytest.raises(ValidationError, match="--auth tokens"):
        ServerSettings(host="0.0.0.0")


def test_serves_strangers_with_tokens() -> None:
    assert ServerSettings(host="0.0.0.0", auth="tokens").auth == "tokens"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"])
def test_knows_addresses_of_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org", ""])
def test_knows_addresses_that_others_reach(host: str) -> None:
    assert not is_loopback(host)


def test_reads_hosts_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANIFEST_SERVER_ALLOWED_HOSTS", "runs.example.org, localhost")

    assert ServerSettings().allowed_hosts == ("runs.example.org", "localhost")
