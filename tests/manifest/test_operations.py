"""Operations: what was written is read, step by whole step."""

from __future__ import annotations

from pathlib import Path

from manifest.operations import Operation, OperationWriter, operations

MULTIPLY = Operation("aten.mm.default", "00ff", "train.py:4")
BACKWARD = Operation("aten.mul.Tensor", "0011", "train.py:5", "MulBackward0")


def write(path: Path) -> bytes:
    writer = OperationWriter()
    for step in (7, 8):
        writer.add(step, MULTIPLY)
        writer.add(step, BACKWARD)
        writer.end_step(step, str(path))
    writer.add(9, MULTIPLY)
    writer.close(str(path), is_compiled=True)
    assert writer.failure is None
    return path.read_bytes()


def test_whole_steps_are_read(tmp_path: Path) -> None:
    found = operations(write(tmp_path / "main.ops"))
    assert found.steps == {7: [MULTIPLY, BACKWARD], 8: [MULTIPLY, BACKWARD]}
    assert found.has_compiled


def test_every_prefix_reads_as_whole_steps(tmp_path: Path) -> None:
    content = write(tmp_path / "main.ops")
    whole = {7: [MULTIPLY, BACKWARD], 8: [MULTIPLY, BACKWARD]}
    for end in range(len(content)):
        found = operations(content[:end])
        assert found.steps.items() <= whole.items()
    assert operations(b"").steps == operations(b"\xff[]\n").steps == {}


def test_too_many_operations_are_not_kept_and_it_is_said(tmp_path: Path) -> None:
    writer = OperationWriter()
    for _ in range(200_001):
        writer.add(0, MULTIPLY)
    writer.end_step(0, str(tmp_path / "main.ops"))
    assert "more than 200000 operations" in str(writer.failure)
    assert not (tmp_path / "main.ops").exists()


def test_what_cannot_be_written_is_remembered(tmp_path: Path) -> None:
    writer = OperationWriter()
    writer.end_step(0, str(tmp_path / "missing" / "main.ops"))
    assert isinstance(writer.failure, FileNotFoundError)
