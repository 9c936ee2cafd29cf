"""The access log: a line a request, with nothing in it that is secret."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from manifest_server.logs import JsonLines
from manifest_server.middleware.access_log import AccessLog

Wrap = Callable[..., TestClient]
SECRET = {"Authorization": "Bearer mft_secret", "Cookie": "mft_secret", "Referer": "mft_secret"}


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        JsonLines().format(record)
        for record in caplog.records
        if record.name == "manifest_server.access"
    ]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "manifest_server.access")
    return caplog


def test_a_request_is_one_line_without_secrets(
    wrapped: Wrap, log: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []
    client = wrapped(AccessLog, lambda _scope, status, _seconds: seen.append(status))

    client.put("/echo", params={"filter": "mft_secret"}, content=b"mft_secret", headers=SECRET)

    (line,) = lines(log)
    said = json.loads(line)
    assert (said["method"], said["path"], said["status"]) == ("PUT", "/echo", 200)
    assert (said["bytes"], said["client"], seen) == (10, "testclient", [200])
    assert "mft_secret" not in line


def test_a_path_cannot_forge_a_line(wrapped: Wrap, log: pytest.LogCaptureFixture) -> None:
    client = wrapped(AccessLog, lambda *_: None)

    client.get('/a%0A{"status": 200}%1b[31m' + "x" * 1000)

    (line,) = lines(log)
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(json.loads(line)["path"]) == 300


def test_a_fault_is_in_the_log_and_not_in_the_answer(
    wrapped: Wrap, log: pytest.LogCaptureFixture
) -> None:
    answer = wrapped(AccessLog, lambda *_: None).get("/fault")

    assert (answer.status_code, answer.json()["code"]) == (500, "internal-error")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "hunter2" not in answer.text
    fault, request = map(json.loads, lines(log))
    assert "RuntimeError" in fault["trace"]
    assert (request["status"], request["problem"]) == (500, "internal-error")
