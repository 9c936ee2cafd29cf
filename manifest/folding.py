"""The fold: from the journals of a run to its manifest.

Every entry carries facts as they became known; the fold lays them over one another. It needs no
particular entry but the first, so that a run cut short anywhere still has a manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from manifest.canonical import SCHEMA
from manifest.journal import Entry
from manifest.trail import is_torn, summarize

Document = dict[str, Any]

_TORN = "it ends amid a step, and why could not be written either, as on a full disk"
_MOST_SNAPSHOTS = 64  # by name; the journal names all


def fold(
    journals: Mapping[str, list[Entry]], trails: Mapping[str, Path], *, is_over: bool
) -> Document:
    """Make the document of a run from what its processes said.

    Args:
        journals: Entries by process; ``run`` is the run's own journal.
        trails: Trail files by process.
        is_over: Whether no process of the run lives any more.
    """
    own = journals["run"]
    origin = own[0]
    processes = {
        name: _process(entries, trails.get(name))
        for name, entries in journals.items()
        if name != "run" and entries
    }
    _settle_ranks(processes, journals)
    primary = _primary(processes)
    sections = sections_of(own)
    # The primary first: the others only add to it.
    for name, process in sorted(processes.items(), key=lambda item: item[0] != primary):
        if name == primary:
            _lay_over(sections, process["sections"])
        else:
            _add_shared(sections, process["sections"])
    everything = [entry for entries in journals.values() for entry in entries]
    document: Document = {
        "schema": SCHEMA,
        "id": origin["id"],
        "project": _last(everything, "about", "project") or origin["project"],
        "name": _last(everything, "about", "name") or origin.get("name"),
        "mode": origin["mode"],
        "started_at": _moment(origin["at"]),
        "replay_of": origin.get("replay_of"),
        "sections": {name: section for name, section in sections.items() if section},
        "processes": {
            name: process if name != primary else {**process, "sections": {}}
            for name, process in processes.items()
            if name == primary or process["rank"] is not None or _steps(process)
        },
        "notes": _notes(journals),
        **_ending(own, _mains(journals, processes, primary), is_over=is_over),
    }
    if _is_silently_torn(document, trails):
        document["notes"].append({"where": "trail", "what": _TORN})
    if restores := _restores(journals):
        document["restores"] = restores
    if document["status"] != "running":
        document["ended_at"] = _moment(max(entry["at"] for entry in everything))
    return document


def _is_silently_torn(document: Document, trails: Mapping[str, Path]) -> bool:
    # Where a program was killed, its trail is torn by that.
    has_ended = document["status"] in ("finished", "failed")
    is_said = any(note["where"] == "trail" for note in document["notes"])
    return has_ended and not is_said and any(map(is_torn, trails.values()))


def _process(entries: list[Entry], trail: Path | None) -> Document:
    # Where `record()` is called, what must be read first comes before it.
    start = next((entry for entry in entries if entry["kind"] == "process"), entries[0])
    return {
        "sections": sections_of(entries),
        "trail": summarize(trail) if trail is not None else None,
        "started_at": _moment(entries[0]["at"]),
        "ended_at": next((_moment(e["at"]) for e in entries if e["kind"] == "end"), None),
        "pid": start.get("pid"),
        "rank": start.get("rank"),
    }


def _settle_ranks(processes: Mapping[str, Document], journals: Mapping[str, list[Entry]]) -> None:
    # What a process joined is certain. What it was told is also inherited by its helpers, and by
    # a launcher from whoever started that.
    joined = {
        name: next((entry["rank"] for entry in journals[name] if entry["kind"] == "rank"), None)
        for name in processes
    }
    for name in sorted(processes, key=len):
        process = processes[name]
        if joined[name] is not None:
            process["rank"] = joined[name]
        elif process["rank"] in joined.values() or any(
            processes[above]["rank"] == process["rank"] for above in _above(name, processes)
        ):
            process["rank"] = None


def _above(name: str, processes: Mapping[str, Document]) -> list[str]:
    return [above for above in processes if name.startswith(f"{above}.")]


def _primary(processes: Mapping[str, Document]) -> str | None:
    # The first that trained, by rank; else the first that says what surrounded it; else the first.
    # The first by name: which of two forks begins sooner is another one in each run.
    def order(name: str) -> tuple[bool, bool, bool, int, int, str]:
        process = processes[name]
        rank, sections = process["rank"], process["sections"]
        is_bare = "environment" not in sections
        return (not _steps(process), is_bare, rank is None, rank or 0, len(name), name)

    return min(processes, key=order, default=None)


def _steps(process: Document) -> int:
    return process["trail"]["steps"] if process["trail"] else 0


def sections_of(entries: Iterable[Entry]) -> dict[str, Document]:
    """The sections that the entries of one process make, later facts laid over earlier ones."""
    sections: dict[str, Document] = {}
    for entry in entries:
        if entry["kind"] == "section":
            _lay_over(sections, {entry["section"]: entry["values"]})
        elif entry["kind"] == "seed":
            calls = sections.setdefault("seeds", {}).setdefault("calls", {})
            calls.setdefault(entry["place"], entry["seed"])
    snapshots = [entry for entry in entries if entry["kind"] == "snapshot"]
    if snapshots:
        latest = snapshots[-_MOST_SNAPSHOTS:]
        sections["snapshots"] = {
            "count": len(snapshots),
            "latest": {
                each["name"]: {"step": each["step"], "blob": each["blob"]} for each in latest
            },
        }
    return sections


def _lay_over(below: Document, above: Document) -> None:
    for key, value in above.items():
        present = below.get(key)
        if isinstance(value, dict) and isinstance(present, dict) and not _is_tagged(value):
            _lay_over(present, value)
        else:
            below[key] = dict(value) if isinstance(value, dict) else value


def _add_shared(sections: dict[str, Document], others: Mapping[str, Document]) -> None:
    # Workers and helpers do not train, but what they ran, read and drew is part of the run.
    for name in ("code", "inputs", "outputs"):
        found = {k: dict(v) if isinstance(v, dict) else v for k, v in others.get(name, {}).items()}
        known = sections.get(name, {})
        _lay_over(found, known)
        if found:
            sections[name] = found
    for key, value in others.get("environment", {}).items():
        if key.startswith("asked."):
            sections.setdefault("environment", {}).setdefault(key, value)
    seeds = sections.setdefault("seeds", {})
    for key in ("draws", "os_entropy_uses"):
        counts = others.get("seeds", {}).get(key, {})
        total = seeds.setdefault(key, {})
        for what, count in counts.items():
            total[what] = total.get(what, 0) + count


def _is_tagged(value: Document) -> bool:
    return len(value) == 1 and next(iter(value)).startswith("$")


def _notes(journals: Mapping[str, list[Entry]]) -> list[Document]:
    notes: list[Document] = []
    for entries in journals.values():
        for entry in entries:
            note = {"where": entry.get("where"), "what": entry.get("what")}
            if entry["kind"] == "note" and note not in notes:
                notes.append(note)
    return notes


def _mains(
    journals: Mapping[str, list[Entry]], processes: Mapping[str, Document], primary: str | None
) -> list[list[Entry]]:
    """The journals of those by whose end the run is judged: of every rank, if it has ranks."""
    others = [name for name in processes if processes[name]["rank"] is not None]
    return [journals[name] for name in dict.fromkeys([primary, *others]) if name is not None]


def _restores(journals: Mapping[str, list[Entry]]) -> list[Document]:
    """What was put back: things of one name and outcome are one item, in any process.

    What was to be put back later is left out once something came of it.
    """
    found: dict[tuple[str, str], Document] = {}
    for process, entries in sorted(journals.items()):
        for entry in entries:
            if entry["kind"] == "restore":
                fields = {name: entry[name] for name in ("what", "outcome", "reason")}
                new = {**fields, "process": process, "number": 0}
                item = found.setdefault((entry["what"], entry["outcome"]), new)
                item["number"] += entry["number"]
    settled = {what for what, outcome in found if outcome != "pending"}
    return [
        item
        for (what, outcome), item in found.items()
        if outcome != "pending" or what not in settled
    ]


def _ending(own: list[Entry], mains: list[list[Entry]], *, is_over: bool) -> Document:
    ending: Document = {"exit_code": None, "exit_signal": None, "error": None, "ended_at": None}
    ends = [next((entry for entry in entries if entry["kind"] == "end"), None) for entries in mains]
    ending["error"] = next((end["error"] for end in ends if end and end.get("error")), None)
    exited = next((entry for entry in own if entry["kind"] == "exit"), None)
    if exited is not None:
        ending["exit_code"], ending["exit_signal"] = exited["code"], exited["signal"]
    return {**ending, "status": _status(ends, exited, is_over=is_over)}


def _status(ends: list[Entry | None], exited: Entry | None, *, is_over: bool) -> str:
    if exited is not None:
        if exited["signal"]:
            return "crashed"
        return "finished" if exited["code"] == 0 else "failed"
    if not is_over:
        return "running"
    if not ends or None in ends:
        return "crashed"
    return "failed" if any(end and end.get("error") for end in ends) else "finished"


def _last(entries: list[Entry], kind: str, field: str) -> Any:
    return next((e[field] for e in reversed(entries) if e["kind"] == kind and e.get(field)), None)


def _moment(microseconds: int) -> str:
    moment = datetime.fromtimestamp(microseconds / 1e6, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
