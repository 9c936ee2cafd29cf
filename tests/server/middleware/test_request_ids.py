"""Request ids: taken over where harmless, made otherwise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from manifest_server.middleware.request_ids import RequestIds

Wrap = Callable[..., TestClient]


def test_takes_over_the_id_that_a_client_gives(wrapped: Wrap) -> None:
    answer = wrapped(RequestIds).put("/echo", headers={"X-Request-Id": "job-7.a"})
    assert answer.headers.get_list("x-request-id") == ["job-7.a"]


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, '"};drop', "é", "a\tb"])
def test_makes_an_id_instead_of_one_that_could_harm(wrapped: Wrap, given: str) -> None:
    client = wrapped(RequestIds)
    found = {
        client.put("/echo", headers=[(b"X-Request-Id", given.encode())]).headers["x-request-id"]
        for _ in range(2)
    }
    assert len(found) == 2
    assert all(len(each) == 24 for each in found)
