"""Run every short benchmark, or those that are named: `python -m benchmarks listing`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = (
    "accelerators",
    "fingerprints",
    "foreground",
    "kills",
    "listing",
    "million",
    "pages",
    "recording",
    "storing",
    "tracking",
    "verdicts",
)

LONG = ("million", "pages")
"""What fills large databases: run only where it is named."""


def main(names: list[str]) -> int:
    """Run each in a process of its own; the first that fails ends the rest."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"no benchmark {unknown[0]}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    for name in names or (name for name in NAMES if name not in LONG):
        print(f"\n== {name}", flush=True)
        code = subprocess.call([sys.executable, str(FOLDER / f"{name}.py")])
        if code:
            return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
