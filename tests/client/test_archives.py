"""A run in one file: the same bytes each time, and nothing kept of what is not what was written."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifest.canonical import canonical_bytes
from manifest.consent import stranger
from manifest.errors import DamagedRun, ManifestError, NewerSchema
from manifest.journal import Journal
from manifest.liveness import identify_process
from manifest.rundir import RunDirectory
from manifest.sealing import seal_document
from manifest_client.archives import ArchiveInvalid, packed, unpack

ID = "01990000-0000-7000-8000-000000000001"
Members = dict[str, bytes]


@pytest.fixture
def golden(tmp_path: Path, checkout: Path) -> RunDirectory:
    """A run that a released version wrote, with a blob, a trail and what lies beside it."""
    path = tmp_path / "there" / "runs" / ID
    shutil.copytree(checkout / "tests/manifest/golden/schema-1" / ID, path)
    return RunDirectory(path)


@pytest.fixture
def archive(golden: RunDirectory, tmp_path: Path) -> Path:
    path = tmp_path / "run.tar"
    path.write_bytes(b"".join(packed(golden)))
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "here" / ".manifest"


@pytest.fixture(autouse=True)
def _left_behind(base: Path) -> Any:
    base.parent.mkdir()
    yield
    assert list(base.glob(".arriving*")) == []


def members(archive: Path) -> Members:
    with tarfile.open(archive) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def tar_of(content: Members) -> bytes:
    """What someone with another tool packs: any names, the index as it is given."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    end = sum(512 + len(data) + -len(data) % 512 for data in content.values())
    return out.getvalue()[:end] + bytes(1024)


def indexed(content: Members, **said: Any) -> Members:
    """The members with an index that fits them."""
    rest = {name: data for name, data in sorted(content.items()) if name != "index.json"}
    index = json.loads(content["index.json"]) | said
    index["members"] = {
        name: {"size": len(data), "sha256": f"sha256:{hashlib.sha256(data).hexdigest()}"}
        for name, data in rest.items()
    }
    return {"index.json": canonical_bytes(index) + b"\n", **rest}


def test_the_same_run_gives_the_same_bytes_also_where_it_was_taken_in(
    golden: RunDirectory, archive: Path, base: Path
) -> None:
    for path in golden.path.rglob("*"):
        os.utime(path, (1, 1))
    assert b"".join(packed(golden)) == archive.read_bytes()
    imported = unpack(archive, base)
    assert b"".join(packed(imported.run)) == archive.read_bytes()
    assert tar_of(members(archive)) == archive.read_bytes(), "any tar reads it"


def test_what_was_taken_in_is_the_run_and_someone_elses(
    golden: RunDirectory, archive: Path, base: Path
) -> None:
    run = unpack(archive, base).run
    assert run.document() == golden.document()
    assert run.origin()["entropy"] == golden.origin()["entropy"]
    for path in (*golden.path.glob("blobs/*/*"), *golden.path.glob("trail/*")):
        assert (run.path / path.relative_to(golden.path)).read_bytes() == path.read_bytes()
    assert stranger(run) == "someone who packed it into run.tar"
    assert {path.name for path in base.iterdir()} == {".gitignore", "salt", "runs"}


def test_taking_in_twice_changes_nothing(archive: Path, base: Path) -> None:
    first = unpack(archive, base)
    before = {path: path.stat().st_mtime_ns for path in base.rglob("*")}
    again = unpack(archive, base)
    assert (first.is_new, again.is_new) == (True, False)
    assert again.run.path == first.run.path
    assert {path: path.stat().st_mtime_ns for path in base.rglob("*")} == before


def test_a_run_of_ones_own_stays_ones_own(golden: RunDirectory, archive: Path) -> None:
    assert not unpack(archive, golden.path.parent.parent).is_new
    assert golden.sender() is None


def resealed(data: bytes, change: Callable[[dict[str, Any]], None]) -> tuple[bytes, str]:
    document = json.loads(data)
    change(document)
    del document["digest"]
    seal_document(document)
    return canonical_bytes(document) + b"\n", document["digest"]


def test_another_run_under_the_same_id_is_refused(archive: Path, base: Path) -> None:
    run = unpack(archive, base).run
    before = run.document()
    content = members(archive)
    content["manifest.json"], digest = resealed(
        content["manifest.json"], lambda document: document.update(project="other")
    )
    archive.write_bytes(tar_of(indexed(content, digest=digest)))
    with pytest.raises(ArchiveInvalid, match="another run is here under its id"):
        unpack(archive, base)
    assert run.document() == before


def test_a_run_that_goes_on_is_not_packed(golden: RunDirectory) -> None:
    (golden.path / "manifest.json").unlink()
    (golden.path / "journal" / "main.jsonl").unlink()
    journal = Journal(golden.path / "journal" / "main.jsonl")
    journal.append("process", **identify_process())
    journal.close()
    with pytest.raises(DamagedRun, match="still going on"):
        list(packed(golden))


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.9, 0.9999])
def test_an_archive_that_was_cut_is_refused(share: float, archive: Path, base: Path) -> None:
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ArchiveInvalid):
        unpack(archive, base)
    assert not base.exists()


