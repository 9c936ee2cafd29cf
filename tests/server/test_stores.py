"""What every store does, shown on SQLite, on PostgreSQL and on a service."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from manifest.canonical import plain
from manifest.errors import DamagedRun, DigestMismatch, RunNotFound
from manifest.identity import new_run_id
from manifest.models import Difference, Manifest, Verdict
from manifest.stores import Store
from manifest_client.connection import Client
from manifest_client.httpstore import HttpStore
from manifest_migrations.upgrade import open_store
from manifest_server.app import create_app
from manifest_server.database import sqlite_url
from manifest_server.settings import ServerSettings
from manifest_server.sqlstore import SqlStore

MakeManifest = Callable[..., Manifest]

WRITER = """
import sys
from manifest.models import Manifest
from manifest_migrations.upgrade import open_store
with open_store(sys.argv[1]) as store:
    for line in sys.stdin:
        store.put_run(Manifest.model_validate_json(line))
        print("put", flush=True)
"""


@pytest.fixture(params=["sqlite", "postgresql", "service"])
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of store in turn."""
    name: str = request.param
    return name


@pytest.fixture
def store_url(kind: str, request: pytest.FixtureRequest) -> str:
    """The address of an empty store; a service has one, too."""
    database = "postgresql" if kind == "postgresql" else "sqlite"
    url: str = request.getfixturevalue(f"{database}_store_url")
    return url


@pytest.fixture
def store(kind: str, store_url: str) -> Iterator[Store]:
    """An empty store of each kind."""
    with SqlStore.open(store_url) as opened:
        if kind != "service":
            yield opened
            return
    app = create_app(ServerSettings(database_url=store_url))
    with TestClient(app, base_url="http://localhost") as http:
        yield HttpStore(Client("http://localhost", http=http))


def test_both_keep_the_protocol(tmp_path: Path) -> None:
    kept: list[Store] = [HttpStore(Client("http://localhost"))]
    with open_store(sqlite_url(tmp_path / "store.db")) as opened:
        kept.append(opened)
        assert opened.list_runs() == []


def test_a_run_comes_back_exactly(store: Store, make_manifest: MakeManifest) -> None:
    manifest = make_manifest(
        name="first",
        status="failed",
        error="ValueError: no",
        sections={"config": {"lr": 0.1, "tiny": 5e-324, "big": 2**53, "none": None}},
    )
    store.put_run(manifest)
    assert store.get_run(manifest.id) == manifest


def test_a_run_that_goes_on_comes_back_exactly(store: Store, make_manifest: MakeManifest) -> None:
    manifest = make_manifest(is_sealed=False)
    store.put_run(manifest)
    assert store.get_run(manifest.id) == manifest
    assert store.digests([manifest.id]) == {manifest.id: ""}


def test_a_list_says_what_the_run_says(store: Store, make_manifest: MakeManifest) -> None:
    manifest = make_manifest(name="first", ended_at="2025-01-31T08:01:00Z")
    store.put_run(manifest)
    (summary,) = store.list_runs()
    assert summary.model_dump() == {
        "id": manifest.id,
        "project": "digits",
        "name": "first",
        "status": "finished",
        "started_at": "2025-01-31T08:00:00.123456Z",
        "ended_at": "2025-01-31T08:01:00.000000Z",
        "command": "python train.py --name 'two words'",
        "steps": 36,
        "replay_of": None,
        "outcome": None,
    }


def test_a_hidden_argument_is_shown_as_hidden(store: Store, make_manifest: MakeManifest) -> None:
    argv = ["python", "train.py", "--token", {"$redacted": "a1b2"}]
    store.put_run(make_manifest(sections={"command": {"argv": argv}}))
    assert store.list_runs()[0].command == "python train.py --token REDACTED"


