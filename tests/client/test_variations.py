"""`manifest diff` of three runs and more."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from manifest.canonical import ABSENT
from manifest.models import Variation
from manifest.rundir import RunDirectory
from manifest_client.rendering.variations import letters

Call = Callable[..., Any]
Record = Callable[..., RunDirectory]

COUNTS = (2, 1, 2)


@pytest.fixture
def three(record: Record) -> list[str]:
    """References to three runs, of which the second has another number of threads."""
    for count in COUNTS:
        record(sections={"settings": {"torch.num_threads": count}})
    return ["@latest~2", "@prev", "@latest"]


def row(out: str, key: str) -> list[str]:
    """The cells of the first row of a key."""
    line = next(line for line in out.splitlines() if key in line and line.startswith("  "))
    return line.partition(key)[2].split()


def test_many_runs_have_a_column_each(call: Call, three: list[str]) -> None:
    out = call("diff", *three).out
    assert out.startswith("1 difference changes results: torch.num_threads;")
    assert "CHANGES RESULTS  1\n" in out
    header = next(line for line in out.splitlines() if line.split() == ["A", "B", "C"])
    line = next(line for line in out.splitlines() if "torch.num_threads  " in line)
    assert [line[header.index(column)] for column in "ABC"] == ["2", "1", "·"]


def test_many_runs_say_why_and_where_it_is_written(call: Call, three: list[str]) -> None:
    out = call("diff", *three).out
    assert "Sums and matrix products are divided among this many threads" in out
    assert "    https://docs.pytorch.org/docs/stable/threading_environment_variables.html\n" in out


@pytest.mark.parametrize("runs", [["@prev", "@latest"], ["@latest~2", "@prev", "@latest"]])
def test_an_address_is_never_broken(
    call: Call, three: list[str], monkeypatch: pytest.MonkeyPatch, runs: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    address = "https://docs.pytorch.org/docs/stable/threading_environment_variables.html"
    assert f"    {address}\n" in call("diff", *runs).out


def test_many_runs_as_json_have_a_value_each(call: Call, three: list[str]) -> None:
    found = json.loads(call("diff", *three, "--json").out)
    assert [len(found[name]) for name in ("runs", "trails")] == [3, 3]
    assert found["conclusion"].startswith("1 difference changes results")
    (variation,) = [Variation.model_validate(each) for each in found["variations"]]
    assert (variation.values, variation.were_captured) == (COUNTS, (True, True, True))
    assert (variation.impact, bool(variation.reason), bool(variation.source)) == (
        "certain",
        True,
        True,
    )


def test_many_runs_can_be_narrowed(call: Call, record: Record) -> None:
    for number in range(3):
        record(sections={"settings": {"torch.num_threads": number}, "config": {"lr": number}})
    runs = ["@latest~2", "@prev", "@latest"]
    out = call("diff", *runs, "--section", "config").out
    assert row(out, "config lr") == ["0", "1", "2"]
    assert out.startswith("1 difference changes results: torch.num_threads")
    assert "torch.num_threads" not in out.partition("\n\n")[2]
    assert out.endswith("Only section config is shown; the first line is about all.\n")
    out = call("diff", *runs, "--impact", "certain").out
    assert "torch.num_threads" in out
    assert "config lr" not in out


def test_the_exit_code_says_whether_any_of_many_differs(call: Call, three: list[str]) -> None:
    assert call("diff", *three).code == 0
    assert call("diff", *three, "--exit-code").code == 1
    assert call("diff", *["@latest"] * 3, "--exit-code").code == 0
    assert call("diff", *three, "--exit-code", "--section", "config").code == 0


def test_runs_that_are_the_same_need_one_sentence(call: Call, three: list[str]) -> None:
    out = call("diff", *["@latest"] * 3).out
    assert out.startswith("No recorded difference.\n")
    assert "·\n" not in out


def test_what_is_missing_is_said_in_words_of_its_own(call: Call, record: Record) -> None:
    values: list[dict[str, Any]] = [{"k": 1}, {}, {"k": ABSENT}, {"k": {"$redacted": "aa11"}}]
    for value in values:
        record(sections={"settings": {"other": 1, **value}})
    out = call("diff", "@latest~3", "@latest~2", "@prev", "@latest", "--all").out
    for words in ("not captured", "not set", "redacted"):
        assert words in out


def test_values_that_begin_alike_are_shown_where_they_differ(call: Call, record: Record) -> None:
    alike = "torch.utils.data.sampler."
    for value in (f"{alike}RandomSampler", f"{alike}SequentialSampler", f"{alike}RandomSampler"):
        record(sections={"loaders": {"loader.0": {"sampler": value}}})
    out = call("diff", "@latest~2", "@prev", "@latest").out
    assert row(out, "loader.0.sampler") == ["…RandomSampler", "…SequentialSa…", "·"]


def test_lists_and_files_are_shown_by_what_tells_them_apart(call: Call, record: Record) -> None:
    for number in range(3):
        argv = ["python", "train.py", *(["--lr", str(number)] if number else [])]
        file = {"size": 10, "blob": f"sha256:{number:08x}" + "0" * 56, "mtime_us": number}
        record(command=argv, sections={"inputs": {"config.json": file}})
    out = call("diff", "@latest~2", "@prev", "@latest").out
    assert " ".join(row(out, "command argv")) == "… … --lr 1 … --lr 2"
    assert row(out, "inputs config.json") == ["00000000", "00000001", "00000002"]


def test_values_that_end_alike_or_differ_in_between_stay_apart(call: Call, record: Record) -> None:
    for middle in "xyz":
        record(sections={"config": {"long": "a" * 40 + middle + "b" * 40}})
    cells = row(call("diff", "@latest~2", "@prev", "@latest").out, "config long")
    assert " ".join(cells) == "value 1 value 2 value 3"


def test_a_value_of_another_type_is_not_the_same(call: Call, record: Record) -> None:
    for value in (1, "1", 1.0):
        record(sections={"config": {"k": value}})
    assert row(call("diff", "@latest~2", "@prev", "@latest").out, "config k") == ["1", '"1"', "1.0"]


def test_many_runs_are_folded_into_blocks_of_what_varies_there(
    call: Call, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for number in range(12):
        own = {f"key{number}": f"value of {number}"} if number % 2 else {}
        record(sections={"config": {**{f"key{n}": "first" for n in range(12)}, **own}})
    out = call("diff", *[f"@latest~{n}" for n in range(11, 0, -1)], "@latest").out
    assert "The same as A in all of these: C, E, G, I, K\n" in out
    headers = [line.split() for line in out.splitlines() if line.split()[:1] == ["A"]]
    blocks = [header for header in headers if all(len(name) == 1 for name in header)]
    assert len(blocks) > 1
    assert [name for header in blocks for name in header[1:]] == ["B", "D", "F", "H", "J", "L"]
    rows = [
        line for line in out.splitlines() if line.startswith("  config key") and "first" in line
    ]
    assert len(rows) == 6, "each in the block in which it varies"


def test_columns_go_on_after_z() -> None:
    assert [letters(number) for number in (0, 25, 26, 51, 52, 702)] == [
        "A", "Z", "AA", "AZ", "BA", "AAA",
    ]  # fmt: skip


def test_two_runs_keep_their_page_and_one_needs_another(call: Call, three: list[str]) -> None:
    assert "torch.num_threads  2 → 1" in call("diff", three[0], three[1]).out
    assert call("diff", three[0]).code == 2
    assert call("diff", *three, "--ranks").code == 2
    assert call("diff", *three, "no such run").code == 2
