"""Moments: the states of all generators that a loader may draw from, at one time.

They are the shared generators, those that the program has named, and those that the loader keeps
itself: its own, and attributes of its samplers and its dataset.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from manifest import states
from manifest.errors import StateNotRestorable
from manifest.generators import is_shared, shared_setter
from manifest.pytorch.describing import attributes_of
from manifest.pytorch.states import Copy, Generators
from manifest.states import Setter

_MOST_ATTRIBUTES = 256
_MOST_LAYERS = 4  # of datasets around datasets, of samplers around samplers

Named = Mapping[str, Any]
"""Generators by name."""

Copies = Mapping[str, Copy]

_NONE: Named = {}


class Moment:
    """States by the name of the generator; those that are `own` are the loader's.

    Taking one is what every iterator waits for, so that states get their forms when asked for.
    """

    __slots__ = ("_generators", "_own", "blob")

    def __init__(self, generators: Copies, own: Copies) -> None:
        self._generators = generators
        self._own = own
        self.blob: str | None = None
        """Where it is kept, once a snapshot did so."""

    @property
    def generators(self) -> dict[str, bytes]:
        """Those that the program shares, and those that it has named."""
        return _in_form(self._generators)

    @property
    def own(self) -> dict[str, bytes]:
        """Those that the loader keeps itself."""
        return _in_form(self._own)


def _copies(generators: Named) -> dict[str, Copy]:
    return {name: (bytes, states.state_of(each)) for name, each in generators.items()}


def _in_form(copies: Copies) -> dict[str, bytes]:
    return {name: form(copied) for name, (form, copied) in copies.items()}


class Moments:
    """Takes moments of this process and puts them back.

    Args:
        tracked: Asked for the generators that the program has named so far.
    """

    def __init__(self, tracked: Callable[[], Named]) -> None:
        self._shared = Generators()
        self._tracked = tracked

    def now(self, own: Named) -> Moment:
        """The states that generators have now."""
        found = self._shared.copies()
        if tracked := self._tracked():
            found.update(_copies(tracked))
        return Moment(found, _copies(own) if own else {})

    def put_back(self, moment: Moment, own: Named) -> None:
        """Give the generators the states of a moment; those that are not there are left out.

        Raises:
            StateNotRestorable: A state does not have the form of its generator; nothing was set.
        """
        setters: list[Setter | str] = []
        for name, state in moment.generators.items():
            if is_shared(name):
                setters.append(shared_setter(name, {"state": states.encoded(state)}))
            elif name in (tracked := self._tracked()):
                setters.append(states.setter_of(name, tracked[name], state))
        for name, state in moment.own.items():
            if name not in own:
                raise StateNotRestorable(f"the loader has no generator '{name}' any more")
            setters.append(states.setter_of(name, own[name], state))
        for setter in setters:
            if not isinstance(setter, str):
                setter()


class OwnGenerators:
    """Where a loader keeps generators of its own; looked for once, as datasets can be large."""

    __slots__ = ("_places",)

    def __init__(self, loader: Any) -> None:
        self._places: list[tuple[str, dict[str, Any], str]] = []
        if states.kind_of(loader.generator) is not None:
            self._places.append(("generator", attributes_of(loader), "generator"))
        for prefix, owner in _owners(loader):
            attributes = attributes_of(owner)
            for name, value in list(itertools.islice(attributes.items(), _MOST_ATTRIBUTES)):
                if states.kind_of(value) is not None:
                    self._places.append((f"{prefix}.{name}", attributes, name))

    def named(self) -> Named:
        """The generators that are there now; each object once."""
        if not self._places:
            return _NONE
        found: dict[int, tuple[str, Any]] = {}
        for name, attributes, attribute in self._places:
            generator = attributes.get(attribute)
            if generator is not None:
                found.setdefault(id(generator), (name, generator))
        return dict(found.values())


def _owners(loader: Any) -> list[tuple[str, Any]]:
    owners = [("sampler", loader.sampler)]
    name, batches = "batch_sampler", loader.batch_sampler
    for _ in range(_MOST_LAYERS):
        owners += [(name, batches), (f"{name}.sampler", attributes_of(batches).get("sampler"))]
        name, batches = f"{name}.batch_sampler", attributes_of(batches).get("batch_sampler")
    name, dataset = "dataset", loader.dataset
    for _ in range(_MOST_LAYERS):
        owners.append((name, dataset))
        name, dataset = f"{name}.dataset", attributes_of(dataset).get("dataset")
    return owners
