"""Replace a method of a type whose attributes cannot be set."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any


def replace_method(owner: type, name: str, function: Callable[..., Any]) -> None:
    """Let every object of a type written in C use another method, whoever bound its name before.

    The type stays the type it is: a subclass in its place would change what objects are of.

    Raises:
        TypeError: It cannot be replaced here; it depends on how CPython keeps types.
    """
    import ctypes  # the libraries that have such types loaded it already

    # What the read-only proxy refers to is the dict of the type itself.
    namespaces = [found for found in gc.get_referents(vars(owner)) if isinstance(found, dict)]
    if len(namespaces) == 1:
        namespaces[0][name] = function
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(owner))
    if getattr(owner, name, None) is not function:
        raise TypeError(f"{owner.__name__}.{name} cannot be replaced on this interpreter")
