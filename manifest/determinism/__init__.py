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
    from manifest.determinism.explaining import Explanation, explain
    from manifest.determinism.loading import loader_kwargs, seed_worker
    from manifest.determinism.operations import (
        deterministic_adaptive_avg_pool,
        deterministic_bincount,
        deterministic_index_select,
        deterministic_max_unpool,
        deterministic_median,
        deterministic_put,
        deterministic_reflection_pad,
    )
    from manifest.determinism.reports import Item, Report
    from manifest.determinism.samples import SeededSamples, sample_seed
    from manifest.determinism.seeding import seed_everything
    from manifest.determinism.switching import Deterministic, deterministic

__all__ = [
    "Deterministic",
    "Explanation",
    "Item",
    "Report",
    "SeededSamples",
    "deterministic",
    "deterministic_adaptive_avg_pool",
    "deterministic_bincount",
    "deterministic_index_select",
    "deterministic_max_unpool",
    "deterministic_median",
    "deterministic_put",
    "deterministic_reflection_pad",
    "explain",
    "loader_kwargs",
    "sample_seed",
    "seed_everything",
    "seed_worker",
]

_HOMES = {
    "Deterministic": "switching",
    "Explanation": "explaining",
    "Item": "reports",
    "Report": "reports",
    "SeededSamples": "samples",
    "deterministic": "switching",
    "deterministic_adaptive_avg_pool": "operations",
    "deterministic_bincount": "operations",
    "deterministic_index_select": "operations",
    "deterministic_max_unpool": "operations",
    "deterministic_median": "operations",
    "deterministic_put": "operations",
    "deterministic_reflection_pad": "operations",
    "explain": "explaining",
    "loader_kwargs": "loading",
    "sample_seed": "samples",
    "seed_everything": "seeding",
    "seed_worker": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
