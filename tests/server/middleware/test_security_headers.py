"""Every answer tells browsers to do nothing with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from manifest_server.middleware.security_headers import SecurityHeaders

Wrap = Callable[..., TestClient]


@pytest.mark.parametrize("path", ["/echo", "/nowhere"])
def test_every_answer_has_them(wrapped: Wrap, path: str) -> None:
    headers = wrapped(SecurityHeaders).put(path, headers={"Origin": "https://evil.example"}).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in headers
