"""What stands behind PyTorch's complaints about determinism: operation, cause, place and cure."""

from __future__ import annotations

import functools
import linecache
import os
import re
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final

from manifest.places import is_installed

_CURES: Final = Path(__file__).with_name("cures.toml")
_LIBRARIES: Final = (
    os.path.join(os.path.dirname(os.__file__), ""),
    os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), ""),
)
"""The folders of Python's own library and of this package."""

_MARKS: Final = (
    "deterministic implementation",
    "non-deterministic",
    "not deterministic",
    "uses CuBLAS",
)
"""One of them is in every text that is meant."""

# Within a traceback, as an error of a worker has it, the name of the error stands before the text.
_BEGIN: Final = r"^(?:[\w.]*(?:Error|Warning): )?"
_TEXTS: Final = (
    re.compile(
        _BEGIN + r"(?P<name>.+?) does not have a deterministic implementation, but you set "
        r"'torch\.use_deterministic_algorithms\(True(?P<warn>, warn_only=True)?\)'",
        re.MULTILINE,
    ),
    re.compile(
        _BEGIN + r"(?P<name>.+ attention) defaults to a non-deterministic algorithm\.",
        re.MULTILINE | re.IGNORECASE,
    ),
    re.compile(_BEGIN + r"(?P<name>cuDNN SDPA) is not deterministic\.", re.MULTILINE),
    re.compile(
        _BEGIN + r"Deterministic behavior was enabled .* because it uses (?P<name>cuBLAS) and",
        re.MULTILINE | re.IGNORECASE,
    ),
)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a complaint means, and what can be done."""

    name: str
    """What PyTorch calls the operation."""
    operation: str
    """What people call it."""
    cause: str
    cure: str
    source: str
    versions: str = ""
    """Of PyTorch that complain, where not all do."""
    evidence: str = ""
    """Whether the cure was tried (``measured``) or read (``documented``)."""
    place: str = ""
    """The line of the program that came to it, with its text; empty if it cannot be told."""

    def __str__(self) -> str:
        lines = [f"{self.operation} may give other bits each time"]
        lines[0] += f": {self.cause}" if self.cause else ""
        lines += [f"  at {self.place}"] if self.place else []
        lines += [f"  instead: {self.cure}"]
        lines += [f"  PyTorch {self.versions} only"] if self.versions else []
        if self.evidence == "documented":
            lines.append("  taken from the documentation; not tried on an accelerator")
        return "\n".join([*lines, f"  see {self.source}"])


def explain(
    complaint: BaseException | warnings.WarningMessage | str, *, frame: FrameType | None = None
) -> Explanation | None:
    """Say what an error or a warning of PyTorch about determinism means, and what to do instead.

    Args:
        complaint: The error, the warning (as `warnings.catch_warnings(record=True)` keeps it), or
            the text of either.
        frame: Where the program is, if the complaint does not tell.

    Returns:
        The explanation; None if it is about something else.

    Example:
        >>> try:  # doctest: +SKIP
        ...     loss.backward()
        ... except RuntimeError as error:
        ...     print(explain(error) or error)
    """
    text = str(getattr(complaint, "message", complaint))
    if not any(mark in text for mark in _MARKS):
        return None
    found = next((match for pattern in _TEXTS if (match := pattern.search(text))), None)
    if found is None:
        return None
    return explained(found["name"], place=_place(complaint, frame))


def explained(name: str, *, place: str = "") -> Explanation:
    """What is known of an operation, by the name that PyTorch gives it in a complaint."""
    return Explanation(name=name, place=place, **_known(name))


def _known(name: str) -> dict[str, str]:
    for entry in _cures():
        if any(fnmatch(name.lower(), pattern.lower()) for pattern in entry["names"]):
            known = {key: value for key, value in entry.items() if key != "names"}
            return {**known, "operation": known["operation"] or name}
    return {
        "operation": name,
        "cause": "PyTorch has no deterministic implementation of it",
        "cure": "deterministic('off') around this operation, if that is acceptable; or another "
        "operation, or this one on the CPU",
        "source": "https://docs.pytorch.org/docs/stable/generated/"
        "torch.use_deterministic_algorithms.html",
    }


@functools.cache
def _cures() -> list[dict[str, Any]]:
    with _CURES.open("rb") as file:
        entries = tomllib.load(file)["operation"]
    return [{"evidence": "documented", **entry} for entry in entries]


def _place(complaint: object, frame: FrameType | None) -> str:
    """The innermost line of the program's own; of what called it, if none is."""
    places = list(_lines_of(complaint))
    while frame is not None:
        places.insert(0, (frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    own = [(path, line) for path, line in places if _is_own(path)]
    if not own:
        return ""
    path, line = own[-1]
    text = linecache.getline(path, line).strip()
    return f"{os.path.relpath(path)}:{line}" + (f"  {text}" if text else "")


def _lines_of(complaint: object) -> Iterator[tuple[str, int]]:
    if isinstance(complaint, warnings.WarningMessage):
        yield complaint.filename, complaint.lineno
    trace: TracebackType | None = getattr(complaint, "__traceback__", None)
    while trace is not None:
        yield trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next


def _is_own(path: str) -> bool:
    return not is_installed(path) and not path.startswith(("<", *_LIBRARIES))
