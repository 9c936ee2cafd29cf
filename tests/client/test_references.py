"""What a user types for a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manifest.errors import AmbiguousReference, RunNotFound
from manifest.rundir import RunDirectory
from manifest.stores import Store
from manifest_client.embedded import open_embedded
from manifest_client.references import resolve

WHERE = "here"


@pytest.fixture
def runs(record: Callable[..., RunDirectory]) -> list[RunDirectory]:
    """Two runs, a replay of the second, and a third."""
    first, second = record(), record()
    return [first, second, record(replay_of=second.id), record()]


@pytest.fixture
def store(base: Path, runs: list[RunDirectory]) -> Iterator[Store]:
    """The store that holds them."""
    with open_embedded(base, pytest.fail) as store:
        yield store


def test_a_whole_id_names_its_run(store: Store, runs: list[RunDirectory]) -> None:
    assert [resolve(run.id, store, WHERE) for run in runs] == [run.id for run in runs]


@pytest.mark.parametrize("prefix", ["0199c3f2-0002", "0199c3f20002", "0199C3F2-0002-70"])
def test_a_unique_beginning_names_a_run(
    store: Store, runs: list[RunDirectory], prefix: str
) -> None:
    assert resolve(prefix, store, WHERE) == runs[1].id


def test_a_beginning_that_fits_several_is_refused_with_their_ids(
    store: Store, runs: list[RunDirectory]
) -> None:
    with pytest.raises(AmbiguousReference, match="Give more characters") as caught:
        resolve("0199c3f2", store, WHERE)
    assert set(caught.value.candidates) == {run.id for run in runs}


def test_latest_and_prev_do_not_count_replays(store: Store, runs: list[RunDirectory]) -> None:
    first, second, _, third = (run.id for run in runs)
    assert resolve("@latest", store, WHERE) == third
    assert resolve("@latest~0", store, WHERE) == third
    assert resolve("@prev", store, WHERE) == second
    assert resolve("@latest~1", store, WHERE) == second
    assert resolve("@latest~2", store, WHERE) == first


@pytest.mark.parametrize(
    "reference",
    ["", "@", "@latest~3", "@latest~999999999", "@next", "ffff", "../0199", "%", "0199_", "train"],
)
def test_what_names_no_run_is_not_found(store: Store, reference: str) -> None:
    with pytest.raises(RunNotFound, match="`manifest ls` lists the runs"):
        resolve(reference, store, WHERE)
