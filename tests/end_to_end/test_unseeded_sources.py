"""Scripts that never set a seed repeat bit for bit, from every source of randomness."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from manifest.launching import Launched, launch
from manifest.models import Verdict
from manifest.replaying import replay
from manifest.verdicts import judge

KINDS = [
    "random",
    "random bound early",
    "Random()",
    "random.seed()",
    "numpy legacy",
    "numpy bound early",
    "RandomState()",
    "numpy.random.seed()",
    "default_rng()",
    "SeedSequence()",
    "torch start state",
    "torch.seed()",
    "Generator.seed()",
    "hash seed",
    "forked child",
    "started child",
    "fork workers",
    "spawn workers",
]
SOURCE = Path(__file__).parent / "scripts" / "unseeded.py"
OS_KINDS = ["os.urandom", "secrets", "uuid4"]


def weights(path: Path) -> dict[str, str]:
    return dict(line.split("\t") for line in path.read_text().splitlines())


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """The weights of every kind, from two runs without Manifest."""
    folder = tmp_path_factory.mktemp("plain")
    results = []
    for name in ("first", "second"):
        command = [sys.executable, str(SOURCE), str(folder / name), *KINDS, *OS_KINDS]
        subprocess.run(command, check=True, cwd=folder)
        results.append(weights(folder / name))
    return results


@dataclass(frozen=True)
class Repeated:
    """What came of a run of every kind, and of its replay."""

    first: dict[str, str]
    again: dict[str, str]
    verdict: Verdict


@pytest.fixture(scope="module")
def repeated(at_work: Callable[[str], AbstractContextManager[Path]]) -> Repeated:
    with at_work("unseeded") as project:
        for script in (SOURCE, SOURCE.with_name("descent.py")):
            shutil.copy(script, project)
        path, base = project.with_name("weights of unseeded"), project / ".manifest"
        command = [sys.executable, "unseeded.py", str(path), *KINDS]
        original = launch(command, base=base)
        first = weights(path)
        path.unlink()
        verdict = replay(original.run, base=base)
    return Repeated(first, weights(path), verdict)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unseeded_run_replays_to_the_same_weights(
    kind: str, plain: list[dict[str, str]], repeated: Repeated
) -> None:
    assert plain[0][kind] != plain[1][kind], "without Manifest the two runs differ"
    assert repeated.verdict.outcome == "identical", repeated.verdict.sentence
    assert repeated.again[kind] == repeated.first[kind]
    assert repeated.first[kind] not in (plain[0][kind], plain[1][kind])


def test_entropy_of_the_system_is_pinned_only_on_request(
    copied: Callable[[str], Path], recorded: Callable[..., Launched], base: Path, tmp_path: Path
) -> None:
    copied("unseeded.py")
    original = recorded("unseeded.py", str(tmp_path / "weights"), *OS_KINDS, pin_entropy=True)
    first = weights(tmp_path / "weights")
    (tmp_path / "weights").unlink()

    assert replay(original.run, base=base).outcome == "identical"
    assert weights(tmp_path / "weights") == first


def test_a_diverged_verdict_names_where_system_entropy_was_used(
    copied: Callable[[str], Path], recorded: Callable[..., Launched], base: Path, tmp_path: Path
) -> None:
    copied("unseeded.py")
    original = recorded("unseeded.py", str(tmp_path / "weights"), "os.urandom")

    verdict = replay(original.run, base=base)

    assert verdict.outcome == "diverged"
    assert verdict.comparison is not None
    assert verdict.comparison.divergence is not None
    assert any("unseeded.py" in reason and "--pin-entropy" in reason for reason in verdict.reasons)


def test_another_recording_takes_over_entropy_only_when_asked(
    copied: Callable[[str], Path], recorded: Callable[..., Launched], tmp_path: Path
) -> None:
    copied("unseeded.py")
    first = recorded("unseeded.py", str(tmp_path / "a"), "random", "default_rng()")
    like = recorded("unseeded.py", str(tmp_path / "a"), "random", "default_rng()", like=first.run)
    fresh = recorded("unseeded.py", str(tmp_path / "a"), "random", "default_rng()")

    assert judge(first.run, like.run).outcome == "identical"
    assert judge(first.run, fresh.run).outcome == "diverged"