def test_an_archive_with_any_byte_changed_is_refused(archive: Path, base: Path) -> None:
    data = bytearray(archive.read_bytes())
    for place in range(0, len(data), 211):
        data[place] ^= 1
        archive.write_bytes(data)
        with pytest.raises(ManifestError):
            unpack(archive, base)
        data[place] ^= 1
    assert not base.exists()


NAMES = [
    "../../evil",
    "/etc/evil",
    "blobs/../../evil",
    "blobs/ab/" + "cd" * 32,
    "journal/run.jsonl",
    "journal/main.jsonl",
    "pulled.json",
    "delivered.json",
    "trail/../main/bin",
    "trail/.hidden/bin",
    "trail/main/BIN",
    "trail/main/bin.gz",
    "trail/nobody/final",
    "manifest.json/x",
    "blobs/" + hashlib.sha256(b"evil").hexdigest()[:2] + "/" + hashlib.sha256(b"evil").hexdigest(),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_member_that_has_no_place_is_refused(name: str, archive: Path, base: Path) -> None:
    archive.write_bytes(tar_of(indexed({**members(archive), name: b"evil"})))
    with pytest.raises(ArchiveInvalid):
        unpack(archive, base)
    assert not base.exists()
    assert sorted(path.name for path in base.parent.parent.iterdir()) == [
        "here",
        "run.tar",
        "there",
    ]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_links_devices_and_folders_are_refused(kind: bytes, archive: Path, base: Path) -> None:
    content = members(archive)
    index = content.pop("index.json")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in {"index.json": index, **content}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            if name.startswith("trail"):
                entry.type, entry.linkname, entry.size = kind, "/etc/passwd", 0
            tar.addfile(entry, io.BytesIO(data) if entry.size else None)
    archive.write_bytes(out.getvalue())
    with pytest.raises(ArchiveInvalid, match="expected trail/main/bin"):
        unpack(archive, base)
    assert not base.exists()


def changed(content: Members, name: str, data: bytes) -> Members:
    return {**content, name: data}


HOSTILE: dict[str, Callable[[Members], Members]] = {
    "appended": lambda m: {**m, "manifest.json ": b"again"},
    "no manifest": lambda m: indexed({n: d for n, d in m.items() if n != "manifest.json"}),
    "no index": lambda m: {n: d for n, d in m.items() if n != "index.json"},
    "of another run": lambda m: indexed(m, run=ID[:-1] + "2"),
    "an id that is a path": lambda m: indexed(m, run="../../evil"),
    "another digest": lambda m: indexed(m, digest="sha256:" + "0" * 64),
    "more said": lambda m: indexed(m, more=1),
    "a huge size": lambda m: changed(
        m, "index.json", m["index.json"].replace(b'"size":', b'"size":9999999')
    ),
    "a negative size": lambda m: changed(
        m, "index.json", m["index.json"].replace(b'"size":', b'"size":-')
    ),
    "deep": lambda m: changed(m, "index.json", b"[" * 100_000),
    "a trail of other steps": lambda m: indexed(
        changed(m, "trail/main/bin", m["trail/main/bin"][:-80])
    ),
    "a trail that is none": lambda m: indexed(changed(m, "trail/main/bin", b"no trail\n")),
    "no rows": lambda m: indexed({n: d for n, d in m.items() if n != "trail/main/bin"}),
    "a verdict that is none": lambda m: indexed(changed(m, "verdict.json", b'{"a":1}')),
    "a manifest laid out anew": lambda m: indexed(
        changed(m, "manifest.json", json.dumps(json.loads(m["manifest.json"])).encode())
    ),
    "a changed manifest": lambda m: indexed(
        changed(m, "manifest.json", m["manifest.json"].replace(b"finished", b"crashed"))
    ),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_what_does_not_belong_together_is_refused(how: str, archive: Path, base: Path) -> None:
    archive.write_bytes(tar_of(HOSTILE[how](members(archive))))
    with pytest.raises(ManifestError):
        unpack(archive, base)
    assert not base.exists()


@pytest.mark.parametrize("key", ["seeds", "command"])
def test_a_run_that_does_not_say_how_it_began_is_refused(
    key: str, archive: Path, base: Path
) -> None:
    content = members(archive)
    content["manifest.json"], digest = resealed(
        content["manifest.json"], lambda document: document["sections"][key].clear()
    )
    archive.write_bytes(tar_of(indexed(content, digest=digest)))
    with pytest.raises(DamagedRun, match="does not say"):
        unpack(archive, base)
    assert not base.exists()


def test_what_a_newer_version_packed_is_said_to_be_so(archive: Path, base: Path) -> None:
    archive.write_bytes(tar_of(indexed(members(archive), format=2)))
    with pytest.raises(NewerSchema):
        unpack(archive, base)


def test_far_too_many_members_are_refused_before_any_is_read(archive: Path, base: Path) -> None:
    content = members(archive)
    index = json.loads(content["index.json"])
    some = index["members"]["manifest.json"]
    index["members"] = {f"trail/p{n}/bin": some for n in range(100_001)}
    content["index.json"] = canonical_bytes(index) + b"\n"
    archive.write_bytes(tar_of(content))
    with pytest.raises(ArchiveInvalid, match="its index"):
        unpack(archive, base)


def test_a_pipe_is_no_archive(tmp_path: Path, base: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArchiveInvalid, match="no regular file"):
        unpack(tmp_path / "pipe", base)
