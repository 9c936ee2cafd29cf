"""Places in the program: the file and line that its author would open."""

from __future__ import annotations

import os
from collections.abc import Collection
from types import FrameType

_INSTALLED = ("site-packages", "dist-packages")


def first_outside(frame: FrameType | None, names: Collection[str]) -> FrameType | None:
    """The first frame, from `frame` upwards, that runs no code of these packages or modules."""
    while frame is not None and (package_of(frame) in names or module_of(frame) in names):
        frame = frame.f_back
    return frame


def first_within(frame: FrameType | None, root: str) -> FrameType | None:
    """The first frame, from `frame` upwards, that runs code of the project in `root`."""
    while frame is not None and not is_within(frame.f_code.co_filename, root):
        frame = frame.f_back
    return frame


def package_of(frame: FrameType) -> str:
    """The package that a frame runs code of."""
    return module_of(frame).partition(".")[0]


def module_of(frame: FrameType) -> str:
    """The name of the module that a frame runs code of; empty if it has none."""
    name = frame.f_globals.get("__name__")
    return name if isinstance(name, str) else ""


def is_within(path: str, root: str) -> bool:
    """Whether a file belongs to the project in `root`, and not to an environment inside it."""
    if path[:1] == "<" or is_installed(path):
        return False
    return os.path.abspath(path).startswith(os.path.join(root, ""))


def is_installed(path: str) -> bool:
    """Whether a file belongs to an installed package."""
    return any(folder in path for folder in _INSTALLED)


def shown_place(path: str, line: int, root: str) -> str:
    """A place in few words, the same wherever project and packages lie."""
    for folder in _INSTALLED:
        _, found, below = path.rpartition(f"{folder}/")
        if found:
            return f"{below}:{line}"
    if is_within(path, root):
        path = os.path.relpath(path, root)
    return f"{path}:{line}"
