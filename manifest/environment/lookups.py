"""Environment variables that the program itself looks up by name.

Libraries look up hundreds; those that matter are on the list of `variables`. Here it is the code
of the project that asks, in whatever words it has for a seed or a rate. What merely goes through
the whole environment asks for nothing. `os.environ` stays the object that it is, with the errors
that it raises; only the dict inside it, which no documented call shows, is another.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, Final

from manifest.canonical import ABSENT, Json
from manifest.places import is_within, module_of

_MOST_NAMES: Final = 256
# Take a name from the program and look it up in its place.
_ON_BEHALF: Final = (
    "omegaconf",
    "decouple",
    "environs",
    "click.core",
    "jsonargparse",
    "configargparse",
)

_Asked = Callable[[str, Json], None]


class Lookups:
    """The variables that the project's code has asked for in this process."""

    def __init__(self) -> None:
        self._names: set[bytes] = set()
        self._files: dict[str, bool] = {}
        self._started: dict[bytes, bytes] = {}
        self._root = ""
        self._on_first: _Asked | None = None
        self._salt: Callable[[], bytes] = bytes
        self._passed_through: frozenset[CodeType] = frozenset()
        self._subscript = -1

    def begin(self, root: str, salt: Callable[[], bytes], on_first: _Asked) -> None:
        """Notice for one run.

        Args:
            root: The folder of the project.
            salt: What stand-ins of secrets are made with.
            on_first: Told, by name, what the program was started with of each variable that it
                asks for; a stand-in where that looks like a secret.
        """
        self._root = root
        self._salt = salt
        self._names = set()
        self._files = {}
        self._started = dict(os.environ._data)  # type: ignore[attr-defined]
        self._on_first = on_first

    def install(self) -> None:
        """Hear of look-ups from now on; `end` silences it."""
        self._passed_through = frozenset(
            code
            for function in (
                os.environ.get,
                os.environ.pop,
                os.environ.setdefault,
                os.environ.__contains__,
                os.environ.__getitem__,
                os.getenv,
                os.getenvb,
                os.path.expandvars,
            )
            for code in _codes_of(function)
        )
        self._subscript = _opcode_of_subscript()
        data = _noticing(os.environ._data, self)  # type: ignore[attr-defined]
        os.environ._data = os.environb._data = data  # type: ignore[attr-defined]

    def end(self) -> None:
        """Notice no more."""
        self._on_first = None

    def looked_up(self, name: bytes, frame: FrameType | None) -> None:
        """Note a look-up that reached the environment from `frame`; never raises."""
        if self._on_first is None or name in self._names:
            return
        try:
            if self._is_asked_by_project(frame):
                self._note(name, self._on_first)
        except Exception:  # looking something up must not fail for being noticed
            pass

    def _is_asked_by_project(self, frame: FrameType | None) -> bool:
        direct = frame
        while frame is not None and frame.f_code in self._passed_through:
            frame = frame.f_back
        while frame is not None and module_of(frame).startswith(_ON_BEHALF):
            direct, frame = None, frame.f_back
        if frame is None or not self._is_of_project(frame.f_code.co_filename):
            return False
        return frame is not direct or self._is_subscript(frame)

    def _is_of_project(self, path: str) -> bool:
        known = self._files.get(path)
        if known is None:
            known = self._files[path] = is_within(path, self._root)
        return known

    def _is_subscript(self, frame: FrameType) -> bool:
        # `dict(os.environ)` comes here too, for every name that there is.
        code, at = frame.f_code.co_code, frame.f_lasti
        while at > 0 and code[at] == 0:  # room that the interpreter keeps behind an instruction
            at -= 2
        return code[at] == self._subscript

    def _note(self, key: bytes, on_first: _Asked) -> None:
        if len(self._names) >= _MOST_NAMES:
            return
        self._names.add(key)
        # Only now: what is imported here takes milliseconds, and few programs ask for anything.
        from manifest.environment import asked

        name = os.fsdecode(key)
        if asked.is_kept(name):
            found = self._started.get(key)
            known = None if found is None else os.fsdecode(found)
            on_first(name, ABSENT if known is None else asked.kept(name, known, self._salt()))


def _codes_of(function: Callable[..., object]) -> Iterator[CodeType]:
    # Newer releases of Python look variables up in a function inside `expandvars`.
    code: CodeType = function.__code__
    yield code
    yield from (part for part in code.co_consts if isinstance(part, CodeType))


def _noticing(data: dict[bytes, bytes], lookups: Lookups) -> dict[bytes, bytes]:
    get = dict.__getitem__
    looked_up, frame = lookups.looked_up, sys._getframe
    own = os.environ.__getitem__.__code__

    class Data(dict):  # type: ignore[type-arg]
        __slots__ = ()

        def __getitem__(self, name: Any) -> Any:
            caller = frame(1)
            if caller.f_code is own:
                looked_up(name, caller.f_back)
            return get(self, name)

    return Data(data)


def _opcode_of_subscript() -> int:
    class Probe:
        def __getitem__(self, _: object) -> int:
            frame = sys._getframe(1)
            code, at = frame.f_code.co_code, frame.f_lasti
            while at > 0 and code[at] == 0:
                at -= 2
            return code[at]

    return Probe()[0]
