"""What the state of a generator says to people."""

from __future__ import annotations

import random
from typing import Any

import pytest

from manifest import states
from manifest.engines import engine

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")


def entry(kind: str, state: bytes, **more: str) -> dict[str, Any]:
    return {"kind": kind, "state": states.encoded(state), **more}


def test_a_mersenne_twister_says_how_many_words_it_has_drawn() -> None:
    python = random.Random(3)
    assert engine(entry("python", states.python_state(python))).endswith("624 of 624 words drawn")
    python.random()  # of two words
    assert engine(entry("random.Random", states.python_state(python))) == (
        "Mersenne Twister, 2 of 624 words drawn"
    )
    legacy = np.random.RandomState(1)
    legacy.random_sample(3)
    assert engine(entry("numpy.legacy", states.legacy_state(legacy))) == (  # type: ignore[arg-type]
        "Mersenne Twister, 6 of 624 words drawn"
    )


def test_a_generator_of_torch_says_its_seed_too() -> None:
    generator = torch.Generator().manual_seed(7)
    torch.rand(5, generator=generator)
    state = states.torch_state(generator)
    said = "Mersenne Twister, seed 7, 5 of 624 words drawn"
    assert engine(entry("torch.cpu", state)) == said
    assert engine(entry("torch.Generator", state, device="cpu")) == said


@pytest.mark.parametrize("name", ["PCG64", "PCG64DXSM", "SFC64"])
def test_a_bit_generator_is_named(name: str) -> None:
    state = states.bit_generator_state(getattr(np.random, name)(1))
    assert engine(entry("numpy.Generator", state, bit_generator=name)) == name


def test_a_counter_is_told() -> None:
    bits = np.random.Philox(1)
    bits.random_raw(9)  # four at a time
    said = engine(
        entry("numpy.Generator", states.bit_generator_state(bits), bit_generator="Philox")
    )
    assert said == "Philox, counter 3"


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"kind": "python"},
        {"kind": 7, "state": {"$bytes": "AAAA"}},
        {"kind": "python", "state": {"$bytes": "not base64"}},
        {"kind": "unheard.of", "state": {"$bytes": "AAAA"}},
        *({"kind": kind, "state": {"$bytes": "AAAA"}} for kind in ("python", "torch.cpu")),
        *({"kind": kind, "state": {"$bytes": "AAAA"}} for kind in ("torch.cuda", "numpy.legacy")),
        {"kind": "numpy.Generator", "bit_generator": "Philox", "state": {"$bytes": "AAAA"}},
    ],
)
def test_nothing_is_said_of_what_has_not_its_form(found: dict[str, Any]) -> None:
    assert engine(found) == ""
