"""What the replays of a run showed, in a line and in a picture."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest
from starlette.testclient import TestClient

from manifest.models import Manifest

PutRun = Callable[..., Manifest]


def badge_of(client: TestClient, run: Manifest) -> str:
    answer = client.get(f"/runs/{run.id}/badge.svg")
    assert answer.headers["content-type"].startswith("image/svg+xml")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    label: str = ET.fromstring(answer.content).attrib["aria-label"]
    return label.removeprefix("Manifest: ")


def on(processor: str) -> dict[str, dict[str, str]]:
    return {"hardware": {"cpu.model": processor, "os.kernel": f"6.1 on {processor}"}}


@pytest.mark.parametrize(
    ("outcomes", "words"),
    [
        ([], "not replayed yet"),
        (["not replayable"], "not replayed yet"),
        (["identical"], "replayed bit for bit 1×"),
        (["identical"] * 3, "replayed bit for bit 3×"),
        (["identical", "diverged"], "diverged"),
    ],
)
def test_the_badge(client: TestClient, put_run: PutRun, outcomes: list[str], words: str) -> None:
    run = put_run()
    for outcome in outcomes:
        put_run(replay_of=run.id, outcome=outcome, sections=on("EPYC"))

    assert badge_of(client, run) == words


def test_machines_are_counted_where_they_differ(client: TestClient, put_run: PutRun) -> None:
    run = put_run()
    for processor in ("EPYC", "Xeon", "EPYC"):
        put_run(replay_of=run.id, outcome="identical", sections=on(processor))
    put_run(replay_of=run.id, outcome="diverged", sections=on("ARM"))

    page = html.unescape(client.get(f"/runs/{run.id}").text)

    assert "Replayed bit for bit 3 times on 2 machines; diverged once." in page
    (machines,) = re.findall(r'<ul class="machines".*?</ul>', page, flags=re.DOTALL)
    lines = [" ".join(re.sub(r"<[^>]+>", " ", li).split()) for li in machines.split("</li>")]
    assert lines[:-1] == ["EPYC: identical 2×", "ARM: diverged 1×", "Xeon: identical 1×"]


def test_what_was_changed_on_purpose_speaks_neither_for_nor_against(
    client: TestClient, put_run: PutRun
) -> None:
    run = put_run()
    replay = put_run(replay_of=run.id)
    verdict = {
        "outcome": "diverged",
        "original": run.id,
        "replay": replay.id,
        "sentence": "they differ",
        "changed": ["torch.num_threads=1"],
    }
    client.put(f"/api/v1/runs/{replay.id}/verdict", json=verdict)

    assert badge_of(client, run) == "not replayed yet"
    page = client.get(f"/runs/{run.id}").text
    assert "torch.num_threads=1" in page
    assert "Replayed only with something changed on purpose." in page
    assert 'class="machines"' not in page


def test_the_newest_replay_is_the_first(client: TestClient, put_run: PutRun) -> None:
    run = put_run()
    replays = [put_run(replay_of=run.id, outcome="identical") for _ in range(3)]

    page = client.get(f"/runs/{run.id}").text

    shown = re.findall(r'<td class="id"><a href="/runs/([0-9a-f-]+)"', page)
    assert shown == [replay.id for replay in reversed(replays)]
    assert f"[![replayed bit for bit 3×](http://localhost/runs/{run.id}/badge.svg)]" in page
