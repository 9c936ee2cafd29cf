"""Make the next run reproducible: seeds, switches, loaders and operations, each in one line.

::

    from manifest.determinism import deterministic, seed_everything

    print(seed_everything(1))
    print(deterministic())

Nothing here acts unless it is called. What is offered is loaded when it is first asked for, so that
whoever wants a seed alone imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manifest.determinism.reports import Item, Report
    from manifest.determinism.seeding import seed_everything
    from manifest.determinism.switching import Deterministic, deterministic

__all__ = [
    "Deterministic",
    "Item",
    "Report",
    "deterministic",
    "seed_everything",
]

_HOMES = {
    "Deterministic": "switching",
    "Item": "reports",
    "Report": "reports",
    "deterministic": "switching",
    "seed_everything": "seeding",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
