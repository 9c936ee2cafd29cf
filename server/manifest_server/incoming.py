"""A manifest as it comes in: what came before, byte for byte, is not read again.

Most runs share their environment with others, and it is most of their manifest. A section whose
bytes are known to be its canonical form need neither be parsed nor encoded to be checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final, Self

from manifest.canonical import Digest, canonical_bytes, digest_bytes
from manifest.errors import DamagedRun
from manifest.models import Manifest
from manifest_server.recent import Recent
from manifest_server.tables import SHARED

if TYPE_CHECKING:
    import msgspec

MOST_BYTES: Final = 2**23


@dataclass(frozen=True, slots=True)
class Incoming:
    """A manifest, and its sections in canonical form."""

    manifest: Manifest
    """Without the values of those sections that came before."""
    bodies: Mapping[str, bytes]
    """Of every section, by name."""
    digests: Mapping[str, Digest]
    """Of these bytes."""

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """A manifest with the values of all its sections.

        Raises:
            DamagedRun: A section has no canonical form.
        """
        try:
            bodies = {name: canonical_bytes(values) for name, values in manifest.sections.items()}
        except (ValueError, TypeError, RecursionError) as error:
            raise damaged_run(manifest, error) from error
        return cls(manifest, bodies, _digests(bodies))

    def left_out(self) -> dict[str, str]:
        """The digests of the sections that a sealed manifest has and its sender has not sent."""
        if not self.manifest.digest:
            return {}
        named = self.manifest.digests
        return {name: named[name] for name in named.keys() - self.bodies.keys()}

    def with_sections(
        self, bodies: Mapping[str, bytes], digests: Mapping[str, Digest] | None = None
    ) -> Incoming:
        """The same with more sections in canonical form, by name, and their digests."""
        more = _digests(bodies) if digests is None else digests
        return Incoming(self.manifest, {**self.bodies, **bodies}, {**self.digests, **more})


class SeenSections:
    """The shared sections that came last, of which nothing is each run's own.

    Threads may share one.
    """

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        self._bodies: Recent[bytes] = Recent(most_bytes, len)

    def get(self, digests: Iterable[str]) -> dict[str, bytes]:
        """The canonical forms of those of these sections that came, by digest."""
        return self._bodies.get(digests)

    def add(self, sections: Mapping[Digest, bytes]) -> None:
        """Remember sections by their digests, in canonical form."""
        self._bodies.add(sections.items())

    def read(self, data: bytes) -> Incoming:
        """Read a manifest.

        Raises:
            pydantic.ValidationError: It is none.
            DamagedRun: A section has no canonical form.
        """
        # Only the service reads so, and only it has this: a store in a folder does without.
        import msgspec

        try:
            members = _decoder().decode(data)
            texts = {
                name: bytes(raw) for name, raw in _decoder().decode(members["sections"]).items()
            }
        except (msgspec.DecodeError, KeyError, RecursionError):
            return Incoming.of(Manifest.model_validate_json(data))  # which says what is wrong
        shared: dict[str, bytes] = {name: texts[name] for name in SHARED if name in texts}
        digests = _digests(shared)
        seen = self.get(digests.values())
        digests = {name: digest for name, digest in digests.items() if digest in seen}
        # A run that goes on is kept as it is.
        if not digests or members.get("digest") in (None, b'""'):
            return Incoming.of(Manifest.model_validate_json(data))
        others = {name: text for name, text in texts.items() if name not in digests}
        document = _joined({**members, "sections": _joined(others)})
        incoming = Incoming.of(Manifest.model_validate_json(document))
        return incoming.with_sections({name: texts[name] for name in digests}, digests)


@cache
def _decoder() -> msgspec.json.Decoder[dict[str, msgspec.Raw]]:
    """Says where each value of a map ends, and leaves it as it is."""
    import msgspec

    return msgspec.json.Decoder(dict[str, msgspec.Raw])


def _digests(bodies: Mapping[str, bytes]) -> dict[str, Digest]:
    return {name: digest_bytes(body) for name, body in bodies.items()}


def _joined(members: Mapping[str, bytes | msgspec.Raw]) -> bytes:
    return b"{" + b",".join([*map(member, members, members.values())]) + b"}"


def member(name: str, value: bytes | msgspec.Raw) -> bytes:
    """A name and the JSON under it, as they stand in a map."""
    return _key(name) + bytes(value)


@lru_cache
def _key(name: str) -> bytes:
    return canonical_bytes(name) + b":"


def damaged_run(manifest: Manifest, error: Exception) -> DamagedRun:
    """Say that a manifest cannot be kept."""
    return DamagedRun(f"run '{manifest.id[:36]}'", f"{type(error).__name__}: {error}")
