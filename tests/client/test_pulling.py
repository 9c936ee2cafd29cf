"""What a service sends is checked before it is a run, and nothing of it leaves its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from manifest.canonical import canonical_bytes, digest_bytes
from manifest.errors import DamagedRun, DigestMismatch, ManifestError
from manifest.rundir import RunDirectory
from manifest.sealing import seal_document
from manifest_client.connection import API, Client
from manifest_client.problems import AnswerUnusable
from manifest_client.pulling import pull

ID = "01990000-0000-7000-8000-000000000001"
URL = "http://service"
Answers = dict[str, bytes]


@pytest.fixture
def golden(tmp_path: Path, checkout: Path) -> RunDirectory:
    """A run that a released version wrote, with blobs and a trail."""
    path = tmp_path / "there" / ID
    shutil.copytree(checkout / "tests/manifest/golden/schema-1" / ID, path)
    return RunDirectory(path)


@pytest.fixture
def answers(golden: RunDirectory) -> Answers:
    """What an honest service answers, by path."""
    found = {
        f"/runs/{ID}": (golden.path / "manifest.json").read_bytes(),
        f"/runs/{ID}/trails/main": golden.trail_path("main").read_bytes(),
    }
    files = {}
    for suffix in ("tensors", "final"):
        data = (golden.path / "trail" / f"main.{suffix}").read_bytes()
        found[f"/runs/{ID}/trails/main/files/{suffix}"] = data
        files[suffix] = digest_bytes(data)
    steps = golden.document()["processes"]["main"]["trail"]["steps"]
    found[f"/runs/{ID}/trails"] = canonical_bytes(
        [{"process": "main", "steps": steps, "files": files}]
    )
    for path in golden.path.glob("blobs/*/*"):
        found[f"/blobs/sha256:{path.name}"] = path.read_bytes()
    return found


@pytest.fixture
def client(answers: Answers) -> Client:
    def answer(request: httpx2.Request) -> httpx2.Response:
        content = answers.get(request.url.path.removeprefix(API))
        if content is None:
            missing = {"code": "run-not-found", "detail": "no"}
            return httpx2.Response(404, json=missing)
        return httpx2.Response(200, content=content)

    return Client(URL, http=httpx2.Client(transport=httpx2.MockTransport(answer)))


def resealed(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A manifest that was changed by someone who can seal."""
    document = json.loads(data)
    change(document)
    del document["digest"]
    seal_document(document)
    return canonical_bytes(document)


def test_an_honest_answer_becomes_a_run(client: Client, base: Path, golden: RunDirectory) -> None:
    run = pull(ID, client, base)
    assert run.document() == golden.document()
    assert run.sender() == f"someone who sent it to {URL}"
    assert golden.sender() is None
    assert {path.name for path in base.iterdir()} == {".gitignore", "salt", "runs"}


@pytest.mark.parametrize(
    ("path", "old", "new", "error"),
    [
        (f"/runs/{ID}", b'"status":"finished"', b'"status":"crashed"', DamagedRun),
        (f"/runs/{ID}", b'"mode":', b'"modus":', AnswerUnusable),
        (f"/runs/{ID}/trails/main/files/final", b"{", b"{ ", DigestMismatch),
        (f"/runs/{ID}/trails", b'"main"', b'"../main"', AnswerUnusable),
        (f"/runs/{ID}/trails", b'"main"', b'"/etc/main"', AnswerUnusable),
        (f"/runs/{ID}/trails", b'"final"', b'"bin"', AnswerUnusable),
        (f"/runs/{ID}/trails", b'"final"', b'"../x"', AnswerUnusable),
        (f"/runs/{ID}/trails", b'"steps":', b'"steps":1', DamagedRun),
        (f"/runs/{ID}/trails", b"[", b"{", AnswerUnusable),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    client: Client,
    answers: Answers,
    base: Path,
    path: str,
    old: bytes,
    new: bytes,
    error: type[ManifestError],
) -> None:
    assert old in answers[path]
    answers[path] = answers[path].replace(old, new, 1)
    with pytest.raises(error):
        pull(ID, client, base)
    assert list(base.glob("runs/*")) == []
    assert list(base.glob(".arriving*")) == []


def test_other_bytes_under_the_digest_of_a_blob_are_refused(
    client: Client, answers: Answers, base: Path
) -> None:
    (blob,) = [path for path in answers if path.startswith("/blobs/")]
    answers[blob] = b"evil"
    with pytest.raises(DigestMismatch):
        pull(ID, client, base)
    assert list(base.glob("runs/*")) == []


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("seeds", "entropy", "no hex"),
        ("seeds", "entropy", None),
        ("command", "root", "../relative"),
        ("command", "root", 5),
    ],
)
def test_a_run_that_does_not_say_how_it_began_is_refused(
    client: Client, answers: Answers, base: Path, section: str, key: str, value: object
) -> None:
    def change(document: dict[str, Any]) -> None:
        document["sections"][section][key] = value

    answers[f"/runs/{ID}"] = resealed(answers[f"/runs/{ID}"], change)
    with pytest.raises(DamagedRun, match="does not say"):
        pull(ID, client, base)
    assert list(base.glob("runs/*")) == []


def test_another_run_than_the_one_that_was_asked_for_is_refused(
    client: Client, answers: Answers, base: Path
) -> None:
    other = ID[:-1] + "2"
    answers[f"/runs/{other}"] = answers[f"/runs/{ID}"]
    with pytest.raises(AnswerUnusable, match="asked for"):
        pull(other, client, base)


def test_what_is_here_already_is_not_fetched(client: Client, base: Path) -> None:
    pull(ID, client, base)
    client.close()
    assert pull(ID, client, base).id == ID


def test_a_run_that_goes_on_is_not_fetched(client: Client, answers: Answers, base: Path) -> None:
    document = json.loads(answers[f"/runs/{ID}"])
    del document["digest"], document["digests"]
    answers[f"/runs/{ID}"] = canonical_bytes({**document, "status": "running"})
    with pytest.raises(DamagedRun, match="it goes on"):
        pull(ID, client, base)
