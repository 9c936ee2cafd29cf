"""Snapshots: taken under names, found again, and refused where they are not what they should be."""

from __future__ import annotations

import base64
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from manifest import snapshotdocs, snapshots
from manifest.canonical import Json, canonical_bytes
from manifest.entropy import new_master
from manifest.errors import NewerSchema, RunNotFound, StateNotRestorable
from manifest.identity import new_run_id
from manifest.origin import RECORD, Origin, write_origin
from manifest.restoring import RestoredItem
from manifest.rewinding import replay
from manifest.rundir import RunDirectory, run_directories
from manifest.snapshotdocs import find_snapshot
from manifest.snapshots import Snapshots, resume
from manifest.tracking import Tracking


class Process:
    """One process of a run, without PyTorch."""

    def __init__(self, run: RunDirectory, name: str = "main", rank: int | None = None) -> None:
        _, self.journal = run.claim(name)
        self.journal.append("process", pid=1, start=0, rank=rank)
        self.tracking = Tracking(self)
        self.snapshots = Snapshots(run, self.tracking, self)

    def say(self, kind: str, **fields: Json) -> None:
        self.journal.append(kind, **fields)

    def section(self, name: str, values: dict[str, Json]) -> None:
        self.journal.section(name, values)

    def note(self, where: str, what: object) -> None:
        raise AssertionError(what)

    def restored(self, items: Iterable[RestoredItem]) -> None:
        for item in items:
            self.say("restore", **item._asdict())

    def take(self, name: str | int | None = None) -> str:
        return self.snapshots.take(name, step=7, loaders=None)

    def resume(
        self, run: RunDirectory, snapshot: dict[str, Any], *, is_strict: bool = True
    ) -> dict[str, str]:
        items, _ = resume(
            run,
            snapshot,
            tracking=self.tracking,
            loaders=None,
            on_outcome=lambda item: None,
            is_strict=is_strict,
        )
        return {item.what: item.outcome for item in items}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.create(tmp_path, new_run_id())
    _, journal = run.claim("run")
    origin = Origin(
        mode=RECORD,
        command=[sys.executable],
        executable=sys.executable,
        folder=tmp_path,
        entropy=new_master(),
        hash_seed="random",
    )
    write_origin(journal, run, origin)
    journal.close()
    return run


def test_generators_are_put_back_to_where_they_were(run: RunDirectory) -> None:
    process = Process(run)
    own = random.Random(3)
    process.tracking.track("own", own)
    random.seed(4)
    random.gauss(0, 1)
    process.take("here")
    expected = random.gauss(0, 1), random.random(), own.random()
    outcomes = process.resume(run, find_snapshot(run, "here", process="main", rank=None))
    assert (random.gauss(0, 1), random.random(), own.random()) == expected
    assert (outcomes["python"], outcomes["own"]) == ("restored", "restored")


def test_names_are_numbered_where_they_are_taken_or_left_out(run: RunDirectory) -> None:
    process = Process(run)
    given = [process.take(name) for name in (None, "best", 100, "best", None, "best")]
    assert given == ["0", "best", "100", "best#1", "4", "best#2"]
    assert find_snapshot(run, "best", process="main", rank=None)["name"] == "best"


def test_the_manifest_lists_the_newest_and_counts_all(run: RunDirectory) -> None:
    process = Process(run)
    for number in range(70):
        process.take(number)
    section = run.document()["sections"]["snapshots"]
    assert section["count"] == 70
    assert list(section["latest"])[-1] == "69"
    assert len(section["latest"]) == 64
    assert section["latest"]["69"]["step"] == 7
    assert len(canonical_bytes(section)) < 20_000


