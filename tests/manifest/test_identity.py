"""Run ids: what they sort by, and that no two are the same."""

from __future__ import annotations

import time
import uuid

import pytest

from manifest.identity import is_run_id, new_run_id, short_id


def test_ids_sort_in_the_order_they_were_made_in_within_a_millisecond() -> None:
    made = [new_run_id() for _ in range(10_000)]
    assert len({short_id(each) for each in made}) < len(made)
    assert sorted(set(made)) == made


def test_an_id_is_a_uuid_that_holds_its_time() -> None:
    before = time.time_ns() // 1_000_000
    made = new_run_id()
    after = time.time_ns() // 1_000_000
    assert is_run_id(made)
    assert uuid.UUID(made).version == 7
    assert uuid.UUID(made).variant == uuid.RFC_4122
    assert before <= uuid.UUID(made).int >> 80 <= after


def test_ids_of_one_moment_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 1_764_000_000_999_999_999)
    made = {new_run_id() for _ in range(1000)}
    assert len(made) == 1000
    assert {each[:18] for each in made} == {"019ab697-ebe7-7fff"}
