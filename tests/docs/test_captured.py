"""docs/captured.md tells of every section of a manifest, and of no other."""

from __future__ import annotations

import re
from pathlib import Path

from manifest.models import SECTIONS


def test_every_section_is_told_of(checkout: Path) -> None:
    text = (checkout / "docs" / "captured.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == SECTIONS
