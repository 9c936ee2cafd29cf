"""What a loader is: everything of it that decides which samples it gives, in which order.

It is neither iterated nor drawn from, and no property of the program's is asked.
"""

from __future__ import annotations

import array
import functools
import threading
import weakref
from collections.abc import Callable, Sequence
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch
from torch.utils.data import IterableDataset
from xxhash import xxh3_128_hexdigest

from manifest import states
from manifest.canonical import Json, failed, plain
from manifest.pytorch.statedicts import state_dict_digest
from manifest.pytorch.tensors import fingerprint

_MOST_INDICES = 1_000_000
_MOST_SEEDS = 16
_LONGEST_TEXT = 200

_OF_LOADER = (
    "batch_size",
    "drop_last",
    "num_workers",
    "prefetch_factor",
    "persistent_workers",
    "pin_memory",
)
_OF_SAMPLER = (
    "batch_size",
    "drop_last",
    "epoch",
    "initial_seed",
    "num_replicas",
    "num_samples",
    "rank",
    "replacement",
    "seed",
    "shuffle",
)

Facts = dict[str, Json]


class Iterated:
    """A loader as it is described, and the iterators that were made of it."""

    def __init__(self, loader: object, facts: Facts) -> None:
        self.name = ""
        self.loader = weakref.ref(loader)
        self.thread = threading.get_ident()
        self.facts = facts
        self.iterators = 0
        self.base_seeds: list[Json] = []
        self.epochs: list[Json] = []

    def add(self, iterator: Any, epoch: int | None) -> None:
        """Take note of one more iterator."""
        self.iterators += 1
        if len(self.base_seeds) < _MOST_SEEDS:
            self.base_seeds.append(getattr(iterator, "_base_seed", None))
            if epoch is not None:
                self.epochs.append(epoch)

    def counts(self) -> Facts:
        """What is known of its iterators."""
        counts: Facts = {"iterators": self.iterators, "base_seed": list(self.base_seeds)}
        return {**counts, "epochs": list(self.epochs)} if self.epochs else counts


def shape_of(loader: Any) -> Facts:
    """What tells one loader of a program from another, and must be as it was to continue it."""
    batches, sampler = loader.batch_sampler, loader.sampler
    return {
        "loader": named(type(loader)),
        "dataset": named(type(loader.dataset)),
        "dataset_length": _attempt(lambda: _length(loader.dataset)),
        "batch_size": plain(loader.batch_size),
        "drop_last": plain(loader.drop_last),
        "num_workers": plain(loader.num_workers),
        "batch_sampler": None if batches is None else named(type(batches)),
        "sampler": named(type(sampler)),
        **_order_of("batch_sampler", batches),
        **_order_of("sampler", sampler),
    }


def _order_of(prefix: str, sampler: object) -> Facts:
    """What decides the order of a sampler that draws from no generator of the program's."""
    attributes = attributes_of(sampler)
    return {
        f"{prefix}.{name}": plain(attributes[name])
        for name in ("seed", "num_replicas", "rank")
        if type(attributes.get(name)) is int
    }


def described(loader: Any) -> Facts:
    """All that is known of a loader before it is iterated for the first time."""
    batches, sampler = loader.batch_sampler, loader.sampler
    if loader.batch_size is None and batches is not None:
        sampler = attributes_of(batches).get("sampler")  # its own; the loader's is not used then
    facts = {name: _attempt(functools.partial(getattr, loader, name)) for name in _OF_LOADER}
    return {
        "loader": named(type(loader)),
        "dataset": named(type(loader.dataset)),
        "dataset_length": _attempt(lambda: _length(loader.dataset)),
        "dataset_has_rng": _attempt(lambda: _has_generator(loader.dataset)),
        **facts,
        "in_order": getattr(loader, "in_order", True),
        "multiprocessing_context": _attempt(lambda: _start_method(loader)),
        "worker_init_fn": _attempt(lambda: _identity(loader.worker_init_fn)),
        "collate_fn": _attempt(lambda: _identity(loader.collate_fn)),
        "has_generator": loader.generator is not None,
        "generator_state": _attempt(
            lambda: states.digest_of(
                torch.default_generator if loader.generator is None else loader.generator
            )
        ),
        **_sampler_facts("batch_sampler", batches),
        **_sampler_facts("sampler", sampler),
        **_stateful_facts(loader),
    }


