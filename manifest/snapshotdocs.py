"""The document of a snapshot: found by name, read, and refused where it has not its form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from manifest.canonical import checked_digest
from manifest.errors import DamagedRun, DigestMismatch, NewerSchema, StateNotRestorable
from manifest.rundir import RunDirectory

SCHEMA = 1
MOST_SNAPSHOTS = 4096
"""How many of a process are kept, the newest."""

_LARGEST = 2**53
_SEED = re.compile("-?[0-9]{1,28}")

Document = dict[str, Any]


def find_snapshot(run: RunDirectory, name: str, *, process: str, rank: int | None) -> Document:
    """Read a snapshot of the process that this one continues.

    Raises:
        StateNotRestorable: There is none of that name, or it is not readable as one.
    """
    found = {
        owner: entry
        for owner, entries in run.journals().items()
        for entry in entries
        if entry["kind"] == "snapshot" and entry.get("name") == name
    }
    if not found:
        raise StateNotRestorable(
            f"run {run.id} has no snapshot '{name[:80]}'; it has {_names(run) or 'none'}"
        )
    owner = process if process in found else _of_rank(run, found, rank)
    if owner is None:
        raise StateNotRestorable(
            f"snapshot '{name[:80]}' was taken by {', '.join(sorted(found))}, and none of them is "
            f"this process, {process}; of several ranks, each takes its own"
        )
    return _checked(read_document(run, found[owner].get("blob")))


def read_document(run: RunDirectory, digest: Any) -> Document:
    """Read what a snapshot keeps under a digest.

    Raises:
        StateNotRestorable: It is not there, was changed, or is no map.
    """
    content: Document
    try:
        content = json.loads(run.get_blob(checked_digest(str(digest))))
    except KeyError:
        raise StateNotRestorable(
            f"the bytes of this snapshot are not there any more; the newest {MOST_SNAPSHOTS} of "
            "a process are kept"
        ) from None
    except (ValueError, OSError, RecursionError, DigestMismatch) as error:
        raise StateNotRestorable(f"a snapshot cannot be read: {error}") from error
    expect(isinstance(content, dict), "a map")
    return content


def _checked(snapshot: Document) -> Document:
    schema = snapshot.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise NewerSchema(schema, SCHEMA, "this snapshot")
    expect(schema == SCHEMA, f"schema {SCHEMA}")
    expect(_is_map_of_maps(snapshot.get("generators")), "generators by name")
    loaders: Any = snapshot.get("loaders")
    expect(isinstance(loaders, list), "a list of loaders")
    for entry in loaders:
        _check_loader(entry)
    return snapshot


def _check_loader(entry: Any) -> None:
    expect(isinstance(entry, dict), "a map for each loader")
    expect(entry.get("name") is None or type(entry.get("name")) is str, "a name of text")
    expect(type(entry.get("place")) is str, "a place of text")
    expect(_is_count(entry.get("ordinal")), "an ordinal")
    expect(isinstance(entry.get("shape"), dict), "facts of the loader")
    expect(_is_map_of_maps(entry.get("generators")), "generators of the loader by name")
    position = entry.get("position", False)
    if position is None:
        return
    expect(isinstance(position, dict), "a position")
    expect(_is_count(position.get("count")), "a number of batches")
    seed = position.get("base_seed")
    expect(type(seed) is str and _SEED.fullmatch(seed) is not None, "a seed")
    expect(position.get("epoch") is None or _is_count(position["epoch"]), "an epoch")
    expect(position.get("refusal") is None or type(position["refusal"]) is str, "a reason")
    expect(type(position.get("began")) is str, "what the iterator began from")
    expect("first" in position, "what its first batch came from")
    ahead = position.get("ahead", 0)
    expect(_is_count(ahead) and ahead <= position["count"], "a number of batches held")
    expect(isinstance(position.get("before", []), list), "what those came from")
    index = position.get("last_index")
    expect(index is None or type(index) is str, "a digest of what the sampler gave last")


def _is_map_of_maps(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, dict) for each in value.values())


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST


def expect(is_so: bool, what: str) -> None:  # noqa: FBT001 -- reads as a sentence
    """Refuse what is not as it is expected.

    Raises:
        StateNotRestorable: It is not.
    """
    if not is_so:
        raise StateNotRestorable(f"a snapshot cannot be read: expected {what}")


def _names(run: RunDirectory) -> str:
    names = [
        str(entry.get("name"))[:40]
        for entries in run.journals().values()
        for entry in entries
        if entry["kind"] == "snapshot"
    ]
    shown = ", ".join(names[-5:])
    return f"{len(names)}, the last are {shown}" if len(names) > 5 else shown


def _of_rank(run: RunDirectory, found: Mapping[str, Document], rank: int | None) -> str | None:
    try:
        processes = run.document()["processes"]
    except DamagedRun:
        return next(iter(found)) if len(found) == 1 else None
    ranks = {name: processes.get(name, {}).get("rank") for name in found}
    if len(ranks) == 1 and None in (rank, *ranks.values()):
        return next(iter(ranks))
    owners = [name for name in ranks if ranks[name] == rank]
    return owners[0] if rank is not None and len(owners) == 1 else None
