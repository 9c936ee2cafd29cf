"""The first operation on which two densely recorded runs do not agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifest.dense import first_operation, operation_sentence
from manifest.operations import Operation, OperationWriter
from manifest.trail import Trail, TrailWriter, beside

Steps = dict[int, list[Operation]]

ADD = Operation("aten.add.Tensor", "01", "train.py:3")
MULTIPLY = Operation("aten.mm.default", "02", "train.py:4")
OTHER_BITS = Operation("aten.mm.default", "ff", "train.py:4", "MmBackward0")


def make(folder: Path, steps: Steps, *, is_compiled: bool = False) -> Trail:
    path = folder / f"{len(list(folder.iterdir()))}.bin"
    TrailWriter(path).close()
    writer = OperationWriter()
    for step, operations in steps.items():
        for operation in operations:
            writer.add(step, operation)
        writer.end_step(step, beside(str(path), ".ops"))
    writer.close(beside(str(path), ".ops"), is_compiled=is_compiled)
    return Trail.open(path)


def test_operations_that_agree_do_not_differ(tmp_path: Path) -> None:
    one, other = make(tmp_path, {3: [ADD]}), make(tmp_path, {3: [ADD], 4: [MULTIPLY]})
    assert first_operation({"main": one}, {"main": other}) is None
    assert first_operation({"main": one}, {"main.x0": other}) is None
    assert first_operation({"main": one}, {"main": make(tmp_path, {})}) is None


def test_other_bits_are_found_where_they_come_up_first(tmp_path: Path) -> None:
    one = make(tmp_path, {2: [ADD], 3: [ADD, MULTIPLY, ADD]})
    other = make(tmp_path, {3: [ADD, OTHER_BITS, OTHER_BITS], 4: [ADD]}, is_compiled=True)
    found = first_operation({"main": other}, {"main": one})
    assert found is not None
    assert (found.step, found.ordinal, found.name) == (3, 1, "aten.mm.default")
    assert operation_sentence(found) == (
        "the first operation that differs is `aten.mm.default` at step 3, train.py:4 "
        "(backward, MmBackward0); what was compiled was not observed"
    )


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ([ADD, ADD], [ADD, MULTIPLY], "goes on with `aten.add.Tensor`, train.py:3, the other with"),
        ([ADD], [ADD, MULTIPLY], "`aten.mm.default`, train.py:4, the other with `the end of the"),
        ([ADD, MULTIPLY], [ADD], "`aten.mm.default`, train.py:4, the other with `the end of the"),
    ],
)
def test_a_program_that_went_another_way_is_found(
    tmp_path: Path, before: list[Operation], after: list[Operation], said: str
) -> None:
    trails = make(tmp_path, {0: before}), make(tmp_path, {0: after})
    found = first_operation({"main": trails[0]}, {"main": trails[1]})
    assert found is not None
    assert (found.step, found.ordinal) == (0, 1)
    assert said in operation_sentence(found)


def test_the_earliest_of_all_processes_is_found(tmp_path: Path) -> None:
    same = make(tmp_path, {0: [ADD], 1: [ADD]})
    late, early = make(tmp_path, {0: [ADD], 1: [MULTIPLY]}), make(tmp_path, {0: [MULTIPLY]})
    found = first_operation({"main": same, "main.x0": same}, {"main": late, "main.x0": early})
    assert found is not None
    assert (found.process, found.step) == ("main.x0", 0)
    assert " in main.x0 " in operation_sentence(found)
