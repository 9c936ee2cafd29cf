"""Call back when the program imports a module, before it can use it.

Nothing is imported on the program's behalf: a hook waits until the program itself asks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Callback = Callable[[ModuleType], None]


def when_imported(name: str, callback: Callback) -> None:
    """Call `callback(module)` once the module is complete; at once, if it is there already."""
    if is_imported(name):
        callback(sys.modules[name])
        return
    finder = _installed()
    finder.callbacks.setdefault(name, []).append(callback)


def is_imported(name: str) -> bool:
    """Whether a module is there and complete."""
    module = sys.modules.get(name)
    return module is not None and not _is_initializing(module)


# `importlib.abc` is not used: it imports `tempfile`, and with it `random`.
class _Finder:
    def __init__(self) -> None:
        self.callbacks: dict[str, list[Callback]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.callbacks:
            return None
        spec = self._found_by_others(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self.callbacks.pop(fullname))  # type: ignore[assignment]
        return spec

    def _found_by_others(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        for finder in sys.meta_path:
            find_spec = getattr(finder, "find_spec", None)
            if finder is self or find_spec is None:
                continue
            spec = find_spec(fullname, path, target)
            if isinstance(spec, ModuleSpec):
                return spec
        return None


class _Loader:
    """Stands before the real loader until the module has run, then leaves no trace."""

    def __init__(self, loader: Any, callbacks: list[Callback]) -> None:
        self._loader = loader
        self._callbacks = callbacks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._bind(module)
        for callback in self._callbacks:
            callback(module)

    def _bind(self, module: ModuleType) -> None:
        # As the import system does right after this, so that callbacks find it by its whole name.
        package, _, name = module.__name__.rpartition(".")
        if package in sys.modules:
            setattr(sys.modules[package], name, module)


def _installed() -> _Finder:
    for finder in sys.meta_path:
        if isinstance(finder, _Finder):
            return finder
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    return finder


def _is_initializing(module: ModuleType) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))
