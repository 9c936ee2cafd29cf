"""The first divergence of two runs: which step, which stream, which tensor."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifest.comparing import compare_trails, sentence
from manifest.models import TrailComparison
from manifest.streams import STREAMS, UNOBSERVED
from manifest.trail import Ending, Trail, TrailWriter

Changes = Mapping[tuple[int, str], bytes]

OTHER = b"other bits here!"
NAMES = ("layer1.weight", "layer2.weight", "layer3.weight")


def make(
    folder: Path,
    *,
    steps: int = 10,
    changes: Changes | None = None,
    leaf_changes: Changes | None = None,
    leaf_every: int = 1,
    final: Ending | None = None,
) -> Trail:
    folder.mkdir(exist_ok=True)
    path = folder / f"{len(list(folder.iterdir()))}.bin"
    writer = TrailWriter(path)
    for step in range(steps):
        for stream in ("grad", "param"):
            if step % leaf_every == 0:
                leaves = [f"{step} {name}".encode().ljust(16) for name in NAMES]
                changed = (leaf_changes or {}).get((step, stream))
                writer.append_leaves(
                    step, stream, NAMES, [*leaves[:-1], changed] if changed else leaves
                )
        writer.append(
            *(
                (changes or {}).get((step, stream), f"{step} {stream}".encode().ljust(16))
                for stream in STREAMS
            )
        )
    writer.close(final)
    return Trail.open(path)


def compared(before: Trail, after: Trail) -> TrailComparison:
    return compare_trails({"main": before}, {"main": after})


def test_a_trail_equals_itself(tmp_path: Path) -> None:
    found = compared(make(tmp_path), make(tmp_path))
    assert found.divergence is None
    assert found.streams == STREAMS
    assert (found.steps, found.steps_before, found.steps_after) == (10, 10, 10)
    assert sentence(found).startswith("equal in all 10 steps: the generators, the batch")


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("step", [0, 7, 70_000])
def test_one_other_fingerprint_is_found(tmp_path: Path, step: int, stream: str) -> None:
    steps = step + 3
    before = make(tmp_path, steps=steps, leaf_every=10**6)
    after = make(tmp_path, steps=steps, leaf_every=10**6, changes={(step, stream): OTHER})
    found = compared(before, after).divergence
    assert found is not None
    assert (found.process, found.step, found.stream) == ("main", step, stream)
    assert found.equal_streams == tuple(s for s in STREAMS if s != stream)


@given(
    first=st.dictionaries(
        st.tuples(st.integers(0, 9), st.sampled_from(STREAMS)), st.just(OTHER), max_size=5
    )
)
def test_comparing_is_the_same_in_both_directions(
    tmp_path_factory: pytest.TempPathFactory, first: Changes
) -> None:
    folder = tmp_path_factory.mktemp("trails")
    before, after = make(folder), make(folder, changes=first)
    there, back = compared(before, after).divergence, compared(after, before).divergence
    assert there == back
    assert (None if there is None else there.step) == min((step for step, _ in first), default=None)


def test_of_several_streams_the_cause_comes_first(tmp_path: Path) -> None:
    changes = {(4, "param"): OTHER, (4, "grad"): OTHER, (4, "loss"): OTHER, (4, "rng"): OTHER}
    found = compared(make(tmp_path), make(tmp_path, changes=changes)).divergence
    assert found is not None
    assert found.stream == "loss"
    assert found.equal_streams == ("batch",)


def test_generators_come_first_at_the_first_step(tmp_path: Path) -> None:
    changes = {(0, stream): OTHER for stream in STREAMS}
    found = compared(make(tmp_path), make(tmp_path, changes=changes)).divergence
    assert found is not None
    assert found.stream == "rng"


def test_the_tensor_is_named(tmp_path: Path) -> None:
    change = {(7, "grad"): OTHER}
    after = make(tmp_path, changes=change, leaf_changes=change)
    found = compared(make(tmp_path), after)
    assert found.divergence is not None
    assert found.divergence.tensors == ("layer3.weight",)
    assert found.divergence.tensors_step is None
    assert sentence(found) == (
        "equal to step 6; at step 7 the batch and the loss are equal and the gradient of "
        "`layer3.weight` differs: compute, not data"
    )


def test_the_tensor_is_looked_up_at_the_next_step_that_kept_any(tmp_path: Path) -> None:
    changes = {(step, "param"): OTHER for step in range(5, 10)}
    after = make(tmp_path, changes=changes, leaf_changes=changes, leaf_every=4)
    found = compared(make(tmp_path, leaf_every=4), after)
    assert found.divergence is not None
    assert (found.divergence.step, found.divergence.tensors_step) == (5, 8)
    assert found.divergence.tensors == ("layer3.weight",)
    assert "`layer3.weight` (seen at step 8) differs" in sentence(found)


def test_runs_of_other_length_are_compared_as_far_as_both_go(tmp_path: Path) -> None:
    found = compared(make(tmp_path, steps=10), make(tmp_path, steps=6))
    assert found.divergence is None
    assert (found.steps, found.steps_before, found.steps_after) == (6, 10, 6)
    assert sentence(found).startswith("equal in the 6 steps that both runs have")


def test_a_stream_that_one_run_did_not_observe_is_not_compared(tmp_path: Path) -> None:
    unseen = {(step, "batch"): UNOBSERVED for step in range(10)}
    found = compared(make(tmp_path), make(tmp_path, changes=unseen))
    assert found.divergence is None
    assert found.streams == ("rng", "loss", "grad", "param")


def test_a_stream_that_ends_early_is_compared_until_there(tmp_path: Path) -> None:
    ended = {(step, "loss"): UNOBSERVED for step in range(4, 10)}
    before = make(tmp_path)
    assert compared(before, make(tmp_path, changes=ended)).divergence is None
    found = compared(before, make(tmp_path, changes={**ended, (2, "loss"): OTHER})).divergence
    assert found is not None
    assert (found.step, found.stream) == (2, "loss")


def with_generators(folder: Path, *names: tuple[str, ...], drawn: Changes | None = None) -> Trail:
    """A trail of one row for each tuple of names, whose own generators are those."""
    path = folder / f"{len(list(folder.iterdir()))}.bin"
    writer = TrailWriter(path)
    for step, own in enumerate(names):
        digests = [(drawn or {}).get((step, name), f"{name}".encode().ljust(16)) for name in own]
        writer.append_leaves(step, "rng", ("python",), [b"p" * 16])
        if own:
            writer.append_leaves(step, "own", own, digests)
        half = b"".join(digests).replace(b" ", b"")[:8].ljust(8) if own else bytes(8)
        writer.append(b"p" * 8 + half, *[UNOBSERVED] * 4)
    writer.close()
    return Trail.open(path)


def test_a_generator_of_the_programs_own_is_named(tmp_path: Path) -> None:
    before = with_generators(tmp_path, *[("a", "b")] * 4)
    after = with_generators(tmp_path, *[("a", "b")] * 4, drawn={(2, "b"): OTHER})
    found = compared(before, after)
    assert found.divergence is not None
    assert (found.divergence.step, found.divergence.tensors) == (2, ("b",))
    assert sentence(found) == (
        "equal to step 1; at step 2 the generators (b) differ: seeds, or numbers drawn by one "
        "run only"
    )


def test_a_generator_that_only_one_run_has_is_no_difference(tmp_path: Path) -> None:
    before = with_generators(tmp_path, *[("a",)] * 4)
    after = with_generators(tmp_path, *[("a", "b")] * 2, *[("a",)] * 2, drawn={(3, "a"): OTHER})
    found = compared(before, after).divergence
    assert found is not None
    assert (found.step, found.tensors) == (3, ("a",))
    assert compared(before, with_generators(tmp_path, *[()] * 4)).divergence is None


def test_a_library_that_only_one_run_imported_is_no_difference(tmp_path: Path) -> None:
    trails = []
    for names in (("python",), ("python", "numpy.legacy")):
        path = tmp_path / f"{len(names)}.bin"
        writer = TrailWriter(path)
        writer.append_leaves(0, "rng", names, [b"p" * 16] * len(names))
        writer.append(names[-1].encode()[:8].ljust(8) + bytes(8), b"b" * 16, *[UNOBSERVED] * 3)
        writer.close()
        trails.append(Trail.open(path))
    found = compared(*trails)
    assert found.divergence is None
    assert found.streams == ("batch",)


def test_an_older_trail_is_compared_in_what_it_knows(tmp_path: Path) -> None:
    after = with_generators(tmp_path, *[("a",)] * 4)
    older = tmp_path / "older.bin"
    older.write_bytes(
        after._data[:].replace(b', "rng": ["shared", "own"]', b"").replace(b"a      ", b"x" * 7)
    )
    shutil.copy(tmp_path / "0.tensors", tmp_path / "older.tensors")
    before = Trail.open(older)
    assert (before.steps, before.has_own) == (4, False)
    assert before.rows(0, 4) != after.rows(0, 4)
    found = compared(before, after)
    assert (found.divergence, found.streams) == (None, ("rng",))


def test_the_earliest_of_all_processes_is_found(tmp_path: Path) -> None:
    before = {"main": make(tmp_path), "main.x0": make(tmp_path), "main.x1": make(tmp_path)}
    after = {
        "main": make(tmp_path, changes={(8, "loss"): OTHER}),
        "main.x0": make(tmp_path, changes={(3, "loss"): OTHER}),
    }
    found = compare_trails(before, after)
    assert found.divergence is not None
    assert (found.divergence.process, found.divergence.step) == ("main.x0", 3)
    assert sentence(found).startswith("in `main.x0`, equal to step 2; at step 3")


def test_what_differs_only_at_the_end_is_found(tmp_path: Path) -> None:
    one = Ending(rng={"python": "1"}, tensors={"a": "1", "b": "1"})
    other = Ending(rng={"python": "1"}, tensors={"a": "1", "b": "2", "c": "3"})
    found = compared(make(tmp_path, final=one), make(tmp_path, final=other))
    assert found.divergence is not None
    assert (found.divergence.step, found.divergence.stream) == (10, "param")
    assert found.divergence.tensors == ("b",)
    assert sentence(found) == (
        "equal in every step; at the end of the process the parameter `b` differs"
    )


def test_a_run_with_no_step_is_compared_by_its_end(tmp_path: Path) -> None:
    one, other = Ending(rng={"python": "1"}), Ending(rng={"python": "2"})
    same = compared(make(tmp_path, steps=0, final=one), make(tmp_path, steps=0, final=one))
    assert same.divergence is None
    assert same.streams == ("rng",)
    assert sentence(same) == "equal at the end, with no training step: the generators"
    found = compared(make(tmp_path, steps=0, final=one), make(tmp_path, steps=0, final=other))
    assert found.divergence is not None
    assert (found.divergence.step, found.divergence.stream) == (0, "rng")
    assert "the generators (python) differ" in sentence(found)


def test_ends_of_runs_of_other_length_are_not_compared(tmp_path: Path) -> None:
    one, other = Ending(rng={"python": "1"}), Ending(rng={"python": "2"})
    found = compared(make(tmp_path, steps=2, final=one), make(tmp_path, steps=3, final=other))
    assert found.divergence is None


def test_nothing_in_common_is_said(tmp_path: Path) -> None:
    found = compare_trails({"main": make(tmp_path)}, {})
    assert (found.steps, found.streams, found.divergence) == (0, (), None)
    assert sentence(found) == "nothing to compare: no fingerprint was taken in both runs"


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        ("batch", "the batch differs: data, before any computation"),
        ("loss", "the batch is equal and the loss differs: compute, not data"),
        ("rng", "the generators differ: seeds, or numbers drawn by one run only"),
    ],
)
def test_the_sentence_gives_the_kind_of_cause(tmp_path: Path, stream: str, reason: str) -> None:
    found = compared(make(tmp_path), make(tmp_path, changes={(3, stream): OTHER}))
    assert sentence(found).endswith(reason)


def test_parameters_that_are_fingerprinted_every_so_many_steps_say_so(tmp_path: Path) -> None:
    thin = {(step, s): UNOBSERVED for step in range(10) if step % 4 for s in ("grad", "param")}
    before = make(tmp_path, changes=thin)
    same = compared(before, make(tmp_path, changes=thin))
    assert same.gaps == {"grad": 3, "param": 3}
    assert sentence(same) == (
        "equal in all 10 steps: the generators, the batch, the loss, the gradients (at 3) and the "
        "parameters (at 3)"
    )
    # A weight that was changed after step 5 shows in the loss of step 6, and in itself at step 8.
    for stream, step in (("loss", 6), ("param", 8)):
        found = compared(before, make(tmp_path, changes={**thin, (step, stream): OTHER}))
        assert found.divergence is not None
        assert (found.divergence.step, found.divergence.since) == (step, 5)
        assert sentence(found).endswith(
            "(the parameters were last compared at step 4: what parted the runs came after)"
        )
    for stream, step in (("loss", 5), ("batch", 7), ("rng", 7)):
        found = compared(before, make(tmp_path, changes={**thin, (step, stream): OTHER}))
        assert found.divergence is not None
        assert (found.divergence.step, found.divergence.since) == (step, None)


def test_a_stream_that_one_run_alone_observed_is_told(tmp_path: Path) -> None:
    found = compared(make(tmp_path), make(tmp_path, changes={(3, "loss"): UNOBSERVED}))
    assert (found.divergence, found.one_sided, found.gaps) == (None, {"loss": 3}, {"loss": 9})
