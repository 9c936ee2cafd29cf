"""The text of a golden: a line for each step, made to be kept in git and looked at in a diff.

Digests are cut short, to 12 hexadecimal digits of a stream and 6 of a tensor: enough that what
differs shows, and which tensor. Both sides of a comparison are read from such a text, so that they
are cut alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from manifest.canonical import Json
from manifest.errors import GoldenInvalid
from manifest.findings import Sections
from manifest.leaves import SHARED, LeafWriter
from manifest.numbers import is_unobserved
from manifest.streams import DIGEST_SIZE, ROW_SIZE, STREAMS
from manifest.trail import Trail

SCHEMA: Final = 1

_DIGEST = 12
_LEAF = 6
_NOTHING = "-"
_MOST_LEAVES = 512  # of a stream, beyond which only those of each power of two are kept
_STREAMS_OF_LEAVES = (SHARED, "grad", "param")
_HEXADECIMAL = re.compile(r"[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Golden:
    """What a training computed, and in which surroundings."""

    test: str
    trail: Trail
    settings: Sections


def written(test: str, trail: Trail, settings: Sections) -> str:
    """A golden as text; the same training in the same surroundings gives the same text."""
    document = {
        "schema": SCHEMA,
        "test": test,
        "algorithm": trail.algorithm,
        "settings": {name: dict(sorted(each.items())) for name, each in sorted(settings.items())},
        "columns": " ".join(("step", "loss", *(f"digest-of-{stream}" for stream in STREAMS))),
        "steps": list(_rows(trail)),
        "tensors": list(_tables(trail)),
    }
    return json.dumps(document, indent=2) + "\n"


def read(text: str) -> Golden:
    """The golden that a text holds.

    Raises:
        GoldenInvalid: It holds none, or one of a newer Manifest.
    """
    try:
        document = json.loads(text)
        if document["schema"] != SCHEMA:
            raise GoldenInvalid(f"of schema {document['schema']!r:.20}, not {SCHEMA}")
        settings = {str(name): dict(values) for name, values in document["settings"].items()}
        return Golden(str(document["test"]), _trail(document), settings)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise GoldenInvalid(f"it cannot be read ({type(error).__name__}: {error})") from error


def _rows(trail: Trail) -> Iterator[str]:
    losses = trail.losses
    width = len(str(trail.steps))
    for step in range(trail.steps):
        digests = [trail.digest(step, stream) for stream in STREAMS]
        columns = [f"{_NOTHING:<{_DIGEST}}" if d is None else d.hex()[:_DIGEST] for d in digests]
        has_loss = step < len(losses) and not is_unobserved(losses[step])
        loss = repr(losses[step]) if has_loss else _NOTHING
        yield f"{step:>{width}}  {loss:<22} {' '.join(columns)}".rstrip()


def _tables(trail: Trail) -> Iterator[dict[str, Json]]:
    """The names of tensors, and of generators, each set with the digests at some steps."""
    tables: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for stream in _STREAMS_OF_LEAVES:
        latest = ""
        for step in trail.leaves.steps(stream):
            leaves = trail.leaves.at(step, stream) or {}
            digests = " ".join(leaf.hex()[:_LEAF] for leaf in leaves.values())
            if digests != latest and _is_kept(step, len(leaves)):
                latest = digests
                table = tables.setdefault(tuple(leaves), {})
                table.setdefault(stream, []).append(f"{step}  {digests}")
    for names, rows in tables.items():
        yield {"names": list(names), **rows}


def _is_kept(step: int, names: int) -> bool:
    return step * names < _MOST_LEAVES or step & (step - 1) == 0


def _trail(document: Mapping[str, Any]) -> Trail:
    algorithm = str(document["algorithm"])
    header = {
        "schema": 1,
        "algorithm": algorithm,
        "streams": STREAMS,
        "row": ROW_SIZE,
    }
    rows = b"".join(_row(step, text) for step, text in enumerate(document["steps"]))
    frames = b"".join(_frames(document["tensors"]))
    beside = {".tensors": frames}
    return Trail.of_parts(
        json.dumps(header).encode(), rows, lambda suffix: beside.get(suffix, b""), None
    )


def _row(expected: int, text: str) -> bytes:
    step, _, *digests = text.split()
    if int(step) != expected or len(digests) != len(STREAMS):
        raise ValueError(f"expected step {expected}, found {text!r:.60}")
    return b"".join(_bytes("" if d == _NOTHING else d, _DIGEST, DIGEST_SIZE) for d in digests)


def _frames(tables: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    writer = LeafWriter()
    for table in tables:
        names = tuple(str(name) for name in table["names"])
        for stream in _STREAMS_OF_LEAVES:
            for text in table.get(stream, ()):
                step, *leaves = text.split()
                if len(leaves) != len(names):
                    raise ValueError(f"expected {len(names)} digests, found {text!r:.60}")
                digests = [_bytes(leaf, _LEAF, DIGEST_SIZE) for leaf in leaves]
                yield writer.frames(_step(step), stream, names, digests)


def _step(text: str) -> int:
    step = int(text)
    if not 0 <= step < 2**32:
        raise ValueError(f"expected a step, found {text!r:.20}")
    return step


def _bytes(text: str, most: int, size: int) -> bytes:
    if len(text) > most or _HEXADECIMAL.fullmatch(text) is None:
        raise ValueError(f"expected {most} hexadecimal digits, found {text!r:.40}")
    return bytes.fromhex(text).ljust(size, b"\0")
