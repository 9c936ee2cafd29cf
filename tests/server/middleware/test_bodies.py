"""Bodies are unpacked, and bounded in size and time."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zstandard
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from manifest_server.middleware import bodies
from manifest_server.middleware.bodies import Bodies
from manifest_server.problems import Problem

Wrap = Callable[..., TestClient]
Pack = Callable[[bytes], bytes]
MOST = 1000
BODY = bytes(range(250)) * 4


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def unsized_zstd(data: bytes) -> bytes:
    packing = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    return packing.compress(data) + packing.flush()


PACKED = pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("zstd", zstd), ("zstd", unsized_zstd)]
)


@pytest.fixture
def client(wrapped: Wrap) -> TestClient:
    return wrapped(Bodies, lambda _: MOST, slow_seconds=20)


def in_parts(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 7):
        yield data[start : start + 7]


@PACKED
@pytest.mark.parametrize("sent_as", [bytes, in_parts])
def test_a_packed_body_arrives_unpacked(
    client: TestClient, encoding: str, pack: Pack, sent_as: Callable[[bytes], Any]
) -> None:
    answer = client.put(
        "/echo", content=sent_as(pack(BODY)), headers={"Content-Encoding": encoding}
    )
    assert (answer.status_code, answer.content) == (200, BODY)


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "identity"}])
def test_a_plain_body_arrives_as_it_is(client: TestClient, headers: dict[str, str]) -> None:
    assert client.put("/echo", content=BODY, headers=headers).content == BODY


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "x", "gzip,zstd", "gzip;q=1"])
def test_another_packing_is_refused(client: TestClient, encoding: str) -> None:
    answer = client.put("/echo", content=b"", headers={"Content-Encoding": encoding})
    assert (answer.status_code, answer.json()["code"]) == (415, "encoding-unknown")


@PACKED
@pytest.mark.parametrize("sent_as", [bytes, in_parts])
def test_what_unpacks_to_too_much_is_refused(
    client: TestClient, encoding: str, pack: Pack, sent_as: Callable[[bytes], Any]
) -> None:
    answer = client.put(
        "/echo", content=sent_as(pack(bytes(MOST + 1))), headers={"Content-Encoding": encoding}
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")


@PACKED
def test_a_bomb_is_never_held(client: TestClient, encoding: str, pack: Pack) -> None:
    bomb = pack(bytes(2**28))
    headers = {"Content-Encoding": encoding}
    tracemalloc.start()
    try:
        # What passes the bound on what is sent, as a bomb does on a service with a real bound.
        unpacker = bodies._UNPACKERS[encoding]()
        assert MOST < len(unpacker.unpack(bomb, MOST)) <= MOST + 2**23
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()
    assert client.put("/echo", content=bomb, headers=headers).status_code == 413


@PACKED
@pytest.mark.parametrize(
    "spoil",
    [
        lambda packed: packed[:-1],
        lambda packed: packed + b"x",
        lambda packed: packed + packed,
        lambda packed: b"x" + packed,
        lambda packed: packed[:12] + b"\xff" * 8 + packed[20:],
    ],
    ids=["cut", "longer", "twice", "not", "spoilt"],
)
@pytest.mark.parametrize("sent_as", [bytes, in_parts])
def test_what_cannot_be_unpacked_is_refused(
    client: TestClient,
    encoding: str,
    pack: Pack,
    spoil: Pack,
    sent_as: Callable[[bytes], Any],
) -> None:
    body = sent_as(spoil(pack(b"some words, and others")))
    answer = client.put("/echo", content=body, headers={"Content-Encoding": encoding})
    assert (answer.status_code, answer.json()["code"]) == (400, "body-damaged")


def test_a_window_that_is_too_large_is_refused(client: TestClient) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    packing = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = packing.compress(b"x") + packing.flush()
    answer = client.put("/echo", content=body, headers={"Content-Encoding": "zstd"})
    assert (answer.status_code, answer.json()["code"]) == (400, "body-damaged")


@pytest.mark.parametrize("sent_as", [bytes, in_parts])
def test_a_body_that_is_too_large_is_refused(
    client: TestClient, sent_as: Callable[[bytes], Any]
) -> None:
    answer = client.put("/echo", content=sent_as(bytes(MOST + 1)))
    assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("length", ["-1", "1e3", "", "²", "9" * 19, "+5", "0x10"])
def test_a_length_that_is_none_is_refused(client: TestClient, length: str) -> None:
    answer = client.put("/echo", headers=[(b"Content-Length", length.encode())])
    assert (answer.status_code, answer.json()["code"]) == (400, "length-invalid")


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def read(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(Problem) as raised:
            await receive()
        assert (raised.value.status_code, raised.value.code) == (408, "body-too-slow")

    async def send(_: Message) -> None:
        raise AssertionError

    scope = {"type": "http", "path": "/", "headers": []}
    asyncio.run(Bodies(read, lambda _: MOST, slow_seconds=0.01)(scope, never, send))
