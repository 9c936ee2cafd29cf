"""A list of tokens; never the tokens themselves."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from manifest.describing import shown
from manifest.models import Token


def tokens_table(tokens: Sequence[Token]) -> Table:
    """What is known of each token, on a line."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="quiet", pad_edge=False)
    table.add_column("ID", no_wrap=True, min_width=36)
    for name in ("NAME", "MAY", "PROJECT", "STATE"):
        table.add_column(name, overflow="fold")
    for token in tokens:
        project = "all" if token.project is None else shown(token.project)
        table.add_row(token.id, shown(token.name), " ".join(token.scopes), project, _state(token))
    return table


def _state(token: Token) -> str:
    if token.revoked_at is not None:
        return "revoked"
    if token.expires_at is not None:
        return f"until {token.expires_at[:10]}"
    return "valid"
