"""Requests to a service: repeated where it helps, never where it does not, and said as they are."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Iterator
from functools import partial

import httpx2
import pytest

from manifest.errors import FilterInvalid, ManifestError, RunNotFound, StoreUnusable
from manifest_client.connection import API, Client
from manifest_client.problems import AnswerUnusable, ServiceRefused, ServiceUnreachable

URL = "http://service"
Handler = Callable[[httpx2.Request], httpx2.Response]


def client(
    handler: Handler, *, token: str | None = None, paused: list[float] | None = None
) -> Client:
    pauses = paused if paused is not None else []
    http = httpx2.Client(transport=httpx2.MockTransport(handler))
    return Client(URL, token=token, http=http, pause=pauses.append)


def problem(status: int, code: str, detail: str = "so it is", **more: object) -> httpx2.Response:
    return httpx2.Response(status, json={"code": code, "detail": detail, "status": status, **more})


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(status: int) -> None:
    answers = iter([httpx2.Response(status), httpx2.Response(status), httpx2.Response(200)])
    paused: list[float] = []
    assert client(lambda _: next(answers), paused=paused).request("GET", "/x").status_code == 200
    assert len(paused) == 2


def test_pauses_grow_and_are_spread_without_any_generator_of_the_program() -> None:
    random.seed(1)
    state = random.getstate()
    runs: list[list[float]] = []
    for _ in range(3):
        runs.append([])
        with pytest.raises(ServiceUnreachable):
            client(lambda _: httpx2.Response(500), paused=runs[-1]).request("GET", "/x")
    assert random.getstate() == state
    assert len({tuple(paused) for paused in runs}) == 3
    for paused in runs:
        for number, seconds in enumerate(paused):
            assert 0.1 * 2**number <= seconds <= 0.2 * 2**number


def test_a_service_may_ask_for_a_longer_pause_but_not_for_any() -> None:
    for asked, expected in (("3", 3.0), ("100000", 15.0), ("soon", 0.2)):
        answers = iter([httpx2.Response(429, headers={"Retry-After": asked}), httpx2.Response(200)])
        paused: list[float] = []
        client(partial(_next, answers), paused=paused).request("GET", "/x")
        assert paused[0] <= expected
        assert paused[0] > expected * 0.4


def _next(answers: Iterator[httpx2.Response], _: httpx2.Request) -> httpx2.Response:
    return next(answers)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
def test_what_will_not_pass_is_said_at_once(status: int) -> None:
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return problem(status, "some-code")

    with pytest.raises(ServiceRefused, match="so it is"):
        client(answer).request("PUT", "/x", body=b"{}")
    assert len(asked) == 1


@pytest.mark.parametrize(
    "fault",
    [
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("slow"),
        httpx2.RemoteProtocolError("peer closed connection without sending complete body"),
        httpx2.ReadError("reset"),
    ],
)
def test_a_broken_connection_is_tried_again_then_named(fault: httpx2.RequestError) -> None:
    answers: list[httpx2.RequestError | None] = [fault, fault, None]

    def answer(_: httpx2.Request) -> httpx2.Response:
        found = answers.pop(0)
        if found is not None:
            raise found
        return httpx2.Response(200)

    assert client(answer).request("PUT", "/x", body=b"{}").status_code == 200
    answers[:] = [fault] * 9
    with pytest.raises(ServiceUnreachable, match="manifest sync"):
        client(answer).request("PUT", "/x", body=b"{}")
    assert len(answers) == 4


def test_the_body_is_whole_at_each_attempt() -> None:
    bodies: list[bytes] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        bodies.append(request.read())
        return httpx2.Response(200 if len(bodies) == 3 else 503)

    client(answer).request("PUT", "/x", body=lambda: iter([b"a", b"b"]))
    assert bodies == [b"ab"] * 3


def test_bodies_are_compressed_once_the_service_says_that_it_can() -> None:
    sent: list[tuple[str | None, bytes]] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append((request.headers.get("Content-Encoding"), request.read()))
        return httpx2.Response(200, headers={"Accept-Encoding": "gzip, zstd"})

    asked = client(answer)
    for body in (b"x" * 5000, b"x" * 5000, b"small"):
        asked.request("PUT", "/x", body=body)
    assert [encoding for encoding, _ in sent] == [None, "gzip", None]
    assert gzip.decompress(sent[1][1]) == b"x" * 5000


def test_a_service_that_refuses_compression_gets_plain_bodies_from_then_on() -> None:
    sent: list[str | None] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.headers.get("Content-Encoding"))
        return httpx2.Response(415 if sent[-1] else 200, headers={"X": "y"})

    asked = client(answer)
    asked._takes_gzip = True
    asked.request("PUT", "/x", body=b"x" * 5000)
    asked.request("PUT", "/x", body=b"x" * 5000)
    assert sent == ["gzip", None, None]


def test_the_token_goes_along_and_nowhere_else() -> None:
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(307, headers={"Location": "http://elsewhere/"})

    with pytest.raises(AnswerUnusable, match="elsewhere"):
        client(answer, token="mft_secret").request("GET", "/x")
    assert [str(request.url) for request in asked] == [f"{URL}/x"]
    assert asked[0].headers["Authorization"] == "Bearer mft_secret"


def test_errors_of_the_core_come_back_as_themselves() -> None:
    asked = client(lambda _: problem(404, "run-not-found"))
    with pytest.raises(RunNotFound, match="0199") as missing:
        asked.request("GET", "/x", reference="0199")
    assert (missing.value.reference, missing.value.where) == ("0199", URL)
    assert "`manifest ls --remote` lists" in str(missing.value)

    fault = {"position": 3, "expected": "value"}
    asked = client(lambda _: problem(422, "filter-invalid", errors=[fault]))
    with pytest.raises(FilterInvalid) as unread:
        asked.request("GET", f"{API}/runs", params={"filter": "a = = 5"})
    assert (unread.value.text, unread.value.position) == ("a = = 5", 3)


@pytest.mark.parametrize("code", ["store-unusable", "internal-error", "digest-mismatch"])
def test_a_fault_of_the_service_is_one_that_may_pass(code: str) -> None:
    asked = client(lambda _: problem(503, code, "the disk is full"))
    with pytest.raises(ServiceUnreachable, match="the disk is full") as fault:
        asked.request("GET", "/x")
    assert isinstance(fault.value, StoreUnusable)


@pytest.mark.parametrize("code", ["manifest-error", "__class__", "system-exit", "no-such-code"])
def test_a_code_that_is_not_known_names_no_class(code: str) -> None:
    with pytest.raises(ServiceRefused) as refused:
        client(lambda _: problem(400, code)).request("GET", "/x")
    assert refused.value.code == code


@pytest.mark.parametrize(
    "body", [b"<html>Sign in</html>", b"", b"[]", b"{}", b'{"code": 5}', b"[" * 100_000, b"\xff"]
)
def test_an_answer_of_something_else_is_named_as_such(body: bytes) -> None:
    asked = client(lambda _: httpx2.Response(400, content=body))
    with pytest.raises(AnswerUnusable, match="Is the address right"):
        asked.request("GET", "/x")
    with pytest.raises(ManifestError):
        client(lambda _: httpx2.Response(200, content=b"<html>")).json("GET", "/x")
