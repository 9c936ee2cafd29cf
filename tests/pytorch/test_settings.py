"""Settings of the installed PyTorch are read without side effects and put back exactly."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from manifest.catalogue import settings_of
from manifest.restoring import RestoredItem
from manifest.settings import capture_settings, restore_settings

NOT_READ_HERE = {
    "nccl.version": "needs a CUDA build",
    "torch._inductor.config.numerics": "needs torch 2.14",
    "torch.backends.cuda.cublas_workspace_size": "needs an initialised GPU",
    "torch.backends.cuda.cublaslt_workspace_size": "needs an initialised GPU",
    "torch.backends.mkldnn.allow_tf32": "needs a build for Intel GPUs",
    "torch.backends.opt_einsum.strategy": "needs the package opt_einsum",
    "torch.cuda.conv_benchmark_empty_cache": "needs a CUDA build",
    "torch.cuda.device_count": "needs an initialised GPU",
    "torch.cuda.sync_debug_mode": "needs an initialised GPU",
    "torch.cuda.tunable.enabled": "needs a CUDA build",
    "torch.cuda.tunable.tuning": "needs a CUDA build",
    "torch.distributed.backend": "needs a process group",
    "torch.distributed.world_size": "needs a process group",
    "triton.version": "needs the package triton",
}
NOT_SET_HERE = {
    "torch.backends.cuda.preferred_linalg_library": "needs cuSOLVER or MAGMA",
    "torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction_split_k": "one of a pair",
    "torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction_split_k": "one of a pair",
    "torch.num_interop_threads": "can be set only once",
    "torch.cpu.allow_fp16_reduced_precision_reduction": "needs an ARM processor",
}
HOSTILE_VALUES = [
    "__import__('os').system('true')",
    "cpu'); import os; ('",
    "",
    10**30,
    10**5000,
    -7,
    1e308,
    float("nan"),
    [],
    [[1]],
    [True, False, True],
    ["highest"],
    {"$int": "9"},
    {"v": {"v": [1]}},
]
needs_known_torch = pytest.mark.skipif(
    not torch.__version__.startswith("2.13.") or torch.version.cuda is not None,
    reason="the lists above are those of torch 2.13 for CPU",
)


@needs_known_torch
def test_every_setting_is_read() -> None:
    captured = _round_trips()["captured"]

    expected = {setting.key for setting in settings_of("process")} - set(NOT_READ_HERE)
    assert set(captured) == expected
    assert [key for key, value in captured.items() if _is_failure(value)] == []


@needs_known_torch
def test_every_setting_that_can_be_set_is_read_back_and_put_back() -> None:
    outcomes = _round_trips()["outcomes"]

    stuck = {key for key, outcome in outcomes.items() if outcome != "there and back"}
    assert stuck == set(NOT_SET_HERE)


@cache
def _round_trips() -> Any:
    return _run(_ROUND_TRIPS)


_ROUND_TRIPS = """
import json, os, sys
import numpy.random, threadpoolctl, torch
import torch._dynamo.config, torch._functorch.config, torch._inductor.config
from manifest.catalogue import settings_of
from manifest.settings import capture_settings, capture_slow_settings
from manifest.settings import read_settings, restore_settings

captured = capture_settings() | capture_slow_settings()
NONDEFAULT = ("inductor.nondefault", "dynamo.nondefault")
before = {key: captured[key] for key in NONDEFAULT if captured[key]}

def others(setting):
    present = captured[setting.key]
    if setting.kind == "bool":
        return [not present]
    if setting.kind == "permutation":
        return [present[::-1]]
    if setting.kind == "text":
        return ["meta"]
    if setting.kind == "integers":
        return [[value + 1 for value in present]]
    if setting.kind == "number":
        return [present * 2]
    if setting.kind == "integer":
        return [8 if present is None else present + 1]
    return [value for value in setting.allowed if value != present]

def there_and_back(setting):
    for value in others(setting):
        if [item.outcome for item in restore_settings({setting.key: value})] != ["restored"]:
            continue
        if captured[setting.key] is None and not setting.accepts_none:
            return "there and back"
        back = restore_settings({setting.key: captured[setting.key]})
        if back[0].outcome != "restored":
            return str(back)
        left = {key: value for key, value in read_settings(NONDEFAULT).items() if value}
        return f"left {left}" if left != before else "there and back"
    return "never there"

def in_a_fork(setting):
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write_end, there_and_back(setting).encode())
        os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with open(read_end, encoding="utf-8") as result:
        return result.read()

outcomes = {
    setting.key: in_a_fork(setting)
    for setting in settings_of("process")
    if setting.set and setting.key in captured
}
print(json.dumps({"captured": captured, "outcomes": outcomes}))
"""


def test_capture_imports_nothing_draws_nothing_and_starts_no_accelerator() -> None:
    result = _run("""
import json, random, sys
import manifest.settings, torch
state = random.getstate(), torch.get_rng_state()
modules = set(sys.modules)
manifest.settings.capture_settings()
manifest.settings.capture_slow_settings()
print(json.dumps({
    "imported": sorted(set(sys.modules) - modules),
    "drawn": state[0] != random.getstate() or not state[1].equal(torch.get_rng_state()),
    "started": torch.cuda.is_initialized(),
}))
""")

    assert result == {"imported": [], "drawn": False, "started": False}


def test_a_program_without_libraries_has_only_the_settings_of_python() -> None:
    captured = _run("""
import json
from manifest.settings import capture_settings
print(json.dumps(capture_settings()))
""")

    assert set(captured) == {
        "python.gc.enabled",
        "python.gc.threshold",
        "python.hash_probe",
        "python.switch_interval",
    }


def test_capture_can_be_asked_for_one_library() -> None:
    captured = capture_settings(library="torch")

    assert "torch.num_threads" in captured
    assert not any(key.startswith(("python.", "numpy.")) for key in captured)


def test_a_library_asked_for_by_name_is_read_at_the_end_of_its_import() -> None:
    captured = _run("""