def test_a_run_that_nobody_kept_is_not_found(store: Store) -> None:
    with pytest.raises(RunNotFound, match="no run '"):
        store.get_run(new_run_id())
    with pytest.raises(RunNotFound):
        store.get_run("not an id")
    with pytest.raises(RunNotFound):
        store.list_runs(before="not an id")
    assert store.get_verdict(new_run_id()) is None
    assert store.get_verdict("not an id") is None
    assert store.list_replays("not an id") == []
    assert store.digests(["not an id", new_run_id()]) == {}


def test_sections_of_different_names_may_be_equal(
    store: Store, make_manifest: MakeManifest
) -> None:
    manifest = make_manifest(sections={"environment": {}, "hardware": {}, "loaders": {}})
    store.put_run(manifest)

    assert store.get_run(manifest.id) == manifest


def test_the_newest_runs_come_first_page_by_page(store: Store, make_manifest: MakeManifest) -> None:
    ids = sorted((new_run_id() for _ in range(25)), reverse=True)
    store.put_runs((make_manifest(id=run_id), None) for run_id in reversed(ids))
    pages: list[str] = []
    before: str | None = None
    while page := store.list_runs(limit=10, before=before):
        pages += [summary.id for summary in page]
        before = pages[-1]
    assert pages == ids


def test_a_page_is_not_moved_by_a_run_that_comes_between(
    store: Store, make_manifest: MakeManifest
) -> None:
    ids = sorted(new_run_id() for _ in range(5))
    store.put_runs((make_manifest(id=run_id), None) for run_id in ids[:4])
    first = store.list_runs(limit=2)
    store.put_run(make_manifest(id=ids[4]))
    second = store.list_runs(limit=2, before=first[-1].id)
    assert [summary.id for summary in second] == [ids[1], ids[0]]


def test_runs_are_listed_by_project_and_status(store: Store, make_manifest: MakeManifest) -> None:
    wanted = make_manifest(project="a", status="crashed")
    store.put_run(wanted)
    store.put_run(make_manifest(project="a", status="failed"))
    store.put_run(make_manifest(project="b", status="crashed"))
    assert len(store.list_runs(project="a")) == 2
    assert len(store.list_runs(status="crashed")) == 2
    assert [run.id for run in store.list_runs(project="a", status="crashed")] == [wanted.id]
    assert store.list_runs(project="A") == []


def test_a_run_is_found_by_the_start_of_its_id(store: Store, make_manifest: MakeManifest) -> None:
    run_id = "0190f3a2-7c41-7abc-8def-0123456789ab"
    store.put_run(make_manifest(id=run_id))
    store.put_run(make_manifest(id="0190f3a2-7c42-7abc-8def-0123456789ab"))
    for prefix in ("0190f3a2-7c41", "0190f3a27c41", "0190F3A2-7C41-7", run_id, "0190f3a2-7c41-"):
        assert [summary.id for summary in store.find_runs(prefix)] == [run_id], prefix


def test_an_ambiguous_prefix_lists_its_runs_newest_first(
    store: Store, make_manifest: MakeManifest
) -> None:
    ids = [f"0190f3a2-7c4{digit}-7abc-8def-0123456789ab" for digit in "fedc0"]
    store.put_runs((make_manifest(id=run_id), None) for run_id in sorted(ids))
    assert [summary.id for summary in store.find_runs("0190f3a27c4")] == ids
    assert [summary.id for summary in store.find_runs("0190f3a27c4", limit=2)] == ids[:2]
    assert len(store.find_runs("")) == 5


@pytest.mark.parametrize("prefix", ["0190x", "%", "0190_", "0" * 33, "0190\0", "'; --", "٣"])
def test_what_is_no_prefix_of_an_id_finds_nothing(
    store: Store, make_manifest: MakeManifest, prefix: str
) -> None:
    store.put_run(make_manifest())
    assert store.find_runs(prefix) == []


def test_replays_of_a_run_are_listed_with_their_verdicts(
    store: Store, make_manifest: MakeManifest
) -> None:
    original = make_manifest()
    replays = [make_manifest(replay_of=original.id) for _ in range(2)]
    store.put_run(original)
    store.put_run(replays[0], verdict_on(original, replays[0], "diverged"))
    store.put_run(replays[1])
    listed = {run.id: run.outcome for run in store.list_replays(original.id)}
    assert listed == {replays[0].id: "diverged", replays[1].id: None}
    assert store.list_replays(replays[0].id) == []


