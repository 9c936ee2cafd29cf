"""PyTorch's complaints about determinism are turned into operation, cause, place and cure."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import manifest.determinism
from manifest.determinism import deterministic, explain
from manifest.launching import launch

CURES = Path(manifest.determinism.__file__).with_name("cures.toml")


class Putting(Dataset[Any]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> torch.Tensor:
        return put()


def put() -> torch.Tensor:
    return torch.zeros(4).put_(torch.tensor([1, 1]), torch.ones(2))


def test_an_error_is_explained_with_the_line_of_the_program() -> None:
    with deterministic(), pytest.raises(RuntimeError) as raised:
        put()
    found = explain(raised.value)
    assert found is not None
    assert (found.name, found.operation) == ("put_", "torch.Tensor.put_")
    line = put.__code__.co_firstlineno + 1
    assert re.search(rf"test_explaining\.py:{line}  return torch\.zeros\(4\)\.put_", found.place)
    assert "deterministic_put" in found.cure
    assert f"  instead: {found.cure}\n" in str(found)


def test_a_warning_is_explained() -> None:
    with deterministic("warn"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pooled, indices = torch.nn.functional.max_pool2d(
            torch.ones(1, 4, 4), 2, return_indices=True
        )
        torch.nn.functional.max_unpool2d(pooled, indices, [2, 2])
    (found,) = [explain(warning) for warning in caught]
    assert found is not None
    assert found.name == "max_unpooling2d_forward_out"
    assert "deterministic_max_unpool" in found.cure


def test_the_error_of_a_worker_is_explained() -> None:
    loader: DataLoader[Any] = DataLoader(Putting(), num_workers=1, multiprocessing_context="fork")
    with deterministic(), pytest.raises(RuntimeError, match="in DataLoader worker") as raised:
        list(loader)
    found = explain(raised.value)
    assert found is not None
    assert found.name == "put_"


REFUSED = (
    "{} does not have a deterministic implementation, but you set "
    "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this "
    "operation, or you can use the 'warn_only=True' option, if that's acceptable for your "
    "application. You can also file an issue at https://github.com/pytorch/pytorch/issues to help "
    "us prioritize adding deterministic support for this operation."
)
CUBLAS = (
    "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or "
    "`at::Context::setDeterministicAlgorithms(true)`, but this operation is not deterministic "
    "because it uses CuBLAS and you have CUDA >= 10.2. To enable deterministic behavior in this "
    "case, you must set an environment variable before running your PyTorch application: "
    "CUBLAS_WORKSPACE_CONFIG=:4096:8 or CUBLAS_WORKSPACE_CONFIG=:16:8."
)
ATTENTION = (
    "{} defaults to a non-deterministic algorithm. To explicitly enable determinism call "
    "torch.use_deterministic_algorithms(True, warn_only=False)."
)


@pytest.mark.parametrize(
    ("text", "operation", "cure"),
    [
        (REFUSED.format("adaptive_avg_pool2d_backward_cuda"), "AdaptiveAvgPool2d", "adaptive_avg"),
        (REFUSED.format("_histc_cuda with floating point input"), "histc", "bincount"),
        (REFUSED.format("median CUDA with indices output"), "median", "deterministic_median"),
        (REFUSED.format("upsample_bilinear2d_backward_out_cuda"), "'bilinear'", "decomposed"),
        (REFUSED.format("upsample_trilinear3d_backward_out_cuda"), "'trilinear'", "'bilinear'"),
        (REFUSED.format("nll_loss2d_forward_out_cuda_template"), "NLLLoss", "reduction='none'"),
        (REFUSED.format("reflection_pad1d_backward_out_cuda"), "Reflection", "reflection_pad"),
        (REFUSED.format("cumsum_cuda_kernel"), "cumsum", "2.14"),
        (REFUSED.format("scatter_add_cuda"), "scatter_add_cuda", "newer PyTorch"),
        (REFUSED.format("something of tomorrow"), "something of tomorrow", "deterministic('off')"),
        (ATTENTION.format("Memory Efficient attention"), "attention", "SDPBackend.MATH"),
        (ATTENTION.format("Flash Attention"), "attention", "SDPBackend.MATH"),
        (
            "cuDNN SDPA is not deterministic. (Triggered internally at x:718.)",
            "cuDNN",
            "sdpa_kernel",
        ),
        (CUBLAS, "cuBLAS", "CUBLAS_WORKSPACE_CONFIG=:4096:8"),
    ],
)
def test_texts_that_only_an_accelerator_gives_are_explained(
    text: str, operation: str, cure: str
) -> None:
    found = explain(text)
    assert found is not None
    assert operation in found.operation
    assert cure in found.cure
    assert found.place == ""
    assert explain(RuntimeError(text)) == found


# What PyTorch 2.11 refused on an H200, of some ninety operations that were tried.
REFUSED_THERE = """
adaptive_avg_pool2d_backward_cuda, adaptive_avg_pool3d_backward_cuda,
adaptive_max_pool2d_backward_cuda, avg_pool3d_backward_cuda, max_pool3d_with_indices_backward_cuda,
fractional_max_pool2d_backward_cuda, fractional_max_pool3d_backward_cuda,
max_unpooling2d_forward_out, upsample_linear1d_backward_out_cuda,
upsample_bicubic2d_backward_out_cuda, reflection_pad1d_backward_out_cuda,
reflection_pad3d_backward_out_cuda, nll_loss2d_forward_out_cuda_template, ctc_loss_backward_gpu,
embedding_bag_backward_cuda_max, grid_sampler_2d_backward_cuda, grid_sampler_3d_backward_cuda, put_,
_histc_cuda with floating point input, _bincount_cuda, median CUDA with indices output,
scatter_reduce_cuda_prod_, index_reduce_cuda
"""


def test_what_an_accelerator_refuses_has_a_cure_of_its_own() -> None:
    for name in REFUSED_THERE.replace("\n", " ").split(","):
        found = explain(REFUSED.format(name.strip()))
        assert found is not None
        assert found.operation != name.strip()
        assert "deterministic('off')" not in found.cure


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CUDA out of memory",
        "my loss is non-deterministic",
        "no deterministic implementation of the sampler",
        "x" * 100_000 + " uses CuBLAS",
    ],
)
def test_other_texts_are_left_alone(text: str) -> None:
    assert explain(text) is None


def test_every_cure_is_whole_and_names_what_there_is() -> None:
    entries = tomllib.loads(CURES.read_text(encoding="utf-8"))["operation"]
    for entry in entries:
        wanted = {"names", "operation", "cause", "cure", "source"}
        assert wanted <= entry.keys() <= wanted | {"evidence", "versions"}
        assert entry["source"].startswith("https://")
        for name in re.findall(r"manifest\.determinism\.(\w+)", entry["cure"]):
            assert name in manifest.determinism.__all__


PROGRAM = """
import torch, warnings
torch.use_deterministic_algorithms(True, warn_only=True)
def put():
    return torch.zeros(4).put_(torch.tensor([1, 1]), torch.ones(2))
for _ in range(2):
    put()
warnings.warn("something else")
torch.use_deterministic_algorithms(True)
put()
"""


def test_a_recorded_program_is_told_after_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    alone = subprocess.run(
        [sys.executable, "train.py"], capture_output=True, text=True, check=False
    )
    launched = launch(["train.py"], base=tmp_path / ".manifest")
    assert launched.exit_code == alone.returncode == 1
    said = capfd.readouterr().err.splitlines(keepends=True)
    ours = [line for line in said if line.startswith("manifest: ")]
    assert "".join(line for line in said if line not in ours) == alone.stderr
    text = "".join(ours)
    assert text.count("torch.Tensor.put_ may give other bits each time") == 2, "warned, and died"
    assert text.count("at train.py:5  return torch.zeros(4).put_(") == 2
    assert said[-1] in ours
    assert "deterministic_put" in text
    assert said.index(ours[0]) > next(n for n, line in enumerate(said) if "UserWarning" in line)
