"""The switches are set together, what was found is told, and put back exactly."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._inductor.config  # its switch is among those that are put back

from manifest.determinism import deterministic
from manifest.errors import ArgumentInvalid
from manifest.settings import capture_settings

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
MODE = "torch.deterministic.mode"
INDUCTOR = "torch._inductor.config.deterministic"


def state() -> dict[str, Any]:
    return {**capture_settings(), CUBLAS: os.environ.get(CUBLAS)}


@pytest.fixture(autouse=True)
def _everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(CUBLAS, raising=False)
    before = state()
    yield
    assert state() == before


def raises_in_strict_mode() -> torch.Tensor:
    return torch.zeros(4).put_(torch.tensor([1, 1]), torch.ones(2))


def test_strict_sets_what_the_notes_of_pytorch_name() -> None:
    with deterministic() as switches:
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.backends.cudnn.benchmark
        assert torch.backends.cudnn.deterministic
        assert os.environ[CUBLAS] == ":4096:8"
        with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
            raises_in_strict_mode()
        assert switches.report[MODE] == (MODE, "set", "was 0")
        assert switches.report["torch.backends.cudnn.benchmark"].outcome == "equal already"
        assert switches.report[CUBLAS] == (CUBLAS, "set", "was not set")
        assert switches.report.is_complete
    raises_in_strict_mode()


def test_warn_warns() -> None:
    with deterministic("warn"), pytest.warns(UserWarning, match="warn_only=True"):
        raises_in_strict_mode()


def test_off_allows_one_part_of_a_strict_program() -> None:
    with deterministic():
        with deterministic("off"):
            raises_in_strict_mode()
            assert os.environ[CUBLAS] == ":4096:8"
        with pytest.raises(RuntimeError):
            raises_in_strict_mode()


def test_a_plain_call_acts_at_once_and_stays() -> None:
    switches = deterministic(threads=1)
    try:
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 1
        assert "torch.deterministic.mode: set (was 0)" in str(switches)
    finally:
        with switches:  # entered now, it puts back what it found then
            pass


def test_what_was_found_is_put_back_after_an_exception_and_through_nesting() -> None:
    torch.backends.cudnn.benchmark = True
    os.environ[CUBLAS] = ":16:8"
    before = state()
    outer = deterministic(tf32=False, fill_memory=False, threads=1)
    with contextlib.suppress(ZeroDivisionError), outer:
        with deterministic("warn", tf32=True, fill_memory=True):
            within = state()
        between = state()
        _ = 1 // 0
    for key, value in {
        "torch.backends.cuda.matmul.allow_tf32": True,
        "torch.backends.cudnn.allow_tf32": True,
        "torch.utils.deterministic.fill_uninitialized_memory": True,
        "torch.backends.cudnn.benchmark": False,
        CUBLAS: ":16:8",
        MODE: 1,
    }.items():
        assert within[key] == value
    assert not between["torch.backends.cudnn.allow_tf32"]
    assert not between["torch.utils.deterministic.fill_uninitialized_memory"]
    assert (between[MODE], between["torch.num_threads"]) == (2, 1)
    assert state() == before
    torch.backends.cudnn.benchmark = False
    del os.environ[CUBLAS]


def test_a_decorated_function_runs_so_at_each_call_and_nothing_stays_set_between() -> None:
    @deterministic()
    def train(depth: int) -> list[bool]:
        deeper = train(depth - 1) if depth else []
        return [*deeper, torch.are_deterministic_algorithms_enabled()]

    assert not torch.are_deterministic_algorithms_enabled()
    assert train(2) == [True, True, True]
    assert not torch.are_deterministic_algorithms_enabled()
    assert train.__name__ == "train"


def test_a_function_that_runs_after_its_call_is_not_decorated() -> None:
    def batches() -> Iterator[int]:
        yield 1

    with pytest.raises(ArgumentInvalid, match="inside it"):
        deterministic()(batches)


def test_tf32_is_switched_where_its_own_switches_are_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    present = torch.backends

    class Backends:
        def __getattr__(self, name: str) -> Any:
            if name == "python_native":  # what PyTorch 2.9 to 2.12 lack
                raise AttributeError(name)
            return getattr(present, name)

    with monkeypatch.context() as older:
        older.setattr(torch, "backends", Backends())
        with deterministic(tf32=True) as switches:
            assert torch.backends.cuda.matmul.fp32_precision == "tf32"
            assert switches.report["fp32_precision.cuda.matmul"].outcome == "set"
        with pytest.raises(ArgumentInvalid):
            deterministic(tf32=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"mode": "loose"}, {"threads": 0}, {"threads": "2"}, {"tf32": 1}]
)
def test_what_cannot_be_is_refused_and_nothing_set(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentInvalid):
        deterministic(**options)


def test_once_cuda_has_started_it_is_too_late_for_cublas(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whether it has started is asked of torch; this machine need not have it.
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_initialized", lambda: True)
        switches = deterministic()
    with switches:
        assert switches.report[CUBLAS].outcome == "too late"
        assert not switches.report.is_complete
        assert os.environ[CUBLAS] == ":4096:8", "for processes that this one starts"


def test_switches_that_cannot_be_read_are_left_and_told() -> None:
    conv: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    conv.fp32_precision = "ieee"  # without the RNN's, the older switch cannot be read
    try:
        with deterministic(tf32=False) as switches:
            assert switches.report["torch.backends.cudnn.allow_tf32"].outcome == "failed"
            assert conv.fp32_precision == "ieee"
    finally:
        conv.fp32_precision = "tf32"


BEFORE_TORCH = """
import json, sys
from manifest.determinism import deterministic
first = deterministic("warn")
inner = deterministic("off")
with inner:
    pass
with deterministic("strict") as second:
    imported = [name for name in sys.modules if name == "torch"]
    import torch
    within = torch.get_deterministic_debug_mode()
    loaded = "torch._inductor.config" in sys.modules
    import torch._inductor.config as inductor
    inductor_within = inductor.deterministic
after = torch.get_deterministic_debug_mode(), inductor.deterministic
with first:
    pass
end = torch.get_deterministic_debug_mode(), inductor.deterministic
outcomes = {item.what: item.outcome for item in second.report.items}
print(json.dumps([imported, outcomes, within, loaded, inductor_within, after, end]))
"""


def test_before_torch_is_imported_the_switches_wait_for_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEFORE_TORCH], capture_output=True, text=True, check=True
    )
    imported, outcomes, within, loaded, inductor_within, after, end = json.loads(done.stdout)
    assert imported == []
    assert (outcomes[MODE], outcomes[INDUCTOR]) == ("pending", "pending")
    assert within == 2
    assert not loaded, "the compiler is not imported to be set"
    assert inductor_within is True
    assert after == [1, True]
    assert end == [0, False]
