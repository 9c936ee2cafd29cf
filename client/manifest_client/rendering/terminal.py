"""The terminal: what may be written to it, and in which style.

Everything in a manifest is text that someone else wrote. It reaches the terminal only as `Text`
that went through `shown`: never as rich markup, and never with a character that a terminal obeys
or that changes the order in which a line is read.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, Final

from rich.console import Console
from rich.style import Style
from rich.text import Text
from rich.theme import Theme

from manifest.canonical import Json, canonical_bytes
from manifest.describing import shown

_THEME: Final = Theme(
    {
        "heading": "bold",
        "key": "cyan",
        "quiet": "dim",
        "good": "bold green",
        "bad": "bold red",
        "warning": "yellow",
        "before": "red",
        "after": "green",
        "certain": "bold red",
        "possible": "yellow",
        "unknown": "magenta",
        "performance": "blue",
        "informational": "dim",
    },
    inherit=False,
)

ELLIPSIS: Final = "…"


def out() -> Console:
    """The console for answers: standard output."""
    return _Console(theme=_THEME, highlight=False, markup=False, emoji=False, style=Style())


def err() -> Console:
    """The console for everything said beside the answer: standard error."""
    return _Beside(
        stderr=True, theme=_THEME, highlight=False, markup=False, emoji=False, style=Style()
    )


def folded(text: str, width: int) -> str:
    """Make text harmless and cut it to `width` characters, with a sign that it was cut."""
    text = shown(text[: 4 * width])
    return text if len(text) <= width else text[: max(0, width - 1)] + ELLIPSIS


def styled(*parts: str | tuple[str, str]) -> Text:
    """One line of text and styles; every part is made harmless."""
    line = Text(no_wrap=False, overflow="fold")
    for part in parts:
        text, style = (part, "") if isinstance(part, str) else part
        line.append(shown(text), style)
    return line


def indented(line: Text, columns: int, width: int) -> Text:
    """Wrap a line to `width`, each of its rows moved to the right."""
    rows = line.wrap(out(), max(20, width - columns), overflow="fold")
    for row in rows:
        row.rstrip()
    return Text("\n").join([Text(" " * columns).append_text(row) for row in rows])


def print_json(value: Json) -> None:
    """Print a value for programs: its canonical bytes, or readable where a person looks on."""
    if sys.stdout.isatty():
        import json

        # Escaped to ASCII, so that no text in it can direct the terminal.
        sys.stdout.write(json.dumps(value, indent=2, sort_keys=True) + "\n")
        return
    sys.stdout.write(canonical_bytes(value).decode() + "\n")


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # Rich would end the command with 1, which means that two runs differ.
        raise BrokenPipeError


class _Beside(_Console):
    def print(self, *objects: Any, **options: Any) -> None:
        # A log on a full disk, or a reader that has left, keeps no command from what it does, and
        # changes nothing of how it ends: a program is recorded behind this.
        with suppress(OSError):
            super().print(*objects, **options)
