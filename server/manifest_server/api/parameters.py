"""Parameters that several endpoints take."""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import Header, Path, Query

from manifest.filtering import LONGEST, Filter, parse_filter
from manifest.summaries import LABEL_LENGTHS
from manifest_server.trailstore import PROCESS

RUN_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DIGEST: Final = r"^sha256:[0-9a-f]{64}$"

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
IfNoneMatch = Annotated[str | None, Header(description="The ETag of what the client has.")]
Digest = Annotated[
    str,
    Path(
        pattern=DIGEST,
        description="Of the bytes.",
        examples=["sha256:" + "0" * 64],
    ),
]
Process = Annotated[
    str,
    Path(
        pattern=f"^{PROCESS.pattern}$",
        description="A process of the run, as its manifest names it.",
    ),
]
Suffix = Annotated[
    str, Path(max_length=20, description="As the file's name ends.", examples=["tensors"])
]
FromStep = Annotated[
    int,
    Query(ge=0, le=2**40, multiple_of=1024, description="The step of the first row."),
]


def wanted_by(text: str | None) -> Filter | None:
    """The filter that a request gives, if it gives one.

    Raises:
        FilterInvalid: It cannot be read.
    """
    return parse_filter(text) if text and text.strip() else None
