"""Leaves: which things the rows stand for, and where two runs stand for the same."""

from __future__ import annotations

from manifest.leaves import OWN, LeafWriter, Leaves, same_names


def written(*frames: tuple[int, tuple[str, ...]]) -> Leaves:
    writer = LeafWriter()
    return Leaves(
        b"".join(
            writer.frames(step, OWN, names, [b"d" * 16] * len(names)) for step, names in frames
        )
    )


def test_names_hold_until_others_are_written() -> None:
    leaves = written((0, ("a",)), (1, ("a",)), (5, ("a", "b")), (9, ("b",)))
    assert leaves.names(OWN) == [(0, {"a"}), (5, {"a", "b"}), (9, {"b"})]
    assert leaves.names("param") == []


def test_only_steps_of_the_same_names_are_comparable() -> None:
    before = written((0, ("a",)), (5, ("a", "b")), (9, ("b",)))
    after = written((0, ("a",)), (7, ("b", "a")))
    assert same_names(before, after, OWN, 20) == [range(5), range(7, 9)]
    assert same_names(before, before, OWN, 6) == [range(5), range(5, 6)]


def test_what_no_frame_tells_is_comparable_with_its_like_alone() -> None:
    nothing, something = written(), written((3, ("a",)))
    assert same_names(nothing, nothing, OWN, 5) == [range(5)]
    assert same_names(nothing, something, OWN, 5) == [range(3)]
    assert same_names(nothing, nothing, OWN, 0) == []


def test_too_many_sets_of_names_are_refused() -> None:
    writer = LeafWriter()
    kept = [bool(writer.frames(n, OWN, (f"{n}",), [b"d" * 16])) for n in range(300)]
    assert kept == [True] * 256 + [False] * 44
    assert writer.frames(300, OWN, ("3",), [b"d" * 16])
