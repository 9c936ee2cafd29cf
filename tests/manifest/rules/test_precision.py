"""One precision that PyTorch keeps in several places is one difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from manifest.diffing import diff_sections

Impacts = Callable[..., dict[str, str]]
Sections = dict[str, dict[str, Any]]

FRESH = {
    "fp32_precision.generic.all": "none",
    "fp32_precision.cuda.all": "none",
    "fp32_precision.cuda.matmul": "none",
    "fp32_precision.cuda.conv": "tf32",
    "fp32_precision.cuda.rnn": "tf32",
    "fp32_precision.mkldnn.all": "none",
    "fp32_precision.mkldnn.matmul": "none",
    "torch.float32_matmul_precision": "highest",
    "torch.backends.cuda.matmul.allow_tf32": False,
    "torch.backends.cudnn.allow_tf32": True,
}
UNREADABLE = {"$failed": "RuntimeError: mixed"}


def run(**changes: Any) -> Sections:
    return {"settings": FRESH | {key.replace("__", "."): value for key, value in changes.items()}}


def test_what_inherits_a_general_precision_follows_from_it() -> None:
    after = run(
        fp32_precision__generic__all="bf16",
        fp32_precision__mkldnn__all="bf16",
        fp32_precision__mkldnn__matmul="bf16",
        fp32_precision__cuda__conv="none",
        torch__float32_matmul_precision=UNREADABLE,
    )
    found = diff_sections(run(), after)
    assert [(each.key, each.impact) for each in found if each.impact != "informational"] == [
        ("fp32_precision.generic.all", "certain")
    ]
    assert found[0].reason.endswith("It reaches mkldnn.matmul, cuda.conv.")
    reasons = {each.key: each.reason for each in found}
    assert reasons["fp32_precision.mkldnn.matmul"] == (
        "follows from fp32_precision.generic.all, which differs too"
    )


def test_a_precision_that_was_set_besides_is_a_difference_of_its_own(impacts: Impacts) -> None:
    after = run(fp32_precision__generic__all="tf32", fp32_precision__mkldnn__matmul="bf16")
    assert impacts(run(), after) == {
        "fp32_precision.generic.all": "possible",
        "fp32_precision.mkldnn.matmul": "certain",
    }


def test_what_the_switch_for_products_writes_follows_from_it(impacts: Impacts) -> None:
    after = run(
        torch__float32_matmul_precision="medium",
        fp32_precision__cuda__matmul="tf32",
        fp32_precision__mkldnn__matmul="bf16",
        torch__backends__cuda__matmul__allow_tf32=True,
    )
    assert impacts(run(), after) == {
        "torch.float32_matmul_precision": "certain",
        "fp32_precision.cuda.matmul": "informational",
        "fp32_precision.mkldnn.matmul": "informational",
        "torch.backends.cuda.matmul.allow_tf32": "informational",
    }


def test_a_particular_precision_alone_changes_results(impacts: Impacts) -> None:
    after = run(fp32_precision__cuda__conv="ieee", torch__backends__cudnn__allow_tf32=False)
    assert impacts(run(), after) == {
        "fp32_precision.cuda.conv": "certain",
        "torch.backends.cudnn.allow_tf32": "informational",
    }


def test_an_older_switch_speaks_where_the_newer_ones_are_not_known(impacts: Impacts) -> None:
    def old(value: bool) -> Sections:
        return {"settings": {"torch.backends.cudnn.allow_tf32": value}}

    assert impacts(old(True), old(False)) == {"torch.backends.cudnn.allow_tf32": "certain"}
