"""Where no fingerprint differs: what else must hold before two runs are called identical."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from manifest.models import Verdict
from manifest.origin import RECORD
from manifest.rundir import RunDirectory
from manifest.streams import UNOBSERVED
from manifest.trail import Ending
from manifest.verdicts import judge

Made = Callable[..., RunDirectory]

ONE = {"main": (None, None, 6)}
TWO = {"main": (None, None, 6), "main.f0": (None, None, 4)}
OTHER = b"other bits here!"


@pytest.fixture
def verdict(made: Made) -> Callable[..., Verdict]:
    """Judge a run of one process against one that has something otherwise."""

    def judged(
        after: dict[str, Any], before: dict[str, Any] | None = None, until: int | None = None
    ) -> Verdict:
        runs = [made(**{"processes": ONE, **given}) for given in (before or {}, after)]
        return judge(*runs, until=until)

    return judged


def test_equal_runs_are_identical(verdict: Callable[..., Verdict]) -> None:
    found = verdict({})
    assert (found.outcome, found.reasons) == ("identical", ())
    assert found.sentence.startswith("equal in all 6 steps: the generators, the batch, the loss")


@pytest.mark.parametrize(
    ("after", "before", "said"),
    [
        ({"processes": {"main": (None, None, 5)}}, {}, "ended after 5 of 6 steps"),
        ({"processes": {"main": (None, None, 7)}}, {}, "went on to step 7"),
        ({"processes": TWO}, {}, "in the replay main.f0 made 4 steps, in the recorded run 0"),
        ({"processes": ONE}, {"processes": TWO}, "main.f0 ended after 0 of 4 steps"),
        (
            {"processes": {**TWO, "main.f0": (None, None, 5)}},
            {"processes": TWO},
            "in the replay main.f0 made 5 steps, in the recorded run 4",
        ),
        ({"exited": (1, None), "error": "ValueError: no"}, {}, "the replay with 1 (ValueError"),
        ({"exited": (137, "SIGKILL")}, {}, "exit code 0, the replay with 137"),
        (
            {"exited": (1, None), "error": "ValueError: no", "mode": RECORD},
            {"exited": None, "mode": RECORD},
            "the end of the recorded run went well, that of the replay failed (ValueError: no)",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_equal_steps_do_not_make_up_for_another_course(
    after: dict[str, Any], before: dict[str, Any], said: str, verdict: Callable[..., Verdict]
) -> None:
    found = verdict(after, before)
    assert found.outcome == "diverged"
    assert said in found.sentence


@pytest.mark.parametrize(
    ("after", "before", "said"),
    [
        ({"notes": {"trail": "OSError: full"}}, {}, "the replay was not watched to its end: OSErr"),
        ({}, {"notes": {"trail": "OSError: full"}}, "the recorded run was not watched to its end"),
        (
            {"notes": {"trail": "OSError: full"}, "processes": {"main": (None, None, 3)}},
            {},
            "OSError: full; equal in the 3 steps that both runs have",
        ),
        (
            {"notes": {"trail": "OSError: full"}},
            {"notes": {"trail": "OSError: full"}},
            "was not watched to its end",
        ),
        ({"processes": {}}, {}, "the replay recorded nothing"),
        ({"processes": {}, "exited": (9, None)}, {}, "it ended with exit code 9"),
        ({}, {"processes": {}}, "the recorded run recorded nothing"),
        (
            {"changed": {("main", 4, "grad"): UNOBSERVED}, "notes": {"trail.grad": "TypeError: x"}},
            {},
            "observed the gradients at step 4; the replay could not go on: TypeError: x",
        ),
        ({}, {"changed": {("main", 2, "loss"): UNOBSERVED}}, "observed the loss at step 2"),
        ({"streams": ("rng", "batch")}, {"streams": ("rng", "batch")}, "nothing that was computed"),
        (
            {"processes": {"main": (None, None, 0)}, "ending": Ending(rng={"python": "1"})},
            {"processes": {"main": (None, None, 0)}, "ending": Ending(rng={"python": "1"})},
            "nothing that was computed can be compared",
        ),
        ({"streams": ()}, {"streams": ()}, "nothing to compare"),
        (
            {},
            {"processes": {"main": (None, None, 0)}, "exited": (137, "SIGKILL")},
            "the recorded run was killed before its first step",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_was_not_compared_is_never_called_identical(
    after: dict[str, Any], before: dict[str, Any], said: str, verdict: Callable[..., Verdict]
) -> None:
    found = verdict(after, before)
    assert found.outcome == "not replayable"
    assert said in found.sentence
    assert found.reasons


def test_a_difference_is_believed_though_not_all_was_observed(
    verdict: Callable[..., Verdict],
) -> None:
    found = verdict({"changed": {("main", 2, "loss"): OTHER}, "notes": {"trail": "OSError: full"}})
    assert found.outcome == "diverged"
    assert "at step 2" in found.sentence


def test_a_stream_that_neither_run_could_observe_is_not_claimed(
    verdict: Callable[..., Verdict],
) -> None:
    blind = {("main", step, "batch"): UNOBSERVED for step in range(2, 6)}
    given = {"changed": blind, "notes": {"trail.batch": "TypeError: x"}}
    found = verdict(given, given)
    assert found.outcome == "identical"
    assert "the batch (at 2)" in found.sentence
    unseen = {"streams": ("rng", "loss", "grad", "param")}
    assert "batch" not in verdict(unseen, unseen).sentence


def test_a_replay_that_was_stopped_is_compared_as_far_as_it_went(
    verdict: Callable[..., Verdict],
) -> None:
    three = {"processes": {"main": (None, None, 3)}}
    assert verdict(three, until=3).outcome == "identical"
    assert verdict(three, until=4).outcome == "diverged"
    # Stopped after the last step, where the recorded run went on to draw.
    ends = [{"ending": Ending(rng={"python": text})} for text in "12"]
    assert verdict(*ends).outcome == "diverged"
    assert verdict(*ends, until=6).outcome == "identical"
    later = {"processes": TWO}
    assert verdict({"processes": ONE}, later, until=6).outcome == "identical"
    failed_later = {"notes": {"trail": "OSError: full"}}
    assert verdict(three, failed_later, until=3).outcome == "identical"


def test_a_killed_run_is_repeated_as_far_as_it_went(verdict: Callable[..., Verdict]) -> None:
    killed = {"exited": (137, "SIGKILL")}
    assert verdict({}, killed, until=6).outcome == "identical"
    short = {"processes": {"main": (None, None, 4)}}
    assert verdict(short, killed, until=6).outcome == "diverged"


def test_which_of_two_forks_began_first_explains_nothing(made: Made) -> None:
    environments = {
        "main.f0": {"env.OMP_NUM_THREADS": "1"},
        "main.f1": {"env.OMP_NUM_THREADS": "2"},
    }
    forks = {"main.f0": (None, None, 4), "main.f1": (None, None, 4)}
    swapped = dict(reversed(forks.items()))
    before = made(forks, environments=environments)
    after = made(swapped, environments=environments, changed={("main.f1", 3, "loss"): OTHER})
    found = judge(before, after)
    assert (found.outcome, found.explanations) == ("diverged", ())
