"""Programs of every shape are recorded as they are, and repeat."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from manifest.errors import NotReplayable
from manifest.launching import Launched, launch
from manifest.models import Manifest
from manifest.replaying import replay

Recorded = Callable[..., Launched]
Plainly = Callable[..., subprocess.CompletedProcess[str]]


def manifest_of(launched: Launched) -> Manifest:
    return Manifest.model_validate(launched.run.document())


def test_a_module_in_a_package_repeats(
    script: Callable[[str, str], Path], recorded: Recorded, base: Path
) -> None:
    source = (Path(__file__).parent / "scripts" / "train.py").read_text()
    script("pkg/__init__.py", "")
    script("pkg/rate.py", "RATE = 0.05\n")
    script(
        "pkg/train.py", source.replace("import argparse", "import argparse\nfrom .rate import RATE")
    )
    launched = recorded("-m", "pkg.train", "--lr", "0.2")
    found = manifest_of(launched)
    assert found.status == "finished"
    assert found.sections["command"]["argv"][-4:] == ["-m", "pkg.train", "--lr", "0.2"]
    assert {"pkg/train.py", "pkg/rate.py"} <= found.sections["code"]["files"].keys()

    script("pkg/rate.py", "RATE = 'changed since'\n")
    script("pkg/train.py", "raise SystemExit('the edited file must not run')\n")
    verdict = replay(launched.run, base=base)
    assert verdict.outcome == "identical", verdict.sentence
    assert (base.parent / "pkg" / "rate.py").read_text() == "RATE = 'changed since'\n"


@pytest.mark.parametrize(
    ("end", "status", "code"),
    [("exit", "failed", 3), ("raise", "failed", 1), ("os._exit", "finished", 0)],
)
def test_a_program_that_ends_in_its_own_way_is_recorded_and_repeats(
    end: str, status: str, code: int, copied: Callable[[str], Path], recorded: Recorded, base: Path
) -> None:
    copied("train.py")
    launched = recorded("train.py", "--end", end)
    found = manifest_of(launched)
    assert (found.status, launched.exit_code) == (status, code)
    if end == "raise":
        assert found.error == "ValueError: the data ran out"
    verdict = replay(launched.run, base=base)
    assert verdict.outcome == "identical", verdict.sentence
    assert verdict.comparison is not None
    assert verdict.comparison.steps == 16


def test_a_program_killed_half_way_is_listed_as_crashed_and_repeats(
    copied: Callable[[str], Path], recorded: Recorded, base: Path
) -> None:
    copied("train.py")
    launched = recorded("train.py", "--end", "killed", "--workers", "2")
    found = manifest_of(launched)
    assert (found.status, found.exit_signal, launched.exit_code) == ("crashed", "SIGKILL", 137)
    assert found.sections["settings"], "what was known at the first step is kept"
    verdict = replay(launched.run, base=base)
    assert verdict.outcome == "identical", verdict.sentence
    assert verdict.comparison is not None
    assert verdict.comparison.steps == 10


def test_a_script_that_seeds_itself_gives_the_same_bits_with_and_without(
    copied: Callable[[str], Path], recorded: Recorded, plainly: Plainly, project: Path
) -> None:
    source = copied("train.py").read_text()
    # Entropy that nobody seeds may differ; everything else must not.
    (project / "train.py").write_text(
        source.replace("np.random.default_rng()", "np.random.default_rng(5)")
    )
    plainly("train.py", "--seed", "3", "--workers", "2", "--weights", "plain.txt")
    recorded("train.py", "--seed", "3", "--workers", "2", "--weights", "recorded.txt")
    plainly("train.py", "--seed", "3", "--workers", "2", "--weights", "inside.txt", "--record")
    plain = (project / "plain.txt").read_text()
    assert plain.count("\n") == 4
    assert (project / "recorded.txt").read_text() == plain
    assert (project / "inside.txt").read_text() == plain


def test_a_run_recorded_from_its_code_repeats(
    copied: Callable[[str], Path], plainly: Plainly, base: Path, project: Path
) -> None:
    from manifest.rundir import run_directories

    copied("train.py")
    done = plainly("train.py", "--record", "--workers", "2", "--weights", str(project / "w.txt"))
    assert done.returncode == 0, done.stderr
    (original,) = run_directories(base)
    found = Manifest.model_validate(original.document())
    assert (found.mode, found.project, found.status) == ("record", "tests", "finished")
    assert found.sections["config"] == {"lr": 0.1}
    assert found.sections["generators"].keys() >= {"python", "torch.cpu"}
    first = (project / "w.txt").read_text()
    verdict = replay(original, base=base)
    assert verdict.outcome == "identical", verdict.sentence
    # The argument names a place inside the project: the replay wrote to its own copy.
    assert (project / "w.txt").read_text() == first


def test_a_script_that_was_given_alone_is_replayed_as_it_was_and_a_change_named_when_in_place(
    copied: Callable[[str], Path], base: Path
) -> None:
    path = copied("train.py")
    launched = launch(["train.py"], base=base)
    path.write_text(path.read_text().replace("Dropout(0.2)", "Dropout(0.5)"))
    assert replay(launched.run, base=base).outcome == "identical"
    with pytest.raises(NotReplayable, match=r"source train\.py: was changed"):
        replay(launched.run, base=base, in_place=True)
    verdict = replay(launched.run, base=base, in_place=True, best_effort=True)
    assert verdict.outcome == "diverged"
    assert any(item.key.endswith("train.py") for item in verdict.explanations)


def test_what_a_program_read_is_put_back_and_what_it_wrote_is_not_there(
    script: Callable[[str, str], Path],
    recorded: Recorded,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script(
        "train.py",
        "import json, os, torch\n"
        "from descent import Descent\n"
        "torch.manual_seed(int(os.environ['MY_SEED']))\n"
        "rate = json.load(open('config.json'))['lr']\n"
        "model = torch.nn.Sequential(torch.nn.Linear(2, 1),\n"
        "    torch.nn.Dropout(float(os.getenv('DROPOUT', '0.5'))))\n"
        "if os.path.exists('last.pt'):\n"
        "    model.load_state_dict(torch.load('last.pt'))\n"
        "optimizer = Descent(model.parameters(), lr=rate)\n"
        "for _ in range(3):\n"
        "    model(torch.rand(4, 2)).square().sum().backward()\n"
        "    optimizer.step()\n"
        "os.makedirs('out')\n"
        "torch.save(model.state_dict(), 'last.pt')\n",
    )
    script("config.json", '{"lr": 0.1}')
    monkeypatch.setenv("MY_SEED", "42")
    launched = recorded("train.py")
    assert launched.exit_code == 0
    before = (base.parent / "last.pt").read_bytes()

    script("config.json", '{"lr": 0.9}')
    monkeypatch.delenv("MY_SEED")
    monkeypatch.setenv("DROPOUT", "0.9")
    verdict = replay(launched.run, base=base)
    assert verdict.outcome == "identical", verdict.sentence
    assert (base.parent / "last.pt").read_bytes() == before


def test_a_program_that_trains_nothing_is_not_called_identical(
    script: Callable[[str, str], Path], recorded: Recorded, base: Path
) -> None:
    script("hello.py", "print('hello')\n")
    launched = recorded("hello.py")
    assert launched.exit_code == 0
    assert replay(launched.run, base=base).outcome == "not replayable"


def test_a_missing_interpreter_is_said_before_anything_runs(
    copied: Callable[[str], Path], base: Path, project: Path
) -> None:
    copied("train.py")
    interpreter = project / "bin" / "python"
    interpreter.parent.mkdir()
    # A wrapper, as an environment manager makes them.
    interpreter.write_text(f'#!/bin/sh\nexec "{shutil.which("python3")}" "$@"\n')
    interpreter.chmod(0o755)
    launched = launch([str(interpreter), "-c", "print(1)"], base=base)
    interpreter.unlink()
    with pytest.raises(NotReplayable, match="interpreter"):
        replay(launched.run, base=base)


def test_a_training_without_an_optimizer_is_compared_by_its_own_steps(
    script: Callable[[str, str], Path], recorded: Recorded, base: Path
) -> None:
    script(
        "train.py",
        "import manifest, torch\n"
        "run = manifest.record()\n"
        "model = torch.nn.Linear(2, 1)\n"
        "for _ in range(5):\n"
        "    loss = model(torch.rand(4, 2)).square().sum()\n"
        "    loss.backward()\n"
        "    with torch.no_grad():\n"
        "        for parameter in model.parameters():\n"
        "            parameter -= 0.1 * parameter.grad\n"
        "    run.step(loss=loss, model=model)\n",
    )
    launched = recorded("train.py")
    (trail,) = [process.trail for process in manifest_of(launched).processes.values()]
    assert trail is not None
    assert (trail.steps, set(trail.streams)) == (5, {"rng", "loss", "grad", "param"})
    assert replay(launched.run, base=base).outcome == "identical"
