"""A run in one line."""

from __future__ import annotations

from typing import Any

import pytest

from manifest.models import Manifest, Process, TrailSummary, Verdict
from manifest.summaries import label, summarize

A = "01900000-0000-7000-8000-00000000000a"
B = "01900000-0000-7000-8000-00000000000b"


def manifest(**fields: Any) -> Manifest:
    known = {
        "schema": 1,
        "id": A,
        "project": "digits",
        "status": "finished",
        "started_at": "2026-01-01T00:00:00Z",
        "mode": "run",
        "sections": {},
    }
    return Manifest.model_validate({**known, **fields})


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["python", "a b.py"], "python 'a b.py'"),
        (["python", {"$redacted": "aa"}], "python REDACTED"),
        ("python", ""),
        (None, ""),
    ],
)
def test_the_command_can_be_pasted_and_names_no_secret(argv: Any, command: str) -> None:
    assert summarize(manifest(sections={"command": {"argv": argv}})).command == command


def test_steps_are_those_of_the_process_that_made_most() -> None:
    def process(steps: int) -> Process:
        return Process(trail=TrailSummary(steps=steps, streams=(), algorithm="1"))

    assert summarize(manifest()).steps is None
    found = summarize(manifest(processes={"main": process(3), "main.x0": process(5)}))
    assert found.steps == 5
    assert summarize(manifest(processes={"main": process(10**30)})).steps == 2**63 - 1


def test_a_replay_has_the_outcome_of_its_verdict() -> None:
    verdict = Verdict(outcome="diverged", original=B, replay=A, sentence="s")
    found = summarize(manifest(replay_of=B), verdict)
    assert (found.replay_of, found.outcome) == (B, "diverged")


def test_a_label_is_short_and_fit_for_every_database() -> None:
    assert label("a\0b", 10) == "a␀b"
    assert label("\ud800", 10) == "\\ud800"
    assert label("abcdef", 5) == "abcd…"
    assert label(None, 5) is None