def test_the_number_that_is_kept_is_bounded(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (snapshots, snapshotdocs):
        monkeypatch.setattr(module, "MOST_SNAPSHOTS", 3)
    process = Process(run)
    for number in range(5):
        process.take(number)
    assert len(list(run.path.glob("blobs/*/*"))) == 3
    find_snapshot(run, "2", process="main", rank=None)
    with pytest.raises(StateNotRestorable, match="the newest 3 of a process are kept"):
        find_snapshot(run, "1", process="main", rank=None)


def test_each_process_finds_its_own(run: RunDirectory) -> None:
    ranks = [Process(run, f"main.x{rank}", rank=rank) for rank in range(2)]
    for rank, process in enumerate(ranks):
        random.seed(rank)
        process.journal.append("rank", rank=rank)
        process.take("here")

    def state(process: str, rank: int | None) -> Any:
        return find_snapshot(run, "here", process=process, rank=rank)["generators"]["python"]

    assert state("main.x0", None) != state("main.x1", None)
    with pytest.raises(StateNotRestorable, match=r"taken by main\.x0, main\.x1"):
        state("main", None)


def test_a_rank_does_not_continue_from_the_snapshot_of_another(run: RunDirectory) -> None:
    process = Process(run, "main.x0", rank=0)
    process.journal.append("rank", rank=0)
    process.take("here")
    for rank in (0, None):
        assert find_snapshot(run, "here", process="main.other", rank=rank)["name"] == "here"
    with pytest.raises(StateNotRestorable, match=r"taken by main\.x0.*each takes its own"):
        find_snapshot(run, "here", process="main.x1", rank=1)


def test_what_no_snapshot_returned_is_refused_by_name() -> None:
    with pytest.raises(StateNotRestorable, match=r"what `run\.snapshot\(\)` returned, found None"):
        replay(None)  # type: ignore[arg-type]


def test_a_name_that_is_not_there_is_answered_with_those_that_are(run: RunDirectory) -> None:
    process = Process(run)
    for name in ("first", "second"):
        process.take(name)
    with pytest.raises(StateNotRestorable, match="no snapshot 'third'; it has first, second"):
        find_snapshot(run, "third", process="main", rank=None)


def valid_loader() -> dict[str, Any]:
    return {
        "name": None,
        "place": "made at train.py:3",
        "ordinal": 0,
        "shape": {},
        "generators": {},
        "position": {
            "count": 3,
            "base_seed": "-5",
            "epoch": None,
            "began": "sha256:" + "0" * 64,
            "first": None,
            "refusal": None,
        },
    }


def damaged(change: Callable[[dict[str, Any]], object]) -> bytes:
    document: dict[str, Any] = {
        "schema": 1,
        "name": "here",
        "step": None,
        "generators": {"python": {"kind": "python", "state": {"$bytes": "AAAA"}}},
        "loaders": [valid_loader()],
    }
    change(document)
    return canonical_bytes(document)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("schema"),
        lambda document: document.update(generators=[]),
        lambda document: document.update(generators={"python": "state"}),
        lambda document: document.update(loaders={}),
        lambda document: document.update(loaders=[3]),
        lambda document: document["loaders"][0].update(place=3),
        lambda document: document["loaders"][0].update(ordinal=-1),
        lambda document: document["loaders"][0].pop("position"),
        lambda document: document["loaders"][0]["position"].update(count=True),
        lambda document: document["loaders"][0]["position"].update(count=10**30),
        lambda document: document["loaders"][0]["position"].update(base_seed="1" * 5000),
        lambda document: document["loaders"][0]["position"].update(base_seed="--5"),
        lambda document: document["loaders"][0]["position"].update(base_seed="²"),
        lambda document: document["loaders"][0]["position"].update(last_index=3),
        lambda document: document["loaders"][0]["position"].update(began=None),
        lambda document: document["loaders"][0]["position"].pop("first"),
        lambda document: document["loaders"][0]["position"].update(ahead=4),
        lambda document: document["loaders"][0]["position"].update(ahead=-1),
        lambda document: document["loaders"][0]["position"].update(before="sha256:"),
    ],
)
def test_what_has_not_the_form_of_a_snapshot_is_refused(
    change: Callable[[dict[str, Any]], object], run: RunDirectory
) -> None:
    process = Process(run)
    process.say("snapshot", name="here", step=None, blob=run.put_blob(damaged(change)))
    with pytest.raises(StateNotRestorable, match="cannot be read"):
        find_snapshot(run, "here", process="main", rank=None)


@pytest.mark.parametrize("blob", ["sha256:../../etc/passwd", None, 3, "sha256:" + "0" * 64])
def test_a_blob_that_is_none_is_refused(blob: Json, run: RunDirectory) -> None:
    Process(run).say("snapshot", name="here", step=None, blob=blob)
    with pytest.raises(StateNotRestorable):
        find_snapshot(run, "here", process="main", rank=None)


