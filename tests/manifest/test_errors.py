"""Errors go through pools of processes, as users raise them there."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest

from manifest import errors
from manifest.errors import ManifestError

KINDS = [getattr(errors, name) for name in errors.__all__]
_ARGUMENTS: dict[str, Any] = {"str": "text", "int": 3, "list[str]": ["one", "two"]}


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_the_same_in_another_process(kind: type[ManifestError]) -> None:
    error = made(kind)
    error.add_note("seen in a worker")
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is kind
    assert (str(found), found.args, vars(found)) == (str(error), error.args, vars(error))


def made(kind: type[ManifestError]) -> ManifestError:
    if "__init__" not in vars(kind):
        return kind("text")
    wanted = inspect.signature(kind).parameters.values()
    return kind(*(_ARGUMENTS[each.annotation] for each in wanted))