def test_a_verdict_comes_back_exactly_and_alone_can_be_added_to_a_sealed_run(
    store: Store, make_manifest: MakeManifest
) -> None:
    original, replay = make_manifest(), make_manifest()
    store.put_run(replay)
    assert store.get_verdict(replay.id) is None
    for outcome in ("diverged", "identical"):
        verdict = verdict_on(original, replay, outcome)
        store.put_run(replay, verdict)
        store.put_run(replay)
        assert store.get_verdict(replay.id) == verdict
        assert store.list_runs()[0].outcome == outcome
    assert store.get_run(replay.id) == replay


def test_a_verdict_stays_when_its_run_is_sealed(store: Store, make_manifest: MakeManifest) -> None:
    running = make_manifest(is_sealed=False)
    sealed = make_manifest(id=running.id)
    verdict = verdict_on(make_manifest(), sealed, "identical")
    store.put_run(running, verdict)
    store.put_run(sealed)
    assert store.get_verdict(sealed.id) == verdict


def test_the_same_run_can_be_put_any_number_of_times(
    store: Store, make_manifest: MakeManifest
) -> None:
    manifest = make_manifest()
    store.put_runs([(manifest, None), (manifest, None)])
    store.put_run(manifest)
    assert len(store.list_runs()) == 1
    assert store.digests([manifest.id]) == {manifest.id: manifest.digest}


def test_a_sealed_run_is_never_replaced_by_another(
    store: Store, make_manifest: MakeManifest
) -> None:
    manifest, innocent = make_manifest(), make_manifest()
    store.put_run(manifest)
    other = make_manifest(id=manifest.id, project="other")
    with pytest.raises(DigestMismatch, match=manifest.id):
        store.put_runs([(innocent, None), (other, None)])
    assert store.get_run(manifest.id) == manifest
    assert store.digests([innocent.id]) == {}


def test_one_id_with_two_digests_is_refused_within_one_put(
    store: Store, make_manifest: MakeManifest
) -> None:
    manifest = make_manifest()
    other = make_manifest(id=manifest.id, project="other")
    with pytest.raises(DigestMismatch):
        store.put_runs([(manifest, None), (other, None)])
    assert store.list_runs() == []


def test_a_run_that_goes_on_is_replaced_until_it_is_sealed(
    store: Store, make_manifest: MakeManifest
) -> None:
    early = make_manifest(is_sealed=False)
    later = make_manifest(is_sealed=False, id=early.id, sections={"config": {"lr": 0.1}})
    sealed = make_manifest(id=early.id)
    for manifest in (early, later, sealed):
        store.put_run(manifest)
        assert store.get_run(early.id) == manifest
        assert store.list_runs()[0].status == manifest.status
    store.put_run(later)  # by someone who looked before it was sealed
    assert store.get_run(early.id) == sealed


def test_nothing_is_put_when_there_is_nothing(store: Store) -> None:
    store.put_runs([])
    assert store.list_runs() == []


HOSTILE = ["nul \0 nul", "\ud800 alone", "'; DROP TABLE runs; --", '"quoted"', "{{7*7}}", "漢字🙂"]


@pytest.mark.parametrize("text", [*HOSTILE, "x" * 1_000_000, ""])
def test_any_text_can_be_kept_listed_and_searched_for(
    store: Store, make_manifest: MakeManifest, text: str
) -> None:
    text = plain(text)
    manifest = make_manifest(
        project=text,
        name=text,
        error=text,
        sections={
            "command": {"argv": ["python", text]},
            "config": {text: text},
            "packages": {text: text},
            text: {"key": text},
        },
        processes={text: {"sections": {text: {"key": text}, "settings": {"key": text}}}},
    )
    store.put_run(manifest)
    assert store.get_run(manifest.id) == manifest
    assert [run.id for run in store.list_runs(project=text)] == [manifest.id]
    assert store.list_runs(project=text + "?", status="finished") == [] or len(text) > 200