def test_bytes_that_were_changed_are_refused(run: RunDirectory) -> None:
    Process(run).take("here")
    (blob,) = run.path.glob("blobs/*/*")
    blob.write_bytes(blob.read_bytes().replace(b'"here"', b'"elsewhere"'))
    with pytest.raises(StateNotRestorable, match="the bytes were changed"):
        find_snapshot(run, "here", process="main", rank=None)


def test_a_state_of_the_wrong_form_is_not_set(run: RunDirectory) -> None:
    process = Process(run)
    blob = run.put_blob(damaged(lambda document: document.update(loaders=[])))
    process.say("snapshot", name="here", step=None, blob=blob)
    before = random.getstate()
    with pytest.raises(StateNotRestorable, match="does not have its form"):
        process.resume(run, find_snapshot(run, "here", process="main", rank=None))
    assert random.getstate() == before


def test_what_is_not_there_to_be_put_back_is_refused_unless_that_will_do(run: RunDirectory) -> None:
    process = Process(run)
    process.take("here")
    snapshot = find_snapshot(run, "here", process="main", rank=None)
    state = {"$bytes": base64.b64encode(bytes(16)).decode()}
    snapshot["generators"]["torch.xpu.0"] = {"kind": "torch.xpu", "state": state}
    before = random.getstate()
    random.random()
    with pytest.raises(StateNotRestorable, match=r"torch\.xpu\.0: .* (not imported|not started)"):
        process.resume(run, snapshot)
    assert random.getstate() != before
    outcomes = process.resume(run, snapshot, is_strict=False)
    assert (outcomes["python"], outcomes["torch.xpu.0"]) == ("restored", "skipped")
    assert random.getstate() == before


def test_a_newer_snapshot_is_named_as_such(run: RunDirectory) -> None:
    blob = run.put_blob(damaged(lambda document: document.update(schema=9)))
    Process(run).say("snapshot", name="here", step=None, blob=blob)
    with pytest.raises(NewerSchema):
        find_snapshot(run, "here", process="main", rank=None)


@pytest.mark.parametrize(
    "reference", ["../../etc:here", "", "01a21390-3c48-7538-a140-411fd2661863:here"]
)
def test_a_run_that_is_not_there_is_not_looked_for_elsewhere(
    reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANIFEST_DIR", str(tmp_path))
    with pytest.raises(RunNotFound):
        replay(reference)


PROGRAM = """\
import random, sys
import manifest

run = manifest.record()
if sys.argv[1:]:
    report = manifest.replay(sys.argv[1], at=(sys.argv[2:] or ["start"])[0])
    print(report.run, report.is_complete, *report.items)
    own = random.Random()
    run.track("own", own)
    print(random.random(), own.random())
else:
    random.seed(3)
    random.random()
    own = random.Random(4)
    run.track("own", own)
    before = random.getstate()
    reference = run.snapshot("here")
    assert random.getstate() == before
    print(random.random(), own.random(), reference)
    run.finish()
    assert run.snapshot() is None
assert "torch" not in sys.modules and "numpy" not in sys.modules
"""


def test_a_program_without_pytorch_can_be_continued_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        command = [sys.executable, "-c", PROGRAM, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    drawn, reference = run().rsplit(maxsplit=1)
    (recorded,) = run_directories(tmp_path / ".manifest")
    assert reference == f"{recorded.id}:here"
    assert recorded.document()["notes"] == []
    told = f"{recorded.id} True own: pending (when the program tracks it) python: restored"
    assert run(reference).splitlines() == [told, drawn]
    assert run(recorded.id[:13], "here").splitlines() == [told, drawn]
    again = run_directories(tmp_path / ".manifest")[0].document()
    assert [(item["what"], item["outcome"]) for item in again["restores"]] == [
        ("snapshot", "pending"),
        ("python", "restored"),
        ("own", "restored"),
    ]


def test_a_run_that_is_not_recorded_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANIFEST_MODE", "disabled")
    from manifest.recording import record

    assert record().snapshot("here") is None


def test_a_snapshot_is_plain_data(run: RunDirectory) -> None:
    Process(run).take("here")
    (blob,) = run.path.glob("blobs/*/*")
    assert json.loads(blob.read_bytes())["generators"]["python"]["kind"] == "python"
