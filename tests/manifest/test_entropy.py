"""Entropy: the same master gives the same draws, streams never meet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manifest.entropy import Entropy, hash_seed, new_master

MASTER = bytes(range(32))


def test_the_same_master_gives_the_same_draws() -> None:
    first, second = Entropy(MASTER, "main"), Entropy(MASTER, "main")
    assert [first.draw("a", 100) for _ in range(5)] == [second.draw("a", 100) for _ in range(5)]


def test_draws_of_one_kind_do_not_move_another() -> None:
    first, second = Entropy(MASTER, "main"), Entropy(MASTER, "main")
    first.draw("a", 8)
    assert first.draw("b", 8) == second.draw("b", 8)


def test_processes_kinds_and_draws_have_streams_of_their_own() -> None:
    draws = [
        Entropy(MASTER, process).draw(kind, 16)
        for process in ("main", "main.f0", "main.f1", "main.f10", "main.x0")
        for kind in ("a", "ab", "b")
    ]
    draws += [Entropy(bytes(32), "main").draw("a", 16)]
    assert len(set(draws)) == len(draws)


@given(st.integers(1, 700))
def test_bits_fit_and_use_their_width(count: int) -> None:
    entropy = Entropy(MASTER, "main")
    values = [entropy.bits("a", count) for _ in range(64)]
    assert all(0 <= value < 1 << count for value in values)
    assert any(value >> (count - 1) for value in values)


def test_a_fork_continues_with_streams_of_its_own_and_counts_anew() -> None:
    entropy = Entropy(MASTER, "main")
    entropy.draw("a", 8)
    entropy.continue_as("main.f0")
    assert entropy.counts() == {}
    assert entropy.draw("a", 8) == Entropy(MASTER, "main.f0").draw("a", 8)


def test_values_never_change_between_versions() -> None:
    # Recorded runs depend on these bytes.
    assert Entropy(MASTER, "main.x1.f0").draw("numpy.random", 70).hex() == (
        "63bd2a58684ea3c47df218bd8a3c709fc9d53eb7524430940fc68737b30197709174058d5a920de8"
        "96e57d53bbdec06849cfdfc2d761d7cdb07663a9fe98df9fa1922a6145ef"
    )
    assert hash_seed(MASTER) == 2099040914


def test_masters_are_fresh() -> None:
    assert len({new_master() for _ in range(100)}) == 100
