"""The page of one run says what came of it, and shows all that was recorded, harmless."""

from __future__ import annotations

import html
import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from manifest import states
from manifest.catalogue import lookup
from manifest.describing import as_sentence
from manifest.models import Manifest
from manifest_server.sqlstore import SqlStore

PutRun = Callable[..., Manifest]
MakeManifest = Callable[..., Manifest]

EVIL = "<script>alert(1)</script>'\"`&\u202e\x1b[31m{{7*7}}"
SEEDS: dict[str, Any] = {"entropy": "ab" * 32, "hash_seed": "7"}


def page_of(client: TestClient, run: Manifest, status: int = 200) -> str:
    answer = client.get(f"/runs/{run.id}", headers={"accept": "text/html"})
    assert answer.status_code == status
    return html.unescape(answer.text)


def test_says_what_came_of_the_run(client: TestClient, put_run: PutRun) -> None:
    run = put_run(
        name="first",
        status="failed",
        exit_code=2,
        error="ValueError: no",
        ended_at="2025-01-31T08:01:05.123456Z",
        sections={"hardware": {"gpu.0.name": "H100", "cpu.model": "EPYC", "cpu.count": 8}},
    )

    page = page_of(client, run)

    for said in ("first", "failed", "Exit code 2", "ValueError: no", "1 min 5 s", "36 steps"):
        assert said in page
    assert "H100 · EPYC · 8 processors" in page
    assert "python train.py --name 'two words'" in page
    assert f'data-copy="manifest replay {run.id[:13]}"' in page
    assert "No repository." in page


def test_a_shortened_id_leads_to_the_run(client: TestClient, put_run: PutRun) -> None:
    run = put_run()

    answer = client.get(f"/runs/{run.id[:18]}", follow_redirects=False)

    assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{run.id}")


@pytest.mark.parametrize("name", ["01990000-0000-7000-8000-000000000001", "0199", "nothing", "%00"])
def test_there_is_no_such_run(client: TestClient, name: str) -> None:
    assert client.get(f"/runs/{name}", headers={"accept": "text/html"}).status_code == 404


def test_a_replay_leads_to_its_original_and_says_its_verdict(
    client: TestClient, put_run: PutRun
) -> None:
    original = put_run()
    replay = put_run(replay_of=original.id, outcome="diverged")

    page = page_of(client, replay)

    assert "Diverged" in page
    assert "It was diverged." in page
    assert f'href="/compare?ids={original.id},{replay.id}"' in page


def test_leads_to_the_run_before_in_its_project(client: TestClient, put_run: PutRun) -> None:
    before, _, run = put_run(), put_run(project="other"), put_run()

    assert f"/runs/{run.id}/before" in page_of(client, run)
    assert "Compare with the one before" not in page_of(client, before)


def test_a_setting_says_what_another_value_could_do(client: TestClient, put_run: PutRun) -> None:
    run = put_run(sections={"settings": {"torch.num_threads": 4, "unheard.of": 1}})
    page = page_of(client, run)
    badges = re.findall(r'<dd class="weighs"><span class="impact (\w+)" title="([^>]+)">', page)
    setting = lookup("settings", "torch.num_threads")
    assert setting is not None
    ((impact, said),) = badges
    assert impact == setting.impact
    assert said.endswith(as_sentence(setting.reason))
    (unknown,) = re.findall(r"<dt>unheard\.of</dt>.*?</div>", page, flags=re.DOTALL)
    assert "impact" not in unknown


def test_a_generator_says_its_engine_and_how_far_it_is(client: TestClient, put_run: PutRun) -> None:
    generator = random.Random(3)
    generator.random()
    state = states.encoded(states.python_state(generator))
    run = put_run(sections={"generators": {"python": {"kind": "python", "state": state}}})
    page = page_of(client, run)
    assert "Mersenne Twister, 2 of 624 words drawn" in page
    assert "2509 bytes, sha256:" in page


def test_names_what_makes_it_hard_to_repeat(client: TestClient, put_run: PutRun) -> None:
    settings = {"torch.deterministic.mode": 0, "torch.num_threads": 8}
    drawn = {**SEEDS, "os_entropy_uses": {"train.py:3": 1}}
    command = {"argv": ["python", "train.py"], "root": "/work", "kind": "notebook"}
    restores = [{"what": "torch.num_threads", "outcome": "failed", "reason": "it was refused"}]
    run = put_run(
        sections={"settings": settings, "seeds": drawn, "command": command}, restores=restores
    )

    page = page_of(client, run)

    assert "it was recorded in a notebook" in page.lower()
    assert "train.py:3 drew from the operating system" in page
    assert "8 threads computed" in page
    assert "<code>torch.use_deterministic_algorithms(True)</code>" in page
    assert "It was refused." in page


def test_orders_sections_and_keys_as_people_read_them(client: TestClient, put_run: PutRun) -> None:
    settings = {"a": {"$absent": True}, "b": 1, "torch.num_threads": 8}
    page = page_of(client, put_run(sections={"settings": settings, "seeds": SEEDS}))

    in_order = ("<strong>command<", "<strong>settings<", "<strong>seeds<", "<strong>packages<")
    places = [page.index(each) for each in in_order]
    assert places == sorted(places)
    keys = [page.index(f"<dt>{key}</dt>") for key in ("torch.num_threads", "b", "a")]
    assert keys == sorted(keys)


def test_leads_to_where_the_run_is_kept_elsewhere(client: TestClient, put_run: PutRun) -> None:
    links = {
        "mlflow.url": "https://tracker.example/#/experiments/7",
        "wandb.url": "javascript:alert(1)",
    }
    run = put_run(sections={"links": links})
    page = client.get(f"/runs/{run.id}").text
    assert '<a href="https://tracker.example/#/experiments/7" rel="noreferrer">' in page
    assert 'href="javascript' not in page
    assert "javascript:alert(1)" in page


