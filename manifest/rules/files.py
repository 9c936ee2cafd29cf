"""Differences of files: source that a run executed, what it read, what it wrote."""

from __future__ import annotations

import io
import tokenize
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

from manifest.canonical import Json
from manifest.findings import DROPPED, Found, Judgement, Pair, is_tagged, written

_LARGEST_PROGRAM_BYTES = 500_000
_REVISION: Final = ("git.tree", "git.commit", "git.patch", "git.untracked", "git.dirty")
_SUBMODULES: Final = "git.submodules"


def source_file(found: Found, pair: Pair) -> Judgement | None:
    """Source that a run executed: elsewhere, with other comments, or really another."""
    if found.path[0] != "files" or len(found.path) != 2:
        return None
    if not found.is_in_both:
        return _source_of_one(found, pair)
    if found.key.endswith(".py") and _is_same_program(found, pair):
        return Judgement("informational", "only comments, blank lines or spacing differ")
    return None


def _source_of_one(found: Found, pair: Pair) -> Judgement:
    files = pair.maps("code", "files")
    if files is not None and all(_only_value(found) in each.values() for each in files):
        return Judgement("informational", "the other run executed the same text under another name")
    other_name = pair.renamed.get(found.path[1])
    if other_name is not None:
        return _source_renamed(found.path[1], other_name)
    contents = [_content(facts) for facts in pair.values("inputs", found.path[1])]
    if None not in contents and _is_comparable(*contents):
        # Both runs read it, which is judged there.
        return (
            Judgement("informational", "the other run read the same content")
            if contents[0] == contents[1]
            else DROPPED
        )
    return Judgement("possible", "only one of the runs executed this file")


def _source_renamed(name: str, other_name: str) -> Judgement:
    if name > other_name:
        return Judgement("informational", f"renamed; what changed in it is told of {other_name}")
    return Judgement("certain", f"in the other run a text much like it was {other_name}")


def _only_value(found: Found) -> Json:
    lacks_before = is_tagged(found.before, "$absent") or not found.was_captured_before
    return found.after if lacks_before else found.before


def _is_same_program(found: Found, pair: Pair) -> bool:
    texts = [pair.text(digest) for digest in found.values]
    if not all(text is not None and len(text) <= _LARGEST_PROGRAM_BYTES for text in texts):
        return False
    try:
        before, after = (_tokens(text or b"") for text in texts)
    except (SyntaxError, ValueError, tokenize.TokenError):
        return False
    return before == after


def _tokens(text: bytes) -> list[tuple[int, str]]:
    # By tokens, not by syntax tree: building a tree from a stranger's text can end the process.
    passed_over = (tokenize.COMMENT, tokenize.NL)
    shapeless = (tokenize.INDENT, tokenize.NEWLINE)
    return [
        (token.type, "" if token.type in shapeless else token.string)
        for token in tokenize.tokenize(io.BytesIO(text).readline)
        if token.type not in passed_over
    ]


def revision(found: Found, pair: Pair) -> Judgement | None:
    """Where the files that ran are known, the revision that they came from adds nothing."""
    if found.path[0] not in (*_REVISION, _SUBMODULES):
        return None
    if pair.agrees("code", "git.tree") and not pair.differs("code", _SUBMODULES):
        return Judgement("informational", "every file that git knows is the same")
    files = pair.maps("code", "files")
    if files and all(files):
        same = not pair.differs("code", "files")
        executed = "is the same" if same else "is judged by itself"
        return Judgement("informational", f"every file that the runs executed {executed}")
    causes = [key for key in _REVISION[1:] if pair.differs("code", key)]
    if found.key == "git.tree" and causes:
        return Judgement("informational", f"follows from {' and '.join(causes)}, judged apart")
    return None


def input_file(found: Found, pair: Pair) -> Judgement | None:
    """A file is its content: place and time decide nothing where the content is known."""
    if _is_told_as_source(found, pair) or _is_told_as_installed(found.path[0], pair):
        return DROPPED
    if not found.is_in_both:
        return _input_of_one(found, pair)
    before, after = found.values
    if not isinstance(before, dict) or not isinstance(after, dict):
        return None
    contents = _content(before), _content(after)
    if None not in contents and _is_comparable(*contents):
        return DROPPED if contents[0] == contents[1] else _another_content(found, pair)
    if before.get("size") != after.get("size") or ("missing" in before) != ("missing" in after):
        return _another_content(found, pair)
    if "missing" in before or before.get("mtime_us") == after.get("mtime_us"):
        return DROPPED
    return Judgement("possible", "of one size, changed at other times, its content not recorded")


def _is_told_as_source(found: Found, pair: Pair) -> bool:
    # What a run executes, or is given on its command line, it often reads as well.
    files = pair.maps("code", "files")
    if files is None or not pair.differs("code", f"files.{found.path[0]}"):
        return False
    return not found.is_in_both or all(found.path[0] in each for each in files)


def _is_told_as_installed(path: str, pair: Pair) -> bool:
    # Python reads the source of a package only where it has not compiled it before.
    installed = pair.maps("code", "installed")
    origins = pair.maps("environment", "packages.origins")
    if installed is None or origins is None:
        return False
    return all(path in _sources(*each) for each in zip(installed, origins, strict=True))


def _sources(installed: dict[str, Json], origins: dict[str, Json]) -> Iterator[str]:
    for name, files in installed.items():
        origin = origins.get(name)
        if isinstance(files, dict) and isinstance(origin, dict):
            folder = unquote(str(origin.get("url")).removeprefix("file://")).rstrip("/")
            yield from (f"{folder}/{relative}" for relative in files)


def _content(facts: Json) -> str | None:
    if not isinstance(facts, dict):
        return None
    digest = facts.get("digest", facts.get("blob"))
    return digest if isinstance(digest, str) else None


def _is_comparable(before: str | None, after: str | None) -> bool:
    algorithms = {(digest or "").rpartition(":")[0] for digest in (before, after)}
    return len(algorithms) == 1


def _another_content(found: Found, pair: Pair) -> Judgement | None:
    if any(found.key in each.get("outputs", {}) for each in (pair.before, pair.after)):
        return Judgement("possible", "the runs read other content, which a run also wrote itself")
    return None


def _input_of_one(found: Found, pair: Pair) -> Judgement:
    facts = _only_value(found)
    content = _content(facts)
    inputs = [each.get("inputs", {}).values() for each in (pair.before, pair.after)]
    if content and all(any(_content(other) == content for other in each) for each in inputs):
        return Judgement("informational", "the other run read the same content from elsewhere")
    if isinstance(facts, dict) and "missing" in facts:
        return Judgement("informational", "only one of the runs looked for it, and found nothing")
    return Judgement("possible", "only one of the runs read it")


def output_file(found: Found, _: Pair) -> Judgement | None:
    """What a run wrote is its result."""
    timeless = [
        written({**facts, "mtime_us": None}) if isinstance(facts, dict) else None
        for facts in found.values
    ]
    if None not in timeless and timeless[0] == timeless[1]:
        return DROPPED
    return Judgement("informational", "a result of the run, not a cause")
