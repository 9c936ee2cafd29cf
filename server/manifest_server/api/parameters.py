"""Parameters that several endpoints take."""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import Path, Query

from manifest.filtering import LONGEST, Filter, parse_filter
from manifest.summaries import LABEL_LENGTHS

RUN_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

RunId = Annotated[
    str,
    Path(
        pattern=f"^{RUN_ID.pattern}$",
        description="The whole id of a run.",
        examples=["01990000-0000-7000-8000-000000000001"],
    ),
]
FilterText = Annotated[
    str | None,
    Query(
        alias="filter",
        max_length=LONGEST,
        description="Which runs are meant.",
        examples=['config.lr > 0.1 and not status = "crashed"'],
    ),
]
Project = Annotated[
    str | None, Query(max_length=LABEL_LENGTHS["project"], description="Only runs of this project.")
]
Limit = Annotated[int, Query(ge=1, le=500, description="How many at most.")]


def wanted_by(text: str | None) -> Filter | None:
    """The filter that a request gives, if it gives one.

    Raises:
        FilterInvalid: It cannot be read.
    """
    return parse_filter(text) if text and text.strip() else None
