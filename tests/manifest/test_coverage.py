"""At how many steps two trails were compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifest.coverage import cover
from manifest.streams import STREAMS, UNOBSERVED
from manifest.trail import Trail, TrailWriter

LONG = 2**15 + 3  # more than is read at once


def make(path: Path, steps: int, unseen: Mapping[str, frozenset[int]]) -> Trail:
    path.unlink(missing_ok=True)
    writer = TrailWriter(path)
    seen = b"\x00 observed, ends\x00"[:16]
    for step in range(steps):
        writer.append(
            *(UNOBSERVED if step in unseen.get(stream, ()) else seen for stream in STREAMS)
        )
    writer.close()
    return Trail.open(path)


@given(before=st.frozensets(st.integers(0, 9)), after=st.frozensets(st.integers(0, 9)))
def test_steps_that_both_saw_are_counted(
    tmp_path_factory: pytest.TempPathFactory, before: frozenset[int], after: frozenset[int]
) -> None:
    folder = tmp_path_factory.mktemp("trails")
    first = make(folder / "a.bin", 10, {"loss": before})
    second = make(folder / "b.bin", 12, {"loss": after})
    found = cover(first, second)
    assert found.compared["loss"] == 10 - len(before | after)
    assert found.compared["grad"] == 10
    assert dict(found.one_sided) == ({"loss": min(before ^ after)} if before != after else {})
    assert cover(second, first) == found


def test_long_trails_are_counted_whole(tmp_path: Path) -> None:
    gaps = frozenset({5, LONG - 2})
    first = make(tmp_path / "a.bin", LONG, {"param": gaps})
    found = cover(first, make(tmp_path / "b.bin", LONG, {"param": gaps | {LONG - 1}}))
    assert found.compared["param"] == LONG - 3
    assert found.one_sided == {"param": LONG - 1}
