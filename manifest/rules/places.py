"""Differences of place alone: the project, or the interpreter, lies in another folder."""

from __future__ import annotations

import re

from manifest.canonical import Json
from manifest.findings import DROPPED, Found, Judgement, Pair, written


def relocated(found: Found, pair: Pair) -> Judgement | None:
    """The project lies in another folder: a path below it is still the same path."""
    before_root, after_root = pair.values("command", "root")
    if before_root == after_root or not (_is_folder(before_root) and _is_folder(after_root)):
        return None
    if (found.section, found.key) == ("command", "root") or not found.is_in_both:
        return None
    before, after = written(found.before), written(found.after)
    if before is None or after is None:
        return None
    is_same = _without(before, before_root) == _without(after, after_root)
    return DROPPED if is_same else None


def _is_folder(root: Json) -> bool:
    return isinstance(root, str) and len(root) > 1


def _without(text: str, root: str) -> str:
    escaped = re.escape((written(root) or "")[1:-1])
    return re.sub(f"""(?<=["':=, ]){escaped}(?=["'/:, ])""", "\0", text)


def link(_found: Found, _pair: Pair) -> Judgement | None:
    """Where else a run is kept tells which run it is, and decides nothing."""
    return DROPPED


def command(found: Found, pair: Pair) -> Judgement | None:
    """The kind repeats the arguments, and the interpreter's path what is installed there."""
    if found.key == "kind":
        return Judgement("informational", "follows from argv")
    return _interpreter_path(pair) if found.key == "executable" else None


def interpreter(found: Found, pair: Pair) -> Judgement | None:
    """The interpreter says its own paths too."""
    paths = ("python.executable", "python.prefix", "python.base_prefix", "python.path")
    return _interpreter_path(pair) if found.key in paths else None


def _interpreter_path(pair: Pair) -> Judgement | None:
    """Where an interpreter lies decides nothing if it is of one version with the same packages."""
    if not pair.agrees("environment", "python.version") or not pair.before.get("packages"):
        return None
    if any(section == "packages" for section, _ in pair.differing):
        return None
    return Judgement("informational", "another path; Python and all packages are of one version")