def epoch_of(loader: Any) -> int | None:
    """The epoch that the loader's sampler was told, if it is one that must be told."""
    sampler, inner = loader.sampler, attributes_of(loader.batch_sampler).get("sampler")
    epoch = attributes_of(sampler).get("epoch")
    if type(epoch) is not int and inner is not sampler:
        epoch = attributes_of(inner).get("epoch")
    return epoch if type(epoch) is int else None


def generators_of(loader: Any) -> list[tuple[str, torch.Generator]]:
    """The generators of a loader and of its samplers, by where they are."""
    batches = attributes_of(loader).get("batch_sampler")
    holders = (
        ("", loader),
        ("sampler.", attributes_of(loader).get("sampler")),
        ("batch_sampler.", batches),
        ("batch_sampler.sampler.", attributes_of(batches).get("sampler")),
    )
    found = [(prefix, attributes_of(holder).get("generator")) for prefix, holder in holders]
    return [(f"{prefix}generator", g) for prefix, g in found if isinstance(g, torch.Generator)]


def attributes_of(value: object) -> dict[str, Any]:
    """The attributes of an object; none of its properties is asked, which are the program's."""
    attributes = getattr(value, "__dict__", {})
    return attributes if isinstance(attributes, dict) else {}


def named(function: Any) -> str:
    """The full name of a class or function."""
    return f"{function.__module__}.{function.__qualname__}"[:_LONGEST_TEXT]


def _stateful_facts(loader: Any) -> Facts:
    # Of the loader of torchdata, which continues from a state that the program gave it.
    attributes = attributes_of(loader)
    if "next_iter_state" not in attributes:
        return {}
    state = attributes["next_iter_state"]
    return {
        "snapshot_every_n_steps": plain(attributes.get("snapshot_every_n_steps")),
        "state_loaded": None if state is None else _attempt(lambda: state_dict_digest(state)),
        "dataset_is_stateful": hasattr(type(loader.dataset), "load_state_dict"),
    }


def _sampler_facts(prefix: str, sampler: object) -> Facts:
    attributes = attributes_of(sampler)
    facts: Facts = {prefix: None if sampler is None else named(type(sampler))}
    for name in _OF_SAMPLER:
        value = attributes.get(name)
        if isinstance(value, (bool, int, float, str)):
            facts[f"{prefix}.{name}"] = plain(value)
    for name, form in (("weights", "d"), ("indices", "q")):
        if attributes.get(name) is not None:
            facts[f"{prefix}.{name}"] = _attempt(functools.partial(_digest, attributes[name], form))
    if attributes.get("generator") is not None:
        generator = attributes["generator"]
        facts[f"{prefix}.generator_state"] = _attempt(lambda: states.digest_of(generator))
    return facts


def _digest(values: Any, form: str) -> Json:
    if isinstance(values, torch.Tensor):
        return f"xxh3:{fingerprint(values).hex()}"
    if not isinstance(values, Sequence) or len(values) > _MOST_INDICES:
        return None
    return f"xxh3:{xxh3_128_hexdigest(array.array(form, values))}"


def _length(dataset: Any) -> int | None:
    # Samplers ask for it too; of a stream it is a guess, and may take reading all of it.
    if isinstance(dataset, IterableDataset) or not hasattr(type(dataset), "__len__"):
        return None
    return len(dataset)


def _has_generator(dataset: object) -> bool:
    return any(states.kind_of(value) is not None for value in list(attributes_of(dataset).values()))


def _start_method(loader: Any) -> str | None:
    if loader.num_workers == 0:
        return None
    context = loader.multiprocessing_context or torch.multiprocessing
    method: str | None = context.get_start_method(allow_none=True)
    return method or torch.multiprocessing.get_all_start_methods()[0]


def _identity(function: Any) -> str | None:
    if function is None:
        return None
    if isinstance(function, functools.partial):
        return f"functools.partial({_identity(function.func)})"
    is_named = isinstance(function, (FunctionType, BuiltinFunctionType, MethodType, type))
    return named(function if is_named else type(function))


def _attempt(read: Callable[[], Json]) -> Json:
    try:
        return read()
    except Exception as error:
        return failed(error)
