"""Tests of users whose training has a golden, run by pytest as users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch._dynamo  # noqa: F401 -- pytester forgets what is imported later, and torch comes once

import manifest_client.goldens
import manifest_client.rendering.diffs  # noqa: F401 -- likewise

pytest_plugins = ["pytester"]

TRAINING = """\
import os
import pytest
import torch


def train(steps=6, lr=0.1, threads=1, draw=torch.rand):
    torch.set_num_threads(threads)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for step in range(steps):
        loss = model(draw(16, 4)).square().mean() + draw(300_000).sum() * 1e-6
        optimizer.zero_grad()
        loss.backward()
        if step == 4:
            model[2].bias.grad += float(os.environ.get("CHANGE", 0))
        optimizer.step()

"""
MARKED = "@pytest.mark.manifest_golden\n"

Pytest = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester) -> Pytest:
    """Run pytest on a test that does as told."""

    def run(body: str, *options: str, mark: str = MARKED, **files: str) -> pytest.RunResult:
        pytester.makepyfile(test_it=f"{TRAINING}{mark}def test_it():\n    {body}\n", **files)
        return pytester.runpytest_inprocess("--strict-markers", "-q", *options)

    return run


def golden(pytester: pytest.Pytester) -> Path:
    return pytester.path / "goldens" / "test_it" / "test_it.json"


def test_a_golden_is_written_and_holds(run: Pytest, pytester: pytest.Pytester) -> None:
    written = run("train()", "--manifest-golden=write")
    written.assert_outcomes(passed=1)
    written.stdout.fnmatch_lines(["*goldens written*", "goldens/test_it/test_it.json"])
    text = golden(pytester).read_text()
    again = run("train()")
    again.assert_outcomes(passed=1)
    assert "golden" not in again.stdout.str()
    run("train()", "--manifest-golden=write").assert_outcomes(passed=1)
    assert golden(pytester).read_text() == text, "the same training gives the same text"
    assert len(text) < 4_000


def test_what_differs_is_named_with_its_step_and_tensor(
    run: Pytest, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("train()", "--manifest-golden=write")
    monkeypatch.setenv("CHANGE", "0.125")
    failed = run("train()")
    failed.assert_outcomes(failed=1)
    failed.stdout.fnmatch_lines(
        [
            "*equal to step 3; at step 4 the loss is equal and the gradient of `2.bias` differs*",
            "Optimizers, settings and machine are as they were*",
            "If that is meant: pytest test_it.py::test_it --manifest-golden=write",
        ]
    )
    assert "Traceback" not in failed.stdout.str()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("train(lr=0.25)", "*training optimizer.0.lr  0.1 → 0.25"),
        ("train(threads=2)", "*settings torch.num_threads  1 → 2"),
        (
            "torch.set_flush_denormal(True); train(lr=0.2); torch.set_flush_denormal(False)",
            "*settings torch.flush_denormal  * → True",
        ),
    ],
)
def test_settings_that_can_explain_it_are_told(run: Pytest, body: str, said: str) -> None:
    run("train()", "--manifest-golden=write")
    failed = run(body)
    failed.assert_outcomes(failed=1)
    failed.stdout.fnmatch_lines(["What differs from when the golden was written*", said])


def test_settings_that_change_no_bit_fail_nothing(run: Pytest, pytester: pytest.Pytester) -> None:
    run("train()", "--manifest-golden=write")
    document = json.loads(golden(pytester).read_text())
    document["settings"]["settings"]["torch.version"] = "1.0"
    golden(pytester).write_text(json.dumps(document))
    run("train()").assert_outcomes(passed=1)
    failed = run("train(steps=7)")
    failed.stdout.fnmatch_lines(["*it made 7 steps, of which the golden has 6*", "*torch.version*"])


def test_a_golden_that_is_missing_is_no_pass(run: Pytest, pytester: pytest.Pytester) -> None:
    failed = run("train()")
    failed.assert_outcomes(failed=1)
    failed.stdout.fnmatch_lines(["To write it: pytest test_it.py::test_it --manifest-golden=write"])
    assert not golden(pytester).exists()
    run("train()", "--manifest-golden=off").assert_outcomes(passed=1)


@pytest.mark.parametrize("mode", ["write", "compare"])
def test_what_trains_nothing_has_no_golden(run: Pytest, mode: str) -> None:
    failed = run("train(steps=0)", f"--manifest-golden={mode}")
    failed.assert_outcomes(failed=1)
    failed.stdout.fnmatch_lines(["*no optimizer made a step in it*"])


def test_a_test_that_fails_writes_no_golden(run: Pytest, pytester: pytest.Pytester) -> None:
    run("train(); assert False", "--manifest-golden=write").assert_outcomes(failed=1)
    run("train(); pytest.skip()", "--manifest-golden=write").assert_outcomes(skipped=1)
    assert not golden(pytester).exists()


def test_generators_are_seeded_unless_told_otherwise(run: Pytest) -> None:
    run("train()", "--manifest-golden=write")
    draws = "import random, numpy; random.random(); numpy.random.rand(); torch.rand(1)"
    run("train()", test_before=f"import torch\ndef test_draws():\n    {draws}\n").assert_outcomes(
        passed=2
    )
    unseeded = "@pytest.mark.manifest_golden(seed=None)\n"
    failed = run("torch.manual_seed(1); train()", mark=unseeded)
    failed.stdout.fnmatch_lines(["*at step 0 the generators * differ: seeds*"])


def test_a_golden_after_a_bad_merge_is_told_and_written_anew(
    run: Pytest, pytester: pytest.Pytester
) -> None:
    run("train()", "--manifest-golden=write")
    text = golden(pytester).read_text()
    golden(pytester).write_text(f"<<<<<<< HEAD\n{text}")
    failed = run("train()")
    failed.assert_outcomes(failed=1)
    failed.stdout.fnmatch_lines(["*cannot be compared with goldens/test_it/test_it.json: *"])
    run("train()", "--manifest-golden=write").assert_outcomes(passed=1)
    assert golden(pytester).read_text() == text


def test_two_tests_whose_goldens_would_be_one_file(run: Pytest, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_two=f"{TRAINING}{MARKED}@pytest.mark.parametrize('case', ['a/b', 'a:b'])\n"
        "def test_it(case):\n    train()\n"
    )
    result = pytester.runpytest_inprocess("-q", "--manifest-golden=write")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*would take the place of test_two.py::test_it?a/b? in *"])


def test_a_process_that_is_recorded_is_not_watched_twice(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANIFEST_DIR", str(tmp_path / "runs"))
    recorded = "with manifest.record():\n        "
    around = f"@pytest.fixture\ndef recorded():\n    {recorded}yield\n\n"
    pytester.makepyfile(
        f"import manifest\n{TRAINING}{around}"
        f"{MARKED}def test_within(recorded):\n    train()\n\n"
        f"{MARKED}def test_itself():\n    {recorded}train()\n"
    )
    result = pytester.runpytest_subprocess("-q")  # what is recorded is so to its end
    result.assert_outcomes(skipped=1, failed=1)
    result.stdout.fnmatch_lines(["*records a run of its own*"])


def test_workers_of_xdist_write_and_compare(run: Pytest, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=f"{TRAINING}{MARKED}def test_it():\n    train()\n")
    options = ("-q", "-p", "xdist", "-n", "1")
    written = pytester.runpytest_subprocess(*options, "--manifest-golden=write")
    written.stdout.fnmatch_lines(["*goldens written*", "goldens/test_it/test_it.json"])
    pytester.runpytest_inprocess("-q").assert_outcomes(passed=1)


def test_other_tests_pay_nothing(pytester: pytest.Pytester) -> None:
    heavy = "{'torch', 'numpy', 'manifest', 'pydantic', 'typer'}"
    pytester.makepyfile(
        f"import sys\ndef test_it():\n    assert not {heavy} & sys.modules.keys()\n"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist"]
    done = subprocess.run(
        command, cwd=pytester.path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
