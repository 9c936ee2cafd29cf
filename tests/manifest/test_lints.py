"""Each lint is told of the manifests that it is about, and of no other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from manifest import entropy
from manifest.lints import lints
from manifest.models import Doubt, Manifest

ON_A_GPU = {"optimizer.0": {"devices": "cuda"}}
WORKERS = {"num_workers": 2, "made": "train.py:9", "worker_init_fn": None}
OWN_HASH_SEED = {
    "entropy": "ab" * 32,
    "hash_seed": str(entropy.hash_seed(bytes.fromhex("ab" * 32))),
}


def manifest_of(mode: str = "run", **sections: Any) -> Manifest:
    document = {
        "schema": 1,
        "id": "01990000-0000-7000-8000-000000000001",
        "project": "p",
        "status": "finished",
        "started_at": "2025-01-31T08:00:00Z",
        "mode": mode,
        "sections": {
            "seeds": {"calls": {"a.py:1 torch.manual_seed": 0}, "draws": {"torch": 1}},
            **sections,
        },
        "processes": {
            "main": {"trail": {"steps": 3, "streams": ["loss"], "algorithm": "xxh3"}},
        },
    }
    return Manifest.model_validate(json.loads(json.dumps(document)))


def told(manifest: Manifest) -> list[tuple[str, str]]:
    return [(each.what, each.state) for each in lints(manifest)]


def test_a_program_with_nothing_to_mend() -> None:
    assert told(manifest_of()) == []


@pytest.mark.parametrize(
    ("sections", "what", "state"),
    [
        ({"seeds": {"calls": {}, "draws": {"torch": 1}}}, "seeds of PyTorch", "given again"),
        (
            {"seeds": {"calls": {"a.py:1 torch.manual_seed": 0}, "draws": {"torch": 2}}},
            "seeds of PyTorch",
            "given again",
        ),
        (
            {"seeds": {"calls": {"a.py:1 torch.manual_seed": 0}, "draws": {"numpy.random": 2}}},
            "seeds of NumPy",
            "given again",
        ),
        ({"generators": {"random.Random a.py:3": {}}}, "seeds of random", "given again"),
        (
            {"seeds": OWN_HASH_SEED},
            "hash seed",
            "given again",
        ),
        (
            {"training": ON_A_GPU, "settings": {"fp32_precision.cuda.conv": "tf32"}},
            "fp32_precision.cuda.conv",
            "elsewhere",
        ),
        (
            {"settings": {"torch._inductor.config.max_autotune": True}},
            "torch._inductor.config.max_autotune",
            "approximate",
        ),
        ({"environment": {"env.OMP_DYNAMIC": "TRUE"}}, "OMP_DYNAMIC", "approximate"),
        ({"loaders": {"loader.0": {**WORKERS, "in_order": False}}}, "DataLoader", "approximate"),
        ({"loaders": {"loader.0": {**WORKERS, "dataset_has_rng": True}}}, "DataLoader", "suspect"),
        (
            {"training": {"nondeterministic": {"put_": "a.py:1"}}},
            "torch.Tensor.put_",
            "approximate",
        ),
        ({"code": {"git.dirty": True}}, "uncommitted code", "elsewhere"),
        (
            {"environment": {"packages.origins": {"ours": {"editable": True}}}},
            "packages",
            "elsewhere",
        ),
    ],
)
def test_each_lint(sections: dict[str, Any], what: str, state: str) -> None:
    found = list(lints(manifest_of(**sections)))
    assert [(each.what, each.state) for each in found] == [(what, state)]
    assert all(each.fix for each in found)


@pytest.mark.parametrize(
    "sections",
    [
        {"settings": {"fp32_precision.cuda.conv": "tf32"}},
        {"environment": {"env.OMP_DYNAMIC": "false"}},
        {"loaders": {"loader.0": {**WORKERS, "num_workers": 1, "in_order": False}}},
        {"loaders": {"loader.0": {**WORKERS, "dataset_has_rng": True, "worker_init_fn": "a.init"}}},
        # Each process that is spawned loads NumPy, which draws once.
        {
            "seeds": {"calls": {"a.py:1 torch.manual_seed": 0}, "draws": {"numpy.random": 3}},
            "loaders": {"loader.0": {**WORKERS, "multiprocessing_context": "spawn"}},
        },
        {
            "seeds": {"calls": {"a.py:1 torch.manual_seed": 0, "a.py:3 random.Random": 7}},
            "generators": {"random.Random a.py:3": {}},
        },
        # Made in one place and, perhaps, seeded in another.
        {
            "seeds": {"calls": {"a.py:1 torch.manual_seed": 0, "a.py:9 random.Random": 7}},
            "generators": {"random.Random a.py:3": {}},
        },
    ],
)
def test_what_only_looks_like_one(sections: dict[str, Any]) -> None:
    assert told(manifest_of(**sections)) == []


def test_states_that_were_captured_later_say_nothing_of_seeds() -> None:
    assert told(manifest_of("record", seeds={"calls": {}, "draws": {"torch": 1}})) == []


@pytest.mark.parametrize("value", [None, 3, "text", [1], {"$absent": True}, {"a": [None]}])
def test_values_of_any_type_are_looked_at(value: object) -> None:
    keys = ("calls", "draws", "entropy", "hash_seed", "nondeterministic", "git.dirty", "loader.0")
    values = dict.fromkeys((*keys, "env.OMP_DYNAMIC", "packages.origins"), value)
    names = ("seeds", "settings", "training", "loaders", "environment", "code", "generators")
    sections: dict[str, Any] = dict.fromkeys(names, values)
    found = list(lints(manifest_of(**sections)))
    assert all(isinstance(each, Doubt) for each in found)
