"""A manifest goes into rows and comes back the same, whatever it holds."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from manifest.canonical import Json, canonical_bytes, digest_value, plain
from manifest.errors import DamagedRun, DigestMismatch
from manifest.models import Manifest, Process
from manifest_server.incoming import Incoming
from manifest_server.packing import (
    USUAL,
    KeptSection,
    PackedRun,
    SharedSection,
    compressed,
    expanded,
    pack_run,
    unpack_document,
    unpack_run,
    unpack_section,
)
from manifest_server.tables import SHARED

MakeManifest = Callable[..., Manifest]

RUN_ID = "01890a5d-ac96-774b-bcce-b302099a8057"

_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(max_size=20)
)
_values = st.one_of(
    _scalars,
    st.lists(_scalars, max_size=3),
    st.dictionaries(st.text(max_size=5), _scalars, max_size=3),
).map(plain)
_names = st.one_of(st.sampled_from(["command", "settings", "packages", "seeds"]), st.text())
_sections = st.dictionaries(
    _names, st.dictionaries(st.text(max_size=8), _values, max_size=4), max_size=4
)


def document_of(manifest: Manifest) -> dict[str, Any]:
    """The document as its writer wrote it: only what was given."""
    return manifest.model_dump(mode="json", by_alias=True, exclude_unset=True)


def packed_of(manifest: Manifest) -> PackedRun:
    return pack_run(Incoming.of(manifest))


def there_and_back(manifest: Manifest) -> Manifest:
    return unpacked(packed_of(manifest), str(manifest.digest))


def unpacked(packed: PackedRun, digest: str) -> Manifest:
    document = packed.row["document"]
    assert isinstance(document, bytes)
    columns = [("", name, packed.setup.get(f"{name}_key")) for name in SHARED]
    references = [(each["process"], each["name"], each["key"]) for each in packed.references]
    kept = [
        KeptSection(
            str(process),
            str(name),
            unpack_section(str(key), compressed(packed.sections[str(key)].body)),
        )
        for process, name, key in (*columns, *references)
        if key is not None
    ]
    return unpack_run(unpack_document(document), digest, kept)


@given(
    sections=_sections,
    others=st.dictionaries(st.text(max_size=5), _sections, max_size=2),
    is_sealed=st.booleans(),
    has_digests=st.booleans(),
    name=st.one_of(st.none(), st.text()),
)
def test_any_manifest_comes_back_equal(
    sections: dict[str, Json],
    others: dict[str, Json],
    is_sealed: bool,
    has_digests: bool,
    name: str | None,
) -> None:
    document: dict[str, Any] = {
        "schema": 1,
        "id": RUN_ID,
        "project": "p",
        "name": name,
        "status": "finished",
        "started_at": "2025-01-31T08:00:00Z",
        "mode": "run",
        "sections": sections,
        "processes": {process: {"sections": held} for process, held in others.items()},
    }
    if has_digests:
        document["digests"] = {key: digest_value(section) for key, section in sections.items()}
    if is_sealed:
        document["digest"] = digest_value(document)
    manifest = Manifest.model_validate(document)
    back = there_and_back(manifest)
    assert back == manifest
    assert back.model_fields_set - {"digest"} == manifest.model_fields_set - {"digest"}
    if is_sealed:
        assert document_of(back) == document
        assert digest_value({k: v for k, v in document_of(back).items() if k != "digest"}) == (
            manifest.digest
        )


def test_what_is_nested_deeply_comes_back_equal(make_manifest: MakeManifest) -> None:
    nested: Json = "innermost"
    for _ in range(400):  # more than the reader that is tried first takes
        nested = {"a": nested}
    manifest = make_manifest(sections={"config": {"deep": nested}, "settings": {"deep": [nested]}})

    assert there_and_back(manifest) == manifest


def test_a_field_that_was_not_given_stays_out_of_the_document(
    make_manifest: Callable[..., Manifest],
) -> None:
    back = there_and_back(make_manifest())
    assert "exit_signal" not in document_of(back)
    assert "name" in document_of(back)


def test_runs_of_one_environment_share_its_sections(
    make_manifest: Callable[..., Manifest],
) -> None:
    first, second = map(packed_of, [make_manifest(), make_manifest(project="other")])
    assert first.sections == second.sections
    names = {section.name for section in first.sections.values()}
    assert names == {"environment", "packages", "settings"}


def test_what_every_run_has_otherwise_does_not_keep_it_from_sharing(
    make_manifest: Callable[..., Manifest],
) -> None:
    manifests = [
        make_manifest(
            sections={
                "environment": {"env.PYTHONHASHSEED": seed, "env.HOME": "/home/ada"},
                "settings": {"python.hash_probe": seed, "torch.num_threads": 2},
                "loaders": {"loader.0": {"base_seed": [seed], "batch_size": 8}, "odd": seed},
            }
        )
        for seed in ("1", "2")
    ]
    first, second = map(packed_of, manifests)
    shared = [set(each.sections) for each in (first, second)]
    assert {first.sections[key].name for key in shared[0] & shared[1]} >= {
        "environment",
        "settings",
    }
    assert [there_and_back(manifest) for manifest in manifests] == manifests


def test_ranks_share_the_sections_of_their_run(make_manifest: Callable[..., Manifest]) -> None:
    ranks = {
        f"main.x{rank}": {"sections": make_manifest().sections, "rank": rank} for rank in range(8)
    }
    (alone,), (packed,) = (
        [packed_of(make_manifest())],
        [packed_of(make_manifest(processes=ranks))],
    )
    assert packed.sections == alone.sections


def test_a_run_that_goes_on_is_kept_whole(make_manifest: Callable[..., Manifest]) -> None:
    packed = packed_of(make_manifest(is_sealed=False))
    assert packed.sections == {}
    assert packed.references == []


def test_a_section_that_is_not_what_its_digest_says_is_refused(
    make_manifest: Callable[..., Manifest],
) -> None:
    good = make_manifest()
    changed = good.model_copy(
        update={"sections": {**good.sections, "packages": {"package-0": "6.6.6"}}}
    )
    with pytest.raises(DigestMismatch, match="section 'packages' of run"):
        packed_of(changed)


def test_true_is_not_one_even_beside_a_run_that_says_one(
    make_manifest: Callable[..., Manifest],
) -> None:
    manifests = [
        make_manifest(sections={"settings": {"flag": flag}}) for flag in (1, True, 1.0, 0, False)
    ]
    flags = [
        unpacked(packed, manifest.digest).sections["settings"]["flag"]
        for packed, manifest in zip(map(packed_of, manifests), manifests, strict=True)
    ]
    assert [repr(flag) for flag in flags] == ["1", "True", "1.0", "0", "False"]


def test_bytes_that_were_changed_are_not_handed_out(
    make_manifest: Callable[..., Manifest],
) -> None:
    manifest = make_manifest()
    packed = packed_of(manifest)
    evil = SharedSection.of("packages", {"evil": True})
    packed.sections.update(dict.fromkeys(packed.sections, evil))
    with pytest.raises(DigestMismatch, match="in the store"):
        unpacked(packed, manifest.digest)


@pytest.mark.parametrize("value", ["\ud800", float("nan"), {1, 2}, object()])
def test_a_value_without_canonical_form_is_refused_in_a_sentence(
    make_manifest: Callable[..., Manifest], value: object
) -> None:
    manifest = make_manifest(is_sealed=False)
    broken = manifest.model_copy(update={"sections": {"config": {"key": value}}})
    with pytest.raises(DamagedRun, match="is not a readable run directory"):
        packed_of(broken)


def test_a_name_that_only_looks_like_an_id_is_refused(
    make_manifest: Callable[..., Manifest],
) -> None:
    with pytest.raises(ValidationError, match="id"):
        make_manifest(id="-" * 36)
    unchecked = make_manifest().model_copy(update={"id": "-" * 36})
    with pytest.raises(DamagedRun, match="expected a run id"):
        packed_of(unchecked)


def test_a_process_without_sections_comes_back_without() -> None:
    process = Process(pid=7)
    manifest = Manifest(
        schema=1,
        id=RUN_ID,
        project="p",
        status="running",
        started_at="2025-01-31T08:00:00Z",
        mode="run",
        sections={},
        processes={"main": process},
    )
    assert there_and_back(manifest).processes["main"].model_fields_set == {"pid"}


def test_what_was_compressed_by_itself_is_read_as_well() -> None:
    data = canonical_bytes({"schema": 1, "text": "a" * 300})

    assert expanded(zlib.compress(data, 1)) == expanded(compressed(data)) == data


def test_what_is_kept_takes_half_the_room_where_it_is_usual(make_manifest: MakeManifest) -> None:
    document = packed_of(make_manifest()).row["document"]
    assert isinstance(document, bytes)

    assert len(document) < len(zlib.compress(expanded(document), 9)) / 2


def test_half_a_document_is_damaged() -> None:
    whole = compressed(canonical_bytes({"numbers": list(range(200))}))

    with pytest.raises(zlib.error):
        expanded(whole[: len(whole) // 2])


def test_the_usual_words_never_change() -> None:
    digest = hashlib.sha256(USUAL).hexdigest()
    assert digest == "81507326741d10b15285a974edfc69445005c13e250535ee0762391ff6d37770"
