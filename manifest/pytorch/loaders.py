"""Loaders that the program iterates: what decides which samples they give, in which order.

Every iterator that PyTorch makes, of whatever subclass of `DataLoader` or wrapper around one,
begins in one constructor. There the loader is described; it is never iterated nor drawn from.
"""

from __future__ import annotations

import array
import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from types import BuiltinFunctionType, FrameType, FunctionType, MethodType
from typing import Any

import torch
from torch.utils.data import IterableDataset, dataloader, get_worker_info
from xxhash import xxh3_128_hexdigest

from manifest import states
from manifest.canonical import Json, failed, plain
from manifest.places import first_outside, first_within, shown_place
from manifest.pytorch.hooks import keep_from_compiler
from manifest.pytorch.tensors import fingerprint

_MOST_LOADERS = 64
_MOST_SEEDS = 16
_MOST_INDICES = 1_000_000
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

_watching: Loaders | None = None
_is_installed = False


class Loaders:
    """The loaders of this process, in the order in which they are first iterated.

    Args:
        root: The folder of the project, to which places are relative.
        on_facts: Told what is learnt of a loader, by its name, when it is first iterated and when
            watching ends.
        on_note: Told, by place and error, of what could not be learnt.
    """

    def __init__(
        self,
        root: str,
        *,
        on_facts: Callable[[Facts], None],
        on_note: Callable[[str, object], None],
    ) -> None:
        self._root = root
        self._on_facts = on_facts
        self._on_note = on_note
        self._loaders: list[_Iterated] = []
        self._by_id: dict[int, _Iterated] = {}

    def watch(self) -> None:
        """Describe loaders from now on, in the place of any earlier watcher."""
        global _watching
        _install()
        _watching = self

    def finish(self) -> None:
        """Say how often each loader was iterated, and describe no more."""
        global _watching
        if _watching is self:
            _watching = None
        again = {each.name: each.counts() for each in self._loaders if each.iterators > 1}
        if again:
            self._on_facts(again)
        self.forget()

    def forget(self) -> None:
        """Begin anew: the loaders of a forked child have names of their own."""
        self._loaders, self._by_id = [], {}

    def generators(self) -> list[tuple[str, torch.Generator, bool]]:
        """Those of the living loaders, by name, and whether this thread draws from them."""
        found = []
        for each in self._loaders:
            is_mine = each.thread == threading.get_ident()
            found += [(f"{each.name}.{part}", g, is_mine) for part, g in _generators(each.loader())]
        return found

    def before(self, loader: Any, frame: FrameType | None) -> _Iterated | None:
        """Describe a loader that is about to be iterated for the first time; never raises."""
        known = self._by_id.get(id(loader))
        if known is not None and known.loader() is loader:
            return known
        if len(self._loaders) >= _MOST_LOADERS or get_worker_info() is not None:
            return None
        try:
            facts = {"place": _place(frame, self._root), **_described(loader)}
            return _Iterated(loader, facts)
        except Exception as error:
            self._on_note("loaders", error)
            return None

    def after(self, iterated: _Iterated, iterator: Any) -> None:
        """Take note of an iterator; never raises."""
        iterated.iterators += 1
        if len(iterated.base_seeds) < _MOST_SEEDS:
            iterated.base_seeds.append(getattr(iterator, "_base_seed", None))
        if iterated.name:
            return
        try:
            iterated.name = f"loader.{len(self._loaders)}"
            self._loaders.append(iterated)
            self._by_id[iterated.id] = iterated
            self._on_facts({iterated.name: {**iterated.facts, **iterated.counts()}})
        except Exception as error:
            self._on_note("loaders", error)


class _Iterated:
    """A loader, and the iterators that were made of it."""

    def __init__(self, loader: object, facts: Facts) -> None:
        self.name = ""
        self.loader = weakref.ref(loader)
        self.id = id(loader)
        self.thread = threading.get_ident()
        self.facts = facts
        self.iterators = 0
        self.base_seeds: list[Json] = []

    def counts(self) -> Facts:
        return {"iterators": self.iterators, "base_seed": list(self.base_seeds)}


def _install() -> None:
    global _is_installed
    if _is_installed:
        return
    _is_installed = True
    for function in (Loaders.before, Loaders.after):
        keep_from_compiler(function, with_callees=True)
    iterator = dataloader._BaseDataLoaderIter
    iterator.__init__ = _watched(iterator.__init__)  # type: ignore[method-assign]
    os.register_at_fork(after_in_child=_forked)


def _watched(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, loader: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 -- its name
        watching = _watching
        if watching is None:
            original(self, loader, *args, **kwargs)
            return
        iterated = watching.before(loader, sys._getframe(1))
        original(self, loader, *args, **kwargs)
        if iterated is not None:
            watching.after(iterated, self)

    keep_from_compiler(__init__, with_callees=False)
    return __init__


def _forked() -> None:
    if _watching is not None:
        _watching.forget()


def _place(frame: FrameType | None, root: str) -> Json:
    found = first_within(frame, root) or first_outside(frame, ("manifest", "torch"))
    return found and shown_place(found.f_code.co_filename, found.f_lineno, root)


def _described(loader: Any) -> Facts:
    batches, sampler = loader.batch_sampler, loader.sampler
    if loader.batch_size is None and batches is not None:
        sampler = _attributes(batches).get("sampler")  # its own; the loader's is not used then
    facts = {name: _attempt(functools.partial(getattr, loader, name)) for name in _OF_LOADER}
    return {
        "loader": _named(type(loader)),
        "dataset": _named(type(loader.dataset)),
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
    }


def _generators(loader: Any) -> list[tuple[str, torch.Generator]]:
    batches = _attributes(loader).get("batch_sampler")
    holders = (
        ("", loader),
        ("sampler.", _attributes(loader).get("sampler")),
        ("batch_sampler.", batches),
        ("batch_sampler.sampler.", _attributes(batches).get("sampler")),
    )
    found = [(prefix, _attributes(holder).get("generator")) for prefix, holder in holders]
    return [(f"{prefix}generator", g) for prefix, g in found if isinstance(g, torch.Generator)]


def _sampler_facts(prefix: str, sampler: object) -> Facts:
    attributes = _attributes(sampler)
    facts: Facts = {prefix: None if sampler is None else _named(type(sampler))}
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


def _attributes(value: object) -> dict[str, Any]:
    # Not getattr(), which would run properties of the program's.
    return getattr(value, "__dict__", {})


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
    return any(states.kind_of(value) is not None for value in list(_attributes(dataset).values()))


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
    return _named(function if is_named else type(function))


def _named(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}"[:_LONGEST_TEXT]


def _attempt(read: Callable[[], Json]) -> Json:
    try:
        return read()
    except Exception as error:
        return failed(error)
