"""A manifest that comes in is the same whether or not its sections came before."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from manifest.canonical import canonical_bytes, digest_value
from manifest.errors import DamagedRun, DigestMismatch, DigestWrong
from manifest.identity import new_run_id
from manifest.models import Manifest
from manifest_server.incoming import Incoming, SeenSections
from manifest_server.packing import pack_run
from manifest_server.sqlstore import SqlStore

MakeManifest = Callable[..., Manifest]
Layout = Callable[[dict[str, Any]], bytes]

PACKAGES = {f"package-{number}": f"{number}.0" for number in range(60)}


def document_of(manifest: Manifest) -> dict[str, Any]:
    return manifest.model_dump(mode="json", by_alias=True, exclude_unset=True)


def remembering(manifest: Manifest) -> SeenSections:
    """What remembers the shared sections of a manifest that was kept."""
    seen = SeenSections()
    packed = pack_run(Incoming.of(manifest))
    seen.add({section.digest: section.body for section in packed.sections.values()})
    return seen


def indented(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode()


def backwards(document: dict[str, Any]) -> bytes:
    """Every map from its last key to its first, and characters escaped."""

    def turned(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: turned(value[key]) for key in reversed(value)}

    return json.dumps(turned(document)).encode()


@pytest.mark.parametrize("layout", [canonical_bytes, indented, backwards])
def test_it_is_packed_as_if_nothing_had_come_before(
    make_manifest: MakeManifest, layout: Layout
) -> None:
    sections = {
        "packages": PACKAGES,
        "code": {"git.branch": "größer"},
        "settings": {"python.hash_probe": 7, "torch.num_threads": 2},
        "environment": {"env.HOSTNAME": "a", "env.HOME": "/home"},
    }
    manifest = make_manifest(sections=sections)
    data = layout(document_of(manifest))

    assert pack_run(remembering(manifest).read(data)) == pack_run(Incoming.of(manifest))


@given(
    st.dictionaries(
        st.sampled_from(["packages", "settings", "loaders", "code", "config", "x"]),
        st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4),
    ),
    st.lists(st.sampled_from(["packages", "settings", "loaders", "code"])),
)
def test_whatever_it_holds_and_whatever_came_before(
    sections: dict[str, Any], known: list[str]
) -> None:
    sections = {name: {**values, "in": name} for name, values in sections.items()}
    document: dict[str, Any] = {
        "schema": 1,
        "id": new_run_id(),
        "project": "p",
        "status": "finished",
        "started_at": "2025-01-31T08:00:00.000000Z",
        "mode": "run",
        "sections": sections,
        "digests": {name: digest_value(values) for name, values in sections.items()},
    }
    document["digest"] = digest_value(document)
    data = canonical_bytes(document)
    whole = Incoming.of(Manifest.model_validate_json(data))
    shared = {each.name: each for each in pack_run(whole).sections.values()}
    seen = SeenSections()
    seen.add({shared[name].digest: shared[name].body for name in known if name in shared})

    incoming = seen.read(data)

    assert (incoming.bodies, incoming.digests) == (whole.bodies, whole.digests)
    assert pack_run(incoming) == pack_run(whole)


def test_values_that_came_before_are_not_read(make_manifest: MakeManifest) -> None:
    manifest = make_manifest(sections={"packages": PACKAGES})
    incoming = remembering(manifest).read(canonical_bytes(document_of(manifest)))

    assert "packages" not in incoming.manifest.sections
    assert incoming.bodies["packages"] == canonical_bytes(PACKAGES)
    assert incoming.manifest.sections["command"] == manifest.sections["command"]


def test_a_run_that_goes_on_is_read_whole(make_manifest: MakeManifest) -> None:
    ended = make_manifest(sections={"packages": PACKAGES})
    going_on = make_manifest(is_sealed=False, sections={"packages": PACKAGES})

    incoming = remembering(ended).read(canonical_bytes(document_of(going_on)))

    assert incoming.manifest == going_on


def test_bytes_that_are_no_canonical_form_are_not_taken_for_one(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    text = b'{ "a" : 1 }'
    first, second = (make_manifest(sections={"packages": {"a": 1}}) for _ in range(2))
    for manifest in (first, second):
        data = canonical_bytes(document_of(manifest)).replace(
            b'"packages":{"a":1}', b'"packages":' + text
        )
        assert text in data
        assert store.put_each([store.seen.read(data)]) == [None]

    assert [store.get_run(each.id) for each in (first, second)] == [first, second]


def test_the_store_learns_from_what_it_keeps(store: SqlStore, make_manifest: MakeManifest) -> None:
    first, second = (make_manifest(sections={"packages": PACKAGES}) for _ in range(2))
    bodies = [canonical_bytes(document_of(each)) for each in (first, second)]

    assert "packages" in store.seen.read(bodies[0]).manifest.sections
    assert store.put_each([store.seen.read(bodies[0])]) == [None]
    incoming = store.seen.read(bodies[1])
    assert "packages" not in incoming.manifest.sections
    assert store.put_each([incoming]) == [None]

    assert [store.get_run(each.id) for each in (first, second)] == [first, second]


def test_what_was_collected_meanwhile_is_kept_again(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    first, second = (make_manifest(sections={"packages": PACKAGES}) for _ in range(2))
    store.put_each([store.seen.read(canonical_bytes(document_of(first)))])
    incoming = store.seen.read(canonical_bytes(document_of(second)))
    assert "packages" not in incoming.manifest.sections
    store.delete_run(first.id)
    store.collect()

    assert store.put_each([incoming]) == [None]

    assert store.get_run(second.id) == second


def test_a_section_that_came_before_must_still_be_the_one_that_is_named(
    make_manifest: MakeManifest,
) -> None:
    manifest = make_manifest(sections={"packages": PACKAGES})
    seen = remembering(manifest)
    document = document_of(make_manifest(sections={"packages": {"other": "1.0"}}))

    document["sections"]["packages"] = PACKAGES
    with pytest.raises(DigestMismatch, match="section 'packages' of run"):
        pack_run(seen.read(canonical_bytes(document)))
    document["digests"]["packages"] = manifest.digests["packages"]
    with pytest.raises(DigestWrong):
        pack_run(seen.read(canonical_bytes(document)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"sections":5}',
        b'{"sections":{"packages":5}}',
        b'{"sections":{"packages":{}},"digest":"x"}',
        b'{"sections":{"packages":{"a":NaN}}}',
        b'{"sections":{"\\ud800":{}}}',
        b'{"sections":' + b"[" * 100_000,
        b'{"a":"\xff","sections":{}}',
    ],
)
def test_what_is_no_manifest_is_refused(make_manifest: MakeManifest, data: bytes) -> None:
    with pytest.raises((ValidationError, DamagedRun)):
        remembering(make_manifest()).read(data)


def test_no_more_is_remembered_than_may_be() -> None:
    seen = SeenSections(most_bytes=100)
    sections = [{"key": str(number) * 30} for number in range(9)]
    for values in sections:
        seen.add({digest_value(values): canonical_bytes(values)})
        seen.get([digest_value(sections[0])])  # is asked for all the time

    found = seen.get(digest_value(values) for values in sections)

    assert [*found] == [digest_value(sections[0]), digest_value(sections[-1])]


def test_sections_that_were_left_out_are_read_from_the_database_once(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    manifest = make_manifest(sections={"packages": PACKAGES})
    store.put_run(manifest)
    wanted = {"packages": manifest.digests["packages"], "settings": "sha256:" + "0" * 64}

    assert store.known_sections(wanted) == {"packages"}
    assert store.get_sections(wanted) == {"packages": canonical_bytes(PACKAGES)}
    assert store.seen.get(wanted.values()) == {wanted["packages"]: canonical_bytes(PACKAGES)}
    # Whoever sees one project is told of what is in it alone, whatever others have sent.
    assert store.get_sections(wanted, project="another") == {}
    assert store.known_sections(wanted, project="another") == set()
    assert store.known_sections(wanted, project="digits") == {"packages"}