def test_a_list_stays_small_beside_a_run_of_a_long_command(
    store: Store, make_manifest: MakeManifest
) -> None:
    store.put_run(make_manifest(sections={"command": {"argv": ["x" * 1_000_000]}}))
    assert len(store.list_runs()[0].model_dump_json()) < 4_000


def test_a_step_count_beyond_the_database_does_not_stop_the_run(
    store: Store, make_manifest: MakeManifest
) -> None:
    trail = {"steps": 2**70, "streams": [], "algorithm": "xxh3"}
    manifest = make_manifest(processes={"main": {"trail": trail}})
    store.put_run(manifest)
    assert store.get_run(manifest.id) == manifest


def test_a_manifest_without_canonical_form_leaves_nothing_behind(
    store: Store, make_manifest: MakeManifest
) -> None:
    good, bad = make_manifest(), make_manifest(is_sealed=False)
    bad = bad.model_copy(update={"sections": {"config": {"key": "\ud800"}}})
    with pytest.raises(DamagedRun):
        store.put_runs([(good, None), (bad, None)])
    assert store.list_runs() == []


def test_a_thousand_runs_are_put_at_once_and_known_after(
    store: Store, make_manifest: MakeManifest
) -> None:
    manifests = [make_manifest() for _ in range(1_200)]
    store.put_runs((manifest, None) for manifest in manifests)
    assert store.digests(manifest.id for manifest in manifests) == {
        manifest.id: manifest.digest for manifest in manifests
    }
    assert store.get_run(manifests[600].id) == manifests[600]


def test_two_processes_that_write_at_once_lose_nothing(
    store: Store, store_url: str, make_manifest: MakeManifest
) -> None:
    # Half of the runs are the same for both, all share their sections.
    common = [make_manifest() for _ in range(20)]
    lots = [common + [make_manifest() for _ in range(20)] for _ in range(2)]
    writers = [writer(store_url) for _ in lots]
    for process, lot in zip(writers, lots, strict=True):
        assert process.stdin is not None
        process.stdin.write("".join(map(line, lot)))
        process.stdin.flush()
    for process in writers:
        output, errors = process.communicate()
        assert (process.returncode, output.count("put"), errors) == (0, 40, "")
    expected = {run.id: run.digest for lot in lots for run in lot}
    assert store.digests(expected) == expected
    assert len(store.list_runs(limit=100)) == 60


def test_a_writer_that_is_killed_leaves_a_readable_store(
    store_url: str, make_manifest: MakeManifest
) -> None:
    runs = [make_manifest() for _ in range(50)]
    with writer(store_url) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(map(line, runs)))
        process.stdin.flush()
        for _ in range(5):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    with SqlStore.open(store_url) as store:
        kept = store.list_runs(limit=100)
        assert 5 <= len(kept) <= 50
        assert [store.get_run(run.id).id for run in kept] == [run.id for run in kept]
        store.put_runs((run, None) for run in runs)
        assert len(store.list_runs(limit=100)) == 50


def writer(url: str) -> subprocess.Popen[str]:
    """Start a process that puts each manifest it is given."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def line(manifest: Manifest) -> str:
    """A manifest as its digest is made of it, without what nobody said."""
    return manifest.model_dump_json(by_alias=True, exclude_unset=True) + "\n"


def verdict_on(original: Manifest, replay: Manifest, outcome: str) -> Verdict:
    """A verdict with something in it."""
    explanation = Difference(
        section="settings",
        key="tf32",
        before=True,
        after={"$absent": True},
        impact="certain",
        reason="TF32 rounds.",
    )
    return Verdict.model_validate(
        {
            "outcome": outcome,
            "original": original.id,
            "replay": replay.id,
            "sentence": "Gradient differs at step 37 \0.",
            "explanations": (explanation,),
        }
    )
