"""What two runs with these sections differ in, whichever comes first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from manifest.diffing import diff_sections
from manifest.findings import Blobs

Sections = dict[str, dict[str, Any]]


@pytest.fixture
def impacts() -> Callable[..., dict[str, str]]:
    """The impact of each key that differs; the same for both orders of the runs."""

    def found(before: Sections, after: Sections, *, blobs: Blobs | None = None) -> dict[str, str]:
        there = diff_sections(before, after, blobs=blobs)
        back = diff_sections(after, before, blobs=blobs)
        by_key = {each.key: str(each.impact) for each in there}
        assert by_key == {each.key: str(each.impact) for each in back}
        return by_key

    return found
