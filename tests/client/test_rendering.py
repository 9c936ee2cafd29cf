"""What is shown of values that a stranger wrote."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifest.canonical import ABSENT, Json, failed, plain, redacted
from manifest.describing import describe, shown
from manifest.identity import new_run_id
from manifest.models import Restore, Verdict
from manifest.times import age, duration
from manifest_client.rendering.terminal import folded, styled
from manifest_client.rendering.terminal import out as console
from manifest_client.rendering.verdicts import verdict_page


@given(st.text())
def test_shown_text_has_no_character_that_a_terminal_obeys(text: str) -> None:
    assert shown(text).isprintable()


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("one\ntwo\rthree", r"one\ntwo\rthree"),
        ("user\u202egpj.exe", r"user\u202egpj.exe"),
        ("\u2066a\u2069\u200b", r"\u2066a\u2069\u200b"),
        ("\x9b31m", r"\x9b31m"),
        ("\ud800", r"\ud800"),
        ("[red]bold[/red]", "[red]bold[/red]"),
    ],
)
def test_hostile_text_is_visible_and_harmless(hostile: str, harmless: str) -> None:
    assert shown(hostile) == harmless
    assert styled(hostile, (hostile, "bad")).plain == harmless * 2


@given(st.text(), st.integers(min_value=1, max_value=40))
def test_folded_text_is_no_wider_than_asked(text: str, width: int) -> None:
    assert len(folded(text, width)) <= width


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (2, "2"),
        ("2", '"2"'),
        (None, "None"),
        ("None", '"None"'),
        ("", '""'),
        (" padded", '" padded"'),
        ("tf32", "tf32"),
        (True, "True"),
        (plain(float("nan")), "nan"),
        (plain(2**70), str(2**70)),
        (ABSENT, "not set"),
        (redacted("secret", b"salt"), "redacted ("),
        (failed(OSError("gone")), "could not be read: OSError: gone"),
        (["a", 1], "[a, 1]"),
        ([{"a": 1}, {"$float": "nan"}], "[{a: 1}, nan]"),
        ({"kind": "python", "digest": "xxh3:abc"}, "kind: python, digest: xxh3:abc"),
        ("sha256:" + "a" * 64, "sha256:aaaaaaaaaaaa…"),
        ({}, "empty"),
    ],
)
def test_a_value_is_said_so_that_other_values_read_otherwise(value: Json, said: str) -> None:
    assert describe(value).startswith(said)


def test_a_state_in_bytes_is_said_by_size_and_digest() -> None:
    state = {"$bytes": base64.b64encode(bytes(5056)).decode()}
    assert describe(state).startswith("5056 bytes, sha256:")
    assert describe({"$bytes": "no base64!"}) == "bytes that cannot be read"


def test_moments_are_said_in_one_unit() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert age("2026-01-01T23:59:48.6Z", now) == "11 s"
    assert age("2026-01-01T23:50:00Z", now) == "10 min"
    assert age("2026-01-01T23:58:29Z", now) == "2 min"
    assert age("2026-01-01T12:00:00Z", now) == "12 h"
    assert age("2025-12-20T00:00:00Z", now) == "13 d"
    assert age("2027-01-01T00:00:00Z", now) == "now"


def test_durations_are_said_in_two_units_at_most() -> None:
    start = "2026-01-01T00:00:00Z"
    assert duration(start, "2026-01-01T00:00:00.84Z") == "0.8 s"
    assert duration(start, "2026-01-01T00:00:12Z") == "12 s"
    assert duration(start, "2026-01-01T00:03:05Z") == "3 min 5 s"
    assert duration(start, "2026-01-01T02:04:05Z") == "2 h 4 min"


def test_a_verdict_says_that_nothing_had_to_be_put_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    verdict = Verdict(
        outcome="identical",
        original=new_run_id(),
        replay=new_run_id(),
        sentence="equal",
        restores=(Restore(what="settings", outcome="equal already", number=68),),
    )
    console().print(verdict_page(verdict, roles=("recorded", "replay"), width=100), soft_wrap=True)
    printed = " ".join(capsys.readouterr().out.split())
    assert "put back nothing, as all 68 were equal already" in printed


def test_a_verdict_counts_what_was_put_back_and_tells_what_was_not_equal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed = "train.py:9 torch.manual_seed"
    again = "was given 8, the recorded 7 was given again"
    restores = (
        Restore(what="settings", outcome="equal already", number=68),
        Restore(what=seed, outcome="restored", reason=again, number=3),
        Restore(what="torch.cpu", outcome="failed", reason="\x1b[2J"),
        *(Restore(what=f"own#{n}", outcome="skipped", reason="no") for n in range(20)),
    )
    verdict = Verdict(
        outcome="identical",
        original=new_run_id(),
        replay=new_run_id(),
        sentence="equal",
        restores=restores,
    )
    console().print(verdict_page(verdict, roles=("recorded", "replay"), width=100), soft_wrap=True)
    printed = " ".join(capsys.readouterr().out.split())
    assert "put back 3 restored, 68 equal already, 20 skipped, 1 failed" in printed
    assert f"restored {seed} {again} (and 2 more)" in printed
    assert r"failed torch.cpu \x1b[2J" in printed
    assert "settings" not in printed
    assert "own#9" in printed
    assert "own#10" not in printed
    assert "and 10 more" in printed
