"""Scripts that never set a seed repeat bit for bit, from every source of randomness."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from manifest.launching import Launched
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
OS_KINDS = ["os.urandom", "secrets", "uuid4"]


def weights(path: Path) -> dict[str, str]:
    return dict(line.split("\t") for line in path.read_text().splitlines())


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """The weights of every kind, from two runs without Manifest."""
    folder = tmp_path_factory.mktemp("plain")
    source = Path(__file__).parent / "scripts" / "unseeded.py"
    results = []
    for name in ("first", "second"):
        command = [sys.executable, str(source), str(folder / name), *KINDS, *OS_KINDS]
        subprocess.run(command, check=True, cwd=folder)
        results.append(weights(folder / name))
    return results


@pytest.mark.parametrize("kind", KINDS)
def test_an_unseeded_run_replays_to_the_same_weights(
    kind: str,
    plain: list[dict[str, str]],
    copied: Callable[[str], Path],
    recorded: Callable[..., Launched],
    base: Path,
    tmp_path: Path,
) -> None:
    assert plain[0][kind] != plain[1][kind], "without Manifest the two runs differ"
    copied("unseeded.py")
    original = recorded("unseeded.py", str(tmp_path / "weights"), kind)
    first = weights(tmp_path / "weights")
    (tmp_path / "weights").unlink()

    verdict = replay(original.run, base=base)

    assert verdict.outcome == "identical", verdict.sentence
    assert weights(tmp_path / "weights") == first
    assert first[kind] not in (plain[0][kind], plain[1][kind])


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
