"""State dicts are kept as plain data, and nothing but plain data is read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from manifest.errors import StateNotRestorable
from manifest.pytorch.statedicts import decoded_state_dict, encoded_state_dict, state_dict_digest

STATE = {
    "yielded": 3,
    "seed": 2**62 + 1,
    "generator": torch.Generator().manual_seed(3).get_state(),
    "nested": [{"at": (1, None)}, True, 1.5, float("inf"), b"ab", "text"],
    "empty": [{}, torch.empty(0, 2), torch.tensor(4)],
}


def as_text(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {list(value.shape)} {value.tolist()}"
    if isinstance(value, dict):
        return str({key: as_text(item) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__} {[as_text(item) for item in value]}"
    return repr(value)


def test_a_state_dict_comes_back_as_it_was() -> None:
    encoded = json.loads(json.dumps(encoded_state_dict(STATE)))
    found = decoded_state_dict(encoded)
    assert as_text(found) == as_text(STATE)
    assert state_dict_digest(found) == state_dict_digest(STATE)
    assert state_dict_digest({**STATE, "yielded": 4}) != state_dict_digest(STATE)


@pytest.mark.parametrize(
    "state",
    [
        {"sampler": object()},
        {"function": print},
        {1: "a number as a key"},
        {"$bytes": "a key that means something"},
        {"sparse": torch.eye(2).to_sparse()},
        {"large": b"0" * 5_000_000},
    ],
    ids=lambda state: str(next(iter(state))),
)
def test_what_is_no_plain_data_is_refused(state: Any) -> None:
    with pytest.raises(StateNotRestorable):
        encoded_state_dict(state)


def nest(depth: int) -> Any:
    return [nest(depth - 1)] if depth else 0


def test_what_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(StateNotRestorable, match="deeply"):
        encoded_state_dict(nest(40))
    with pytest.raises(StateNotRestorable, match="deeply"):
        decoded_state_dict(nest(40))


@pytest.mark.parametrize(
    "encoded",
    [
        {"$pickle": "gASV"},
        {"$bytes": "?"},
        {"$tuple": 3},
        {"$float": "1.5"},
        {"$int": "x"},
        {"$bytes": "", "and": 1},
        {"$tensor": {"dtype": "torch.qint8", "shape": [1], "$bytes": "AA=="}},
        {"$tensor": {"dtype": "torch.uint8", "shape": [2], "$bytes": "AA=="}},
        {"$tensor": {"dtype": "torch.uint8", "shape": [-1, -1], "$bytes": "AA=="}},
        {"$tensor": None},
    ],
    ids=str,
)
def test_what_has_not_the_form_is_refused(encoded: Any) -> None:
    with pytest.raises(StateNotRestorable):
        decoded_state_dict(encoded)
