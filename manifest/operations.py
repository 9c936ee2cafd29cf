"""Operations: what PyTorch computed in steps that are recorded densely, one line each.

``<process>.ops`` holds lines of JSON: an operation is a list of step, name, digest of what it gave
and wrote, place in the program, and the backward node that it is part of; a step is complete where
a line with its number alone follows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from manifest.appending import AppendedFile

COMPILED: Final = "compiled"
"""A line by itself: some code was compiled, and what it computes was not observed."""

_MOST = 200_000


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of an operator."""

    name: str
    digest: str
    place: str = ""
    node: str = ""


class OperationWriter:
    """Gathers the operations of a step, and writes them when it ends; never raises."""

    def __init__(self) -> None:
        self.failure: object = None
        self._lines: list[str] = []
        self._count = 0
        self._file: AppendedFile | None = None

    def add(self, step: int, operation: Operation) -> None:
        """Take note of an operation."""
        self._count += 1
        if self._count <= _MOST:
            content = [step, operation.name, operation.digest, operation.place, operation.node]
            self._lines.append(json.dumps(content))
        elif self.failure is None:
            self.failure = f"more than {_MOST} operations: those after are not kept"

    def end_step(self, step: int, path: str) -> None:
        """Write what was gathered; a step of which something is missing never ends."""
        if self._count <= _MOST:
            self._write(path, [*self._lines, json.dumps(step)])
        self._lines.clear()

    def close(self, path: str, *, is_compiled: bool) -> None:
        """End the file."""
        if is_compiled:
            self._write(path, [json.dumps(COMPILED)])
        self.forget()

    def forget(self) -> None:
        """Let go of the file without writing."""
        self._lines.clear()
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
        except OSError as error:
            self.failure = self.failure or error

    def _write(self, path: str, lines: list[str]) -> None:
        try:
            if self._file is None:
                self._file = AppendedFile(path, is_new=False)
            self._file.write("".join(f"{line}\n" for line in lines).encode())
        except OSError as error:
            self.failure = self.failure or error


@dataclass(frozen=True, slots=True)
class Operations:
    """The operations of the complete steps of one process."""

    steps: dict[int, list[Operation]]
    has_compiled: bool = False


def operations(content: bytes) -> Operations:
    """Read a file of operations, as far as it can be read."""
    steps: dict[int, list[Operation]] = {}
    waiting: list[Operation] = []
    has_compiled = False
    for line in content.splitlines():
        try:
            match json.loads(line):
                case [int(), str(), str(), str(), str()] as found:
                    waiting.append(Operation(*found[1:]))
                case int() as step:
                    steps[step], waiting = waiting, []
                case "compiled":
                    has_compiled = True
                case _:
                    break
        except ValueError:
            break
    return Operations(steps, has_compiled)
