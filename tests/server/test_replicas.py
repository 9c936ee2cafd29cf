"""Two services on one PostgreSQL, as they stand behind a load balancer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from manifest.models import Manifest

MakeManifest = Callable[..., Manifest]
Serving = Any  # the class is that of the fixture


@pytest.fixture
def replicas(
    postgresql_url: str, tmp_path: Path, serve: Callable[..., Serving]
) -> Iterator[tuple[list[Serving], list[str]]]:
    """Both are started at once, on a database without any table."""
    services = [serve(tmp_path, postgresql_url) for _ in range(2)]
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        urls = list(pool.map(stack.enter_context, services))
        yield services, urls


def put(url: str, manifest: Manifest) -> int:
    body = manifest.model_dump_json(by_alias=True, exclude_unset=True)
    return httpx2.put(f"{url}/api/v1/runs/{manifest.id}", content=body, timeout=30).status_code


def ids(url: str) -> list[str]:
    found = httpx2.get(f"{url}/api/v1/runs", params={"limit": 500}, timeout=30).json()
    return [run["id"] for run in found["runs"]]


def test_what_either_takes_both_have_and_once(
    replicas: tuple[list[Serving], list[str]], make_manifest: MakeManifest
) -> None:
    _, urls = replicas
    runs = [make_manifest() for _ in range(60)]
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(put, urls * 60, [run for run in runs for _ in urls]))
    assert set(told) == {200}
    newest_first = sorted((run.id for run in runs), reverse=True)
    assert [ids(url) for url in urls] == [newest_first, newest_first]


def test_one_that_dies_takes_nothing_with_it_that_was_acknowledged(
    replicas: tuple[list[Serving], list[str]], make_manifest: MakeManifest
) -> None:
    (first, _), urls = replicas
    runs = [make_manifest() for _ in range(60)]

    def put_somewhere(number: int) -> str:
        if number == 20:
            first.kill()
        try:
            assert put(urls[0], runs[number]) == 200
        except httpx2.TransportError:  # as a load balancer would notice it
            assert put(urls[1], runs[number]) == 200
        return runs[number].id

    with ThreadPoolExecutor(8) as pool:
        kept = set(pool.map(put_somewhere, range(60)))
    assert set(ids(urls[1])) == kept == {run.id for run in runs}
