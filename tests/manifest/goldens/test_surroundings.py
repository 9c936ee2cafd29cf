"""Of the surroundings a golden keeps what decides bits and is not as it comes."""

from __future__ import annotations

import pytest
import torch

from manifest.goldens.surroundings import changed, surroundings


def test_what_decides_bits_is_kept() -> None:
    found = surroundings()
    assert found["settings"]["torch.version"] == torch.__version__
    assert found["settings"]["torch.num_threads"] == torch.get_num_threads()
    assert {"cpu.model", "cpu.isa"} & found["hardware"].keys()
    assert "python.version" in found["environment"]


def test_defaults_and_places_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    before = surroundings()
    assert "torch.backends.cudnn.benchmark" not in before["settings"]
    assert not {"env.HOME", "env.PYTHONPATH", "python.path"} & before["environment"].keys()
    assert sum(map(len, before.values())) < 40
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    (found,) = changed(before, surroundings())
    assert (found.key, found.after) == ("torch.backends.cudnn.benchmark", True)


def test_what_only_one_side_says_was_at_its_default_on_the_other() -> None:
    variables = {"environment": {"env.OMP_NUM_THREADS": "1", "env.NCCL_ALGO": "Ring"}}
    found = {each.key: each for each in changed({}, variables)}
    assert found.keys() == {"env.OMP_NUM_THREADS", "env.NCCL_ALGO"}
    assert found["env.NCCL_ALGO"].was_captured_before
    assert changed(variables, variables) == ()


def test_what_cannot_change_bits_explains_nothing() -> None:
    before = {"hardware": {"os.kernel": "5", "unheard of": "1"}}
    assert changed(before, {"hardware": {"os.kernel": "6", "unheard of": "2"}}) == ()
