"""Make docs/demo.svg: what the commands of README.md show in a terminal.

Run it with the project's environment after `make demo`, whose folder it uses.
"""

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

CHECKOUT = Path(__file__).resolve().parents[1]
COLUMNS, LINES = 80, 46
COMMANDS = (
    "manifest run -- python digits.py --epochs 2",
    "manifest replay @latest",
    "manifest diff @latest~3 @latest~1",
)


def main() -> None:
    """Run the commands in a terminal of their own and draw it."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    shown: list[str] = []
    for command in COMMANDS:
        shown += [f"\x1b[1m$ {command}\x1b[0m", *seen(command)]
    for line in shown[:LINES]:
        console.print(Text.from_ansi(line), soft_wrap=False)
    drawn = console.export_svg(title="manifest")
    # Fonts of the reader's own: a picture fetches nothing.
    drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    drawn = drawn.replace("Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono")
    (CHECKOUT / "docs" / "demo.svg").write_text(drawn)


def seen(command: str) -> list[str]:
    """What a command prints on a terminal."""
    parent, child = pty.openpty()
    folder = Path(sys.executable).parent
    environ = {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": str(COLUMNS),
        "TERM": "xterm-256color",
    }
    process = subprocess.Popen(
        command.split(), cwd=CHECKOUT / ".demo", env=environ, stdout=child, stderr=child
    )
    os.close(child)
    output = b""
    while True:
        try:
            block = os.read(parent, 4096)
        except OSError:  # the terminal is gone when its last user is
            break
        if not block:
            break
        output += block
    process.wait()
    return [line.rpartition("\r")[2] or line for line in output.decode().split("\r\n")]


if __name__ == "__main__":
    main()
