"""What changed within values: elements of lists, lines of texts and of files."""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence

from manifest.canonical import Json
from manifest.findings import Blobs, Found, Pair, is_tagged

_MOST_BYTES = 2_000_000
_MOST_STEPS = 10_000_000
_MOST_LINES = 400
_CONTEXT_LINES = 3
_LONGEST_NAME = 80

_Unit = tuple[str, str]


class Texts:
    """The differences within the values of one diff.

    Matching lines can take time that grows with the cube of their number, and files come from
    strangers: all texts of one diff share a number of steps, then only their sizes are told.
    """

    def __init__(self, blobs: Blobs | None, *, is_detailed: bool = True) -> None:
        self.blobs = blobs
        self._is_detailed = is_detailed
        self._steps_left = _MOST_STEPS

    def detail(self, found: Found, pair: Pair) -> str:
        """Describe what changed within a value, or nothing if the values themselves say it."""
        if not self._is_detailed:
            return ""
        before, after = found.before, found.after
        if isinstance(before, list) and isinstance(after, list):
            return self._changed_elements(before, after)
        if isinstance(before, str) and isinstance(after, str) and "\n" in before + after:
            return self._unified((found.key, found.key), before.splitlines(), after.splitlines())
        digests = _digests_of_text(found, pair)
        if digests is None or self._steps_left <= 0:
            return ""
        one, other = map(pair.text, digests)
        if one is None or other is None:
            return ""
        return self._changed_file(_names(found, pair), one, other)

    def _changed_file(self, names: tuple[str, str], before: bytes, after: bytes) -> str:
        sizes = f"{len(before)} and {len(after)} bytes"
        if max(len(before), len(after)) > _MOST_BYTES:
            return sizes
        try:
            one, other = (data.decode("utf-8").splitlines() for data in (before, after))
        except UnicodeDecodeError:
            return f"binary, {sizes}"
        return self._unified(names, one, other)

    def _unified(self, names: tuple[str, str], before: list[str], after: list[str]) -> str:
        start, end = _common_ends(before, after)
        start, end = max(0, start - _CONTEXT_LINES), max(0, end - _CONTEXT_LINES)
        one, other = before[start : len(before) - end], after[start : len(after) - end]
        if not self._affords(_steps(one, other)):
            return f"{len(before)} and {len(after)} lines"
        lines = difflib.unified_diff(
            one, other, f"before/{names[0]}", f"after/{names[1]}", n=_CONTEXT_LINES, lineterm=""
        )
        visible = [_shifted(line, start) for line in itertools.islice(lines, _MOST_LINES)]
        left = sum(1 for _ in lines)
        if left:
            visible.append(f"… {left} more line{'s' if left > 1 else ''}")
        return shown("\n".join(visible))

    def _changed_elements(self, before: list[Json], after: list[Json]) -> str:
        """Say which elements of a list changed, as in ``--lr 0.1 → 0.2``."""
        are_texts = all(isinstance(value, str) for value in (*before, *after))
        units = _arguments if are_texts else _elements
        one, other = units(before), units(after)
        if not (self._affords(len(one) * len(other)) and self._affords(_steps(one, other))):
            return f"{len(before)} and {len(after)} elements"
        matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
        changes = [
            change
            for kind, start, end, other_start, other_end in matcher.get_opcodes()
            if kind != "equal"
            for change in _changes(one[start:end], other[other_start:other_end])
        ]
        return shown("; ".join(changes))

    def _affords(self, steps: int) -> bool:
        if steps > self._steps_left:
            return False
        self._steps_left -= steps
        return True


def shown(text: str) -> str:
    """Make text fit for a model, which takes no lone surrogates."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def cut(text: str) -> str:
    """Keep the start of a text."""
    return text if len(text) <= _LONGEST_NAME else text[:_LONGEST_NAME] + "…"


def _steps(before: Sequence[Hashable], after: Sequence[Hashable]) -> int:
    """The most steps that difflib takes: each block found may look at every pair of equals."""
    counts, others = Counter(before), Counter(after)
    pairs = sum(count * others[item] for item, count in counts.items())
    return len(before) + len(after) + pairs * min(len(before), len(after))


def _names(found: Found, pair: Pair) -> tuple[str, str]:
    name = found.key.removeprefix("files.")
    if found.is_in_both:
        return name, name
    other_name = shown(pair.renamed[found.path[1]])
    return (name, other_name) if _is_absent(found.after) else (other_name, name)


def _is_absent(value: Json) -> bool:
    return is_tagged(value, "$absent")


def _digests_of_renamed(found: Found, pair: Pair) -> tuple[Json, Json] | None:
    files = pair.maps("code", "files")
    if found.section != "code" or len(found.path) != 2 or files is None:
        return None
    name, other_name = found.path[1], pair.renamed.get(found.path[1])
    if other_name is None or name > other_name:
        return None
    is_before = _is_absent(found.after)
    return files[0][name if is_before else other_name], files[1][other_name if is_before else name]


def _digests_of_text(found: Found, pair: Pair) -> tuple[Json, Json] | None:
    if not found.is_in_both:
        return _digests_of_renamed(found, pair)
    if found.section == "inputs":
        before, after = (_facts(facts).get("blob") for facts in found.values)
        return before, after
    is_file = found.section == "code" and found.path[0] == "files"
    is_patch = found.section == "code" and found.key == "git.patch"
    explains = is_file or (is_patch and not pair.differs("code", "files"))
    return found.values if explains else None


def _facts(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}


def _common_ends(before: list[str], after: list[str]) -> tuple[int, int]:
    """How many lines are the same at the start, and how many of the others at the end."""
    pairs = zip(before, after, strict=False)
    start = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    rest = zip(reversed(before[start:]), reversed(after[start:]), strict=False)
    return start, sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], rest))


def _shifted(line: str, by: int) -> str:
    hunk = re.fullmatch(r"@@ -(\d+)(\S*) \+(\d+)(\S*) @@", line)
    if hunk is None:
        return line
    return f"@@ -{int(hunk[1]) + by}{hunk[2]} +{int(hunk[3]) + by}{hunk[4]} @@"


def _arguments(elements: list[str]) -> list[_Unit]:
    """Take options together with their values: ``--lr 0.1`` and ``lr=0.1`` are one thing each."""
    units: list[_Unit] = []
    for element in elements:
        last, is_open = units[-1] if units else ("", ""), not element.startswith("-")
        name, equals, value = element.partition("=")
        if is_open and last[0] == "" and last[1].startswith("-"):
            units[-1] = (f"{last[1]} ", element)
        else:
            units.append((name + equals, value) if equals else ("", element))
    return units


def _elements(values: list[Json]) -> list[_Unit]:
    return [("", _written(value)) for value in values]


def _changes(before: list[_Unit], after: list[_Unit]) -> Iterator[str]:
    """Pair what has one name, then what is left if it is as many; say the rest was removed."""
    removed, added = [], list(after)
    for name, value in before:
        paired = next((unit for unit in added if name and unit[0] == name), None)
        if paired is None:
            removed.append(name + value)
        else:
            added.remove(paired)
            yield f"{name}{cut(value)} → {cut(paired[1])}"
    if len(removed) == len(added):
        for old, (name, value) in zip(removed, added, strict=True):
            yield f"{cut(old)} → {cut(name + value)}"
    else:
        yield from (f"removed {cut(old)}" for old in removed)
        yield from (f"added {cut(name + value)}" for name, value in added)


def _written(value: Json) -> str:
    try:
        return json.dumps(value, sort_keys=True)
    except (RecursionError, TypeError, ValueError):
        return "…"
