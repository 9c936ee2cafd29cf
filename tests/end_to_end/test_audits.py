"""An audit runs a program twice, and says whether it is reproducible and what mends it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from manifest.auditing import audit
from manifest.models import Audit
from manifest.rundir import run_directories

SCRIPTS = Path(__file__).parent / "scripts"
MANIFEST = str(Path(sys.executable).with_name("manifest"))

NOISE = """\
import os
import torch
from descent import Descent
torch.use_deterministic_algorithms(True, warn_only=True)
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = Descent(model.parameters(), lr=0.1)
for step in range(50):
    noise = torch.zeros(4)
    if step > 0:
        noise = torch.frombuffer(bytearray(os.urandom(4)), dtype=torch.uint8) / 256
    pooled, places = torch.nn.functional.max_pool1d(torch.rand(1, 4), 2, return_indices=True)
    torch.nn.functional.max_unpool1d(pooled, places, 2)
    loss = model(torch.rand(4) + noise).square().sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""

FAILING = """\
import torch
from descent import Descent

torch.use_deterministic_algorithms(True)
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
model(torch.rand(4)).square().sum().backward()
Descent(model.parameters(), lr=0.1).step()
torch.zeros(4).put_(torch.tensor([1, 1]), torch.ones(2))
"""


CLEAN = """\
import torch
from descent import Descent

torch.use_deterministic_algorithms(True)
torch.manual_seed(0)
data = torch.utils.data.TensorDataset(torch.rand(16, 4))
model = torch.nn.Linear(4, 1)
optimizer = Descent(model.parameters(), lr=0.1)
for (batch,) in torch.utils.data.DataLoader(data, batch_size=4, shuffle=True):
    optimizer.zero_grad()
    model(batch).square().sum().backward()
    optimizer.step()
"""

READING = """\
import torch
from descent import Descent

torch.manual_seed(int(input()))
model = torch.nn.Linear(4, 1)
model(torch.rand(4)).sum().backward()
Descent(model.parameters(), lr=0.1).step()
"""


def told(audited: Audit, state: str) -> list[tuple[str, str]]:
    return [(each.what, each.place) for each in audited.doubts if each.state == state]


@pytest.fixture(scope="module")
def given_again(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    folder = tmp_path_factory.mktemp("audited")
    for script in ("audited.py", "descent.py"):
        shutil.copy(SCRIPTS / script, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        audited = audit([sys.executable, "audited.py"], base=folder / ".manifest")
    assert len(run_directories(folder / ".manifest")) == 2, "it costs two runs"
    return audited


def test_a_seed_of_the_clock_is_no_reproducible_program(given_again: Audit) -> None:
    assert given_again.outcome == "reproducible when replayed", given_again.sentence
    assert given_again.verdict is not None
    assert given_again.verdict.outcome == "identical"
    assert "without Manifest each run differs: audited.py:12" in given_again.sentence


def test_what_is_given_again_is_named_with_its_place(given_again: Audit) -> None:
    assert told(given_again, "given again") == [
        ("seeds of random", "audited.py:12"),
        ("seed", "audited.py:11"),
        ("hash seed", ""),
    ]


def test_a_generator_that_workers_copy_is_named_where_the_loader_is_made(
    given_again: Audit,
) -> None:
    assert told(given_again, "suspect") == [("DataLoader", "audited.py:30")]


def test_a_clean_program_has_nothing_to_mend(
    script: Callable[[str, str], Path], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script("clean.py", CLEAN)
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    audited = audit([sys.executable, "clean.py"], base=base)
    assert audited.outcome == "reproducible", audited.sentence
    assert audited.doubts == ()


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    folder = tmp_path_factory.mktemp("noise")
    (folder / "noise.py").write_text(NOISE)
    shutil.copy(SCRIPTS / "descent.py", folder)
    command = [MANIFEST, "audit", "--dense", "--until", "4", "--json", "--", sys.executable]
    environ = {**os.environ, "MANIFEST_DIR": str(folder / "runs")}
    return subprocess.run(
        [*command, "noise.py"],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_first_operation_that_differs_is_named(
    noisy: subprocess.CompletedProcess[str],
) -> None:
    assert noisy.returncode == 1, noisy.stderr
    audited = Audit.model_validate(json.loads(noisy.stdout))
    assert audited.outcome == "not reproducible"
    assert audited.verdict is not None
    assert audited.verdict.comparison is not None
    assert audited.verdict.comparison.steps == 4
    operation = audited.verdict.operation
    assert operation is not None, audited.sentence
    assert (operation.step, operation.place) == (1, "noise.py:11")


def test_warnings_that_were_seen_are_told(noisy: subprocess.CompletedProcess[str]) -> None:
    audited = Audit.model_validate(json.loads(noisy.stdout))
    (warned,) = (each for each in audited.doubts if "MaxUnpool" in each.what)
    assert "max_unpooling2d_forward_out" in warned.why
    assert "deterministic_max_unpool" in warned.fix
    assert warned.place == "noise.py:13"


def test_a_program_that_fails_is_not_judged(script: Callable[[str, str], Path], base: Path) -> None:
    script("failing.py", FAILING)
    audited = audit([sys.executable, "failing.py"], base=base)
    assert audited.outcome == "not judged"
    assert audited.sentence.startswith("the program itself fails, both times: RuntimeError: put_ ")
    (refused,) = (each for each in audited.doubts if each.what == "torch.Tensor.put_")
    assert "deterministic_put" in refused.fix


def test_what_computes_nothing_is_not_judged(
    script: Callable[[str, str], Path], base: Path
) -> None:
    script("nothing.py", "print('nothing')")
    audited = audit([sys.executable, "nothing.py"], base=base)
    assert audited.outcome == "not judged"


def test_a_program_that_fails_before_it_trains_is_run_once(
    script: Callable[[str, str], Path], base: Path
) -> None:
    script("early.py", "raise FileNotFoundError('no data')")
    audited = audit([sys.executable, "early.py"], base=base)
    assert audited.outcome == "not judged"
    said = "the program itself fails before its first training step: FileNotFoundError: no data"
    assert audited.sentence == said
    assert len(run_directories(base)) == 1


def test_what_was_piped_in_is_named_where_only_the_first_run_had_it(tmp_path: Path) -> None:
    (tmp_path / "reading.py").write_text(READING)
    shutil.copy(SCRIPTS / "descent.py", tmp_path)
    done = subprocess.run(
        [MANIFEST, "audit", "--", sys.executable, "reading.py"],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "500"},
        input="7\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("NOT JUDGED")
    assert "Only the first run had the pipe on standard input" in done.stdout
