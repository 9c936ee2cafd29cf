"""What a user types for a run, and the run that is meant.

``0199c3f2-5b2a``   an id or its unique beginning, with or without dashes
``@latest``         the newest run
``@prev``           the one before it, the same as ``@latest~1``
``@latest~3``       three before the newest

A replay is a check of a run, not a new one: the ``@`` forms count only what was recorded, so that
``manifest replay @latest`` means the same run each time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from manifest.errors import AmbiguousReference, RunNotFound
from manifest.identity import is_run_id
from manifest.models import RunSummary
from manifest.stores import Store

_RELATIVE = re.compile(r"@latest(?:~(\d{1,9}))?|(@prev)")
_PAGE = 100


def resolve(reference: str, store: Store, where: str) -> str:
    """Find the id of the run that is meant.

    Args:
        reference: What the user typed.
        store: Where to look.
        where: The name of that place, for messages.

    Raises:
        RunNotFound: There is no such run.
        AmbiguousReference: The prefix fits several.
    """
    relative = _RELATIVE.fullmatch(reference)
    if relative:
        return _recorded(int(relative[1] or 0) if not relative[2] else 1, store, reference, where)
    prefix = reference.lower()
    if not prefix or set(prefix) - set("0123456789abcdef-"):
        raise RunNotFound(reference, where)
    found = store.find_runs(prefix)
    if not found:
        raise RunNotFound(reference, where)
    if len(found) > 1 and not is_run_id(prefix):
        raise AmbiguousReference(reference, [run.id for run in found])
    return found[0].id


def _recorded(back: int, store: Store, reference: str, where: str) -> str:
    for position, run in enumerate(_runs_but_replays(store)):
        if position == back:
            return run.id
    raise RunNotFound(reference, where)


def _runs_but_replays(store: Store) -> Iterator[RunSummary]:
    before = None
    while page := store.list_runs(limit=_PAGE, before=before):
        yield from (run for run in page if run.replay_of is None)
        before = page[-1].id