def test_shows_what_other_ranks_have_otherwise(client: TestClient, put_run: PutRun) -> None:
    def rank(number: int, threads: int) -> dict[str, Any]:
        trail = {"steps": 5 + number, "streams": ["loss"], "algorithm": "xxh3"}
        sections = {"settings": {"torch.num_threads": threads}}
        return {"rank": number, "pid": 70 + number, "trail": trail, "sections": sections}

    processes = {"main.x0": rank(0, 4), "main.x1": rank(1, 4), "main.x2": rank(2, 3)}
    page = page_of(client, put_run(processes=processes))

    assert "3 ranks" in page
    assert page.count("settings torch.num_threads") == 1


def test_a_run_that_goes_on_is_shown_as_far_as_it_is_known(
    client: TestClient, put_run: PutRun
) -> None:
    page = page_of(client, put_run(is_sealed=False, exit_code=None, processes={}, notes=[]))

    assert "data-refresh" in page
    assert "hard to repeat" not in page


@pytest.mark.parametrize(
    "value",
    [
        EVIL,
        [EVIL],
        {EVIL: EVIL},
        {"$repr": EVIL},
        {"$failed": EVIL},
        {"a": {EVIL: [EVIL]}},
        EVIL * 40,
    ],
    ids=["text", "list", "map", "repr", "failed", "nested", "long"],
)
def test_everything_is_harmless(client: TestClient, put_run: PutRun, value: object) -> None:
    trail = {"steps": 1, "streams": [EVIL], "algorithm": EVIL}
    names = ("config", "settings", "seeds", "generators", "loaders", "packages", "inputs", "code")
    run = put_run(
        name=EVIL.replace("\x1b", ""),
        project="evil <i>",
        status="crashed",
        exit_signal=EVIL,
        error=EVIL,
        sections={
            **{name: {EVIL: value, "files": value} for name in names},
            "hardware": {"gpu.0.name": EVIL, "cpu.model": EVIL},
            "command": {"argv": [EVIL, {"$redacted": EVIL}]},
            EVIL: {EVIL: value},
        },
        processes={"main": {"trail": trail, "pid": 1}, EVIL: {"trail": trail, "rank": 1}},
        notes=[{"where": EVIL, "what": EVIL}],
        restores=[{"what": EVIL, "outcome": "failed", "reason": EVIL, "process": EVIL}],
    )
    put_run(replay_of=run.id, outcome="identical", sections={"hardware": {"cpu.model": EVIL}})

    answer = client.get(f"/runs/{run.id}")

    assert answer.status_code == 200
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert answer.text.count("<script") == 1  # that of the pages
    assert "<i>" not in answer.text
    assert "\u202e" not in answer.text
    assert "\x1b" not in answer.text
    assert "{{7*7}}" in answer.text
    assert "style=" not in answer.text


def test_the_manifest_itself(client: TestClient, put_run: PutRun) -> None:
    run = put_run()

    answer = client.get(f"/runs/{run.id}/manifest.json")

    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.content)["digest"] == run.digest


@pytest.mark.parametrize("part", ["", "/manifest.json", "/badge.svg"])
def test_a_run_of_another_project_is_not_known(
    limited: Callable[..., tuple[TestClient, SqlStore]], make_manifest: MakeManifest, part: str
) -> None:
    client, store = limited(auth="tokens")
    own, other = make_manifest(project="own"), make_manifest(project="other")
    replay = make_manifest(project="other", replay_of=own.id)
    for run in (own, other, replay):
        store.put_run(run)
    _, secret = store.create_token(name="reader", scopes=["read"], project="own")
    client.cookies.set("manifest_token", secret)

    assert client.get(f"/runs/{own.id}{part}").status_code == 200
    assert client.get(f"/runs/{other.id}{part}").status_code == 404
    assert client.get(f"/runs/{other.id[:20]}").status_code == 404
    assert replay.id not in client.get(f"/runs/{own.id}").text


def test_whoever_may_only_read_is_shown_no_form(
    limited: Callable[..., tuple[TestClient, SqlStore]], make_manifest: MakeManifest
) -> None:
    client, store = limited(auth="tokens")
    run = make_manifest()
    store.put_run(run)
    _, secret = store.create_token(name="reader", scopes=["read"])
    client.cookies.set("manifest_token", secret)

    assert "<textarea" not in client.get(f"/runs/{run.id}").text
    assert client.post(f"/runs/{run.id}/annotations", data={"version": "0"}).status_code == 403


def test_of_a_run_that_was_killed_the_last_sign_is_said(
    client: TestClient, put_run: PutRun
) -> None:
    page = page_of(client, put_run(status="crashed", ended_at="2025-01-31T08:01:05.123456Z"))

    assert "Ended without a word" in page
    assert "Last heard of after 1 min 5 s" in page
    assert "Took" not in page


def test_only_what_can_be_replayed_has_a_badge(client: TestClient, put_run: PutRun) -> None:
    original = put_run()
    replay = put_run(replay_of=original.id, outcome="identical")
    running = put_run(is_sealed=False, exit_code=None, processes={})

    assert "badge.svg" in page_of(client, original)
    assert "badge.svg" not in page_of(client, replay)
    assert "badge.svg" not in page_of(client, running)


def test_what_is_not_there_is_said_in_a_sentence(client: TestClient) -> None:
    def main_of(path: str) -> str:
        text = client.get(path, headers={"accept": "text/html"}).text
        return html.unescape(text[text.index("<main") :])

    assert "<p>There is nothing at this address.</p>" in main_of("/nowhere")
    assert "<p>No run '0199' in the service. <code>manifest ls</code>" in main_of("/runs/0199")