import json, sys
from manifest.importing import when_imported
from manifest.settings import capture_settings
found = {}
def read(torch):
    found["all"] = len(capture_settings())
    found["torch"] = capture_settings(library="torch").get("torch.default_dtype")
when_imported("torch", read)
import torch
print(json.dumps(found | {"later": len(capture_settings()) > found["all"]}))
""")

    assert captured["torch"] == "torch.float32"
    assert captured["later"]


def test_a_setting_that_cannot_be_read_says_why() -> None:
    captured = _run("""
import json, torch
from manifest.settings import capture_settings
torch.backends.cuda.matmul.fp32_precision = "tf32"
print(json.dumps(capture_settings()))
""")

    assert _is_failure(captured["torch.float32_matmul_precision"])
    assert captured["fp32_precision.cuda.matmul"] == "tf32"


def test_restoring_what_is_already_so_writes_nothing() -> None:
    result = _run("""
import json, torch
from manifest.settings import capture_settings, restore_settings
items = restore_settings(capture_settings())
torch.backends.fp32_precision = "ieee"
conv = torch._C._get_fp32_precision_getter("cuda", "conv")
print(json.dumps({"outcomes": sorted({item.outcome for item in items}), "conv": conv}))
""")

    # Had its default been written, the precision of convolutions would no longer follow.
    assert result == {"outcomes": ["equal already"], "conv": "ieee"}


def test_every_way_to_set_the_precision_of_float32_is_restored() -> None:
    results = _run(_PRECISIONS)

    assert [(way, found) for way, wanted, found in results if found != wanted] == []
    assert len({json.dumps(wanted) for _, wanted, _ in results}) == len(results)


_PRECISIONS = """
import json, os, torch
from manifest.settings import capture_settings, restore_settings

WAYS = [
    'torch.backends.fp32_precision = "ieee"',
    'torch.backends.fp32_precision = "bf16"',
    'torch.backends.cudnn.conv.fp32_precision = "ieee"',
    'torch.backends.cuda.matmul.fp32_precision = "tf32"',
    'torch.backends.cuda.matmul.allow_tf32 = True',
    'torch.backends.cudnn.allow_tf32 = False',
    'torch.set_float32_matmul_precision("highest")',
    'torch.set_float32_matmul_precision("high")',
    'torch.set_float32_matmul_precision("medium")',
    'torch.set_float32_matmul_precision("high"); torch.backends.fp32_precision = "ieee"',
    'torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = (False, False)',
]

def in_a_fork(function, *arguments):
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        function(*arguments)
        os.write(write_end, json.dumps(capture_settings(library="torch")).encode())
        os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with open(read_end, encoding="utf-8") as result:
        return json.load(result)

results = []
for way in WAYS:
    wanted = in_a_fork(exec, way, {"torch": torch})
    results.append((way, wanted, in_a_fork(restore_settings, wanted)))
print(json.dumps(results))
"""


def test_a_general_precision_is_restored_before_a_particular_one() -> None:
    outcomes = _run("""
import json, torch
from manifest.settings import capture_settings, restore_settings
recorded = {key: "ieee" for key in capture_settings() if key.startswith("fp32_precision.")}
print(json.dumps({item.what: item.outcome for item in restore_settings(recorded)}))
""")

    assert outcomes.pop("fp32_precision.generic.all") == "restored"
    assert set(outcomes.values()) == {"equal already"}


def test_hostile_values_are_refused() -> None:
    before = capture_settings()
    settable = [each for each in settings_of("process") if each.set and each.key in before]

    accepted = [
        (setting.key, item)
        for setting in settable
        for value in HOSTILE_VALUES
        for item in restore_settings({setting.key: value})
        if item.outcome not in {"failed", "skipped"}
    ]

    assert accepted == []
    assert capture_settings() == before


def test_a_refusal_says_what_was_expected_and_found() -> None:
    item = _restored("torch.num_threads", 10**30)

    assert item.outcome == "failed"
    assert item.reason == "expected integer from 1 to 1024, found a value of type int; not set"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("torch.version", "1.0", "nothing sets it in a running process"),
        ("torch.cuda.device_count", 8, "this build or state of torch does not have it"),
        ("triton.version", "3.0", "triton is not imported here"),
        ("torch.no_such_switch", True, "not in the catalogue"),
        ("torch.num_threads", {"$failed": "?"}, "the recorded run has no value of it"),
    ],
)
def test_what_cannot_be_restored_is_skipped_with_the_reason(
    key: str, value: object, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "triton", raising=False)  # which builds for CUDA import
    assert _restored(key, value) == RestoredItem(key, "skipped", reason)


def test_settings_of_loaders_are_read_from_real_ones() -> None:
    names = {"torch": torch, "loader": DataLoader([1, 2, 3])}  # type: ignore[arg-type]

    values = {each.key: eval(each.read, names) for each in settings_of("loader")}

    assert values["*num_workers"] == 0
    assert len(values) == 12


@needs_known_torch
def test_the_catalogue_knows_every_switch_of_this_torch() -> None:
    command = [sys.executable, "-m", "manifest.pytorch.catalogue_gaps"]

    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout


def _restored(key: str, value: object) -> RestoredItem:
    [item] = restore_settings({key: value})
    return item


def _is_failure(value: object) -> bool:
    return isinstance(value, dict) and "$failed" in value


def _run(program: str) -> Any:
    """What a program of its own prints, as JSON."""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return json.loads(result.stdout)
