"""A sealed manifest that was changed on disk is not taken for the recorded one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifest.canonical import canonical_bytes, digest_value
from manifest.errors import DamagedRun, NewerSchema
from manifest.identity import new_run_id
from manifest.origin import RUN, Origin, write_origin
from manifest.rundir import RunDirectory
from manifest.sealing import read_sealed

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that ended and was sealed."""
    run = RunDirectory.create(tmp_path / ".manifest", new_run_id())
    _, journal = run.claim("run")
    origin = Origin(
        mode=RUN,
        command=["python", "train.py", "café \x7f \ud800"],
        executable="python",
        folder=tmp_path,
        entropy=bytes(32),
        hash_seed="7",
    )
    write_origin(journal, run, origin)
    journal.section("config", {"lr": 0.1, "sections": {"digest": '"sections":{"a":1}'}})
    journal.append("exit", code=0, signal=None)
    journal.close()
    run.write_manifest()
    return run


def rewrite(run: RunDirectory, change: Change, write: Callable[[Any], bytes]) -> None:
    path = run.path / "manifest.json"
    document = json.loads(path.read_bytes())
    change(document)
    path.write_bytes(write(document))


def canonical(document: Any) -> bytes:
    return canonical_bytes(document) + b"\n"


def indented(document: Any) -> bytes:
    return json.dumps(document, indent=2).encode()


@pytest.mark.parametrize("write", [canonical, indented])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["sections"]["config"].update(lr=0.2), "section 'config' was changed"),
        (lambda d: d["sections"].update(settings={}), "section 'settings' was changed"),
        (lambda d: d["sections"].pop("config"), "it was changed"),
        (lambda d: d["digests"].update(config="sha256:" + "0" * 64), "'config' was changed"),
        (lambda d: d.update(status="failed"), "it was changed"),
        (lambda d: d.update(extra=1), "it was changed"),
        (lambda d: d.update(digest="sha256:" + "0" * 64), "it was changed"),
        (lambda d: d.update(digest=None), "it was changed"),
        (lambda d: d.pop("digest"), "lacks the sections or the digests"),
        (lambda d: d.pop("digests"), "lacks the sections or the digests"),
        (lambda d: d.pop("sections"), "lacks the sections or the digests"),
        (lambda d: d.update(sections=[]), "lacks the sections or the digests"),
    ],
)
def test_a_changed_manifest_is_damaged_and_says_where(
    run: RunDirectory, change: Change, said: str, write: Callable[[Any], bytes]
) -> None:
    rewrite(run, change, write)
    for read in (run.document, run.seal):
        with pytest.raises(DamagedRun, match=said) as caught:
            read()
        assert "manifest.json" in str(caught.value)


def test_a_section_changed_together_with_the_digest_of_the_whole_is_damaged(
    run: RunDirectory,
) -> None:
    def change(document: dict[str, Any]) -> None:
        document["sections"]["config"]["lr"] = 0.2
        del document["digest"]
        document["digest"] = digest_value(document)

    rewrite(run, change, canonical)
    with pytest.raises(DamagedRun, match="section 'config' was changed"):
        run.document()


def test_a_manifest_cut_or_followed_by_anything_is_damaged(run: RunDirectory) -> None:
    path = run.path / "manifest.json"
    whole = path.read_bytes()
    for data in (*(whole[:size] for size in range(0, len(whole) - 1, 97)), whole + b"{}"):
        path.write_bytes(data)
        with pytest.raises(DamagedRun, match="made again from the journals"):
            run.document()


def test_a_damaged_manifest_from_elsewhere_is_not_made_again(run: RunDirectory) -> None:
    # What its journals tell is where it began, and no more.
    run.mark_as_pulled("http://service")
    (run.path / "manifest.json").write_bytes(b"")
    with pytest.raises(DamagedRun, match=f"Delete {run.path} and take the run in again") as caught:
        run.document()
    assert "journals" not in str(caught.value)


def test_a_manifest_that_is_in_no_run_directory_has_no_journals(run: RunDirectory) -> None:
    with pytest.raises(DamagedRun) as caught:
        read_sealed(b"{}", "http://service")
    assert "journals" not in str(caught.value)


def test_any_one_changed_byte_is_noticed_or_changes_nothing(run: RunDirectory) -> None:
    path = run.path / "manifest.json"
    whole = path.read_bytes()
    sealed = run.document()
    for place in range(0, len(whole), 3):
        data = bytearray(whole)
        data[place] ^= 1
        try:
            assert read_sealed(bytes(data), "m") == sealed
        except (DamagedRun, NewerSchema):
            continue


def test_another_layout_of_the_same_values_is_the_same_manifest(run: RunDirectory) -> None:
    sealed = run.document()
    for write in (indented, lambda d: json.dumps(dict(reversed(d.items()))).encode()):
        rewrite(run, lambda document: None, write)
        assert run.document() == sealed


def test_numbers_that_json_does_not_know_are_damage(run: RunDirectory) -> None:
    rewrite(run, lambda d: d["sections"]["config"].update(lr=float("nan")), indented)
    with pytest.raises(DamagedRun):
        run.document()


def test_a_damaged_manifest_is_made_again_once_it_is_deleted(run: RunDirectory) -> None:
    sealed = run.document()
    rewrite(run, lambda document: document.update(name="another"), canonical)
    with pytest.raises(DamagedRun, match="delete it"):
        run.document()
    (run.path / "manifest.json").unlink()
    # The launcher of this run is the test itself, which still lives.
    assert run.write_manifest() == sealed
