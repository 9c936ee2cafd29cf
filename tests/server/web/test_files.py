"""Files of a run are shown as text that does nothing, or saved; no others are to be had."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from manifest.canonical import digest_bytes
from manifest.models import Manifest
from manifest_server.sqlstore import SqlStore

PutRun = Callable[..., Manifest]
MakeManifest = Callable[..., Manifest]

SOURCE = b'import torch\n\n\nx = "</code><script>alert(1)</script>"  # \xe2\x80\xae\n'


def put_blob(client: TestClient, content: bytes) -> str:
    digest = digest_bytes(content)
    assert client.put(f"/api/v1/blobs/{digest}", content=content).status_code == 204
    return digest


def test_source_is_shown_line_by_line(client: TestClient, put_run: PutRun) -> None:
    digest = put_blob(client, SOURCE)
    run = put_run(sections={"code": {"files": {"pack/train.py": digest}}})
    address = f"/runs/{run.id}/files/{digest}?name=pack%2Ftrain.py"

    page = client.get(address).text

    assert address in html.unescape(client.get(f"/runs/{run.id}").text)
    assert "pack/train.py" in page
    assert re.findall(r'<tr id="L(\d+)"', page) == ["1", "2", "3", "4"]
    assert '<span class="kn">import</span>' in page
    assert page.count("<script") == 1
    assert "\u202e" not in page


@pytest.mark.parametrize(
    "content",
    [b"\x7fELF\0\1", b"\xff\xfe", b"a" * (2**20 + 1)],
    ids=["binary", "no text", "huge"],
)
def test_what_cannot_be_shown_can_be_saved(
    client: TestClient, put_run: PutRun, content: bytes
) -> None:
    digest = put_blob(client, content)
    name = 'we "ird\r\n/da ta.html'
    run = put_run(sections={"inputs": {name: {"size": len(content), "blob": digest}}})

    page = client.get(f"/runs/{run.id}/files/{digest}").text
    saved = client.get(f"/runs/{run.id}/files/{digest}/raw")

    assert "This is not shown here" in page
    assert saved.content == content
    assert saved.headers["content-type"] == "application/octet-stream"
    assert saved.headers["content-disposition"] == 'attachment; filename="da_ta.html"'


def test_files_that_were_read_are_shown_with_their_size(
    client: TestClient, put_run: PutRun
) -> None:
    digest = put_blob(client, b"lr: 1\n")
    facts = {"size": 123_456_789, "mtime_us": 1_700_000_000_000_000, "blob": digest}
    odd = {"size": "<b>", "mtime_us": 10**40, "blob": ["<i>"]}
    run = put_run(sections={"inputs": {"config.yaml": facts, "odd": odd, "text": "<u>"}})

    page = client.get(f"/runs/{run.id}").text

    assert "123 MB" in page
    assert "2023-11-14 22:13:20 UTC" in page
    assert re.search(r'<a href="/runs/[^"]+name=config.yaml">config.yaml</a>', page)
    assert "<b>" not in page
    assert "<i>" not in page
    assert "<u>" not in page


def test_an_address_cannot_rename_a_file(client: TestClient, put_run: PutRun) -> None:
    digest = put_blob(client, SOURCE)
    run = put_run(sections={"code": {"files": {"train.py": digest}}})

    page = client.get(f"/runs/{run.id}/files/{digest}?name=harmless.txt").text

    assert "train.py" in page
    assert "harmless.txt" not in page


def test_a_blob_that_the_run_does_not_refer_to_is_not_there(
    client: TestClient, put_run: PutRun
) -> None:
    own, other = put_blob(client, b"own"), put_blob(client, b"other")
    run = put_run(sections={"code": {"files": {"a.py": own}}})
    put_run(sections={"code": {"files": {"b.py": other}}})

    assert client.get(f"/runs/{run.id}/files/{own}").status_code == 200
    assert client.get(f"/runs/{run.id}/files/{other}").status_code == 404
    assert client.get(f"/runs/{run.id}/files/{other}/raw").status_code == 404


def test_a_file_of_another_project_is_not_there(
    limited: Callable[..., tuple[TestClient, SqlStore]], make_manifest: MakeManifest
) -> None:
    client, store = limited(auth="tokens")
    digest = store.blobs.put(SOURCE)
    code = {"code": {"files": {"train.py": digest}}}
    own, other = (make_manifest(project=name, sections=code) for name in ("own", "other"))
    store.put_runs([(own, None), (other, None)])
    _, secret = store.create_token(name="reader", scopes=["read"], project="own")
    client.cookies.set("manifest_token", secret)

    assert client.get(f"/runs/{own.id}/files/{digest}").status_code == 200
    assert client.get(f"/runs/{other.id}/files/{digest}").status_code == 404
    assert client.get(f"/runs/{other.id}/files/{digest}/raw").status_code == 404


def test_a_file_whose_bytes_were_never_sent_is_named_without_a_link(
    client: TestClient, put_run: PutRun
) -> None:
    run = put_run(sections={"code": {"files": {"train.py": digest_bytes(b"elsewhere")}}})

    page = client.get(f"/runs/{run.id}").text

    assert "train.py" in page
    assert "/files/" not in page


def test_the_uncommitted_change_is_shown_as_one(client: TestClient, put_run: PutRun) -> None:
    patch = b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-<b>lr = 1\n+lr = 2\n"
    digest = put_blob(client, patch)
    run = put_run(sections={"code": {"git.patch": digest}})

    for address in (f"/runs/{run.id}", f"/runs/{run.id}/files/{digest}"):
        page = client.get(address).text
        assert "&lt;b&gt;lr = 1" in page
        assert 'class="removed"' in page
        assert 'class="added"' in page
