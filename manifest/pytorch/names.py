"""Names of parameters, such as ``layers.0.weight``, learnt while modules are built.

Only modules are remembered, weakly, and what contains what; names are put together when they are
first needed. A module that was copied or unpickled is built behind the hooks and has no name.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch.nn import Module
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

_DEEPEST = 64


class ModuleNames:
    """Remembers which module was made part of which, and under what name."""

    def __init__(self) -> None:
        # By id, as a module may define equality of its own.
        self._modules: dict[int, weakref.ref[Module]] = {}
        self._parents: dict[int, tuple[weakref.ref[Module], str]] = {}
        self._is_installed = False

    def install(self) -> None:
        """Learn of every module built from now on."""
        if not self._is_installed:
            self._is_installed = True
            register_module_parameter_registration_hook(_guarded(self._note_parameter))
            register_module_module_registration_hook(_guarded(self._note_child))

    def by_parameter(self) -> dict[int, str]:
        """The qualified name of every parameter of a living module, by the id of the parameter."""
        names: dict[int, str] = {}
        for reference in list(self._modules.values()):
            module = reference()
            if module is None:
                continue
            prefix = self._prefix(module)
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    names.setdefault(id(parameter), prefix + name)
        return names

    def _note_parameter(self, module: Module, name: str, parameter: object) -> None:
        if id(module) not in self._modules:
            self._modules[id(module)] = weakref.ref(module, self._forgetting(id(module)))

    def _note_child(self, parent: Module, name: str, child: Module | None) -> None:
        if child is None:
            return
        known = self._parents.get(id(child))
        if known is not None and known[0]() is not None:
            return
        self._parents[id(child)] = (weakref.ref(parent), name)
        weakref.finalize(child, self._parents.pop, id(child), None).atexit = False

    def _prefix(self, module: Module) -> str:
        parts: list[str] = []
        for _ in range(_DEEPEST):
            reference, name = self._parents.get(id(module), (None, ""))
            parent = reference() if reference is not None else None
            if parent is None or parent._modules.get(name) is not module:
                break
            parts.append(name + ".")
            module = parent
        return "".join(reversed(parts))

    def _forgetting(self, key: int) -> Callable[[object], None]:
        modules = self._modules

        def forget(_: object) -> None:
            modules.pop(key, None)

        return forget


def parameter_names(groups: Iterable[Mapping[str, Any]], known: Mapping[int, str]) -> list[str]:
    """Name the parameters of an optimizer's groups, in order, each name once."""
    names: list[str] = []
    for group_index, group in enumerate(groups):
        given = group.get("param_names") or ()
        for index, parameter in enumerate(group["params"]):
            if index < len(given):
                names.append(str(given[index]))
            else:
                names.append(known.get(id(parameter), f"group{group_index}.param{index}"))
    return unique(names)


def unique(names: Iterable[str]) -> list[str]:
    """Tell equal names apart: the second ``weight`` becomes ``weight#2``."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return result


def _guarded(hook: Callable[[Module, str, Any], None]) -> Callable[[Module, str, Any], None]:
    def guarded(module: Module, name: str, value: Any) -> None:
        # Names are a comfort; building the program's model is not to fail for them.
        try:
            hook(module, name, value)
        except Exception:
            return

    return guarded
