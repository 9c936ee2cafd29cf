"""What makes a run hard to repeat is told from its manifest alone."""

from __future__ import annotations

import json
from typing import Any

from manifest.doubts import doubts
from manifest.models import Manifest

_SECTIONS: dict[str, dict[str, Any]] = {
    "command": {"argv": ["python", "train.py"], "root": "/nowhere", "kind": "script"},
    "seeds": {"entropy": "ab" * 32, "hash_seed": "7"},
}


def _manifest(mode: str = "run", **sections: dict[str, Any]) -> Manifest:
    merged = {
        name: {**_SECTIONS.get(name, {}), **sections.get(name, {})}
        for name in _SECTIONS.keys() | sections.keys()
    }
    document = {
        "schema": 1,
        "id": "01990000-0000-7000-8000-000000000001",
        "project": "p",
        "status": "finished",
        "started_at": "2025-01-31T08:00:00Z",
        "mode": mode,
        "sections": merged,
    }
    return Manifest.model_validate(json.loads(json.dumps(document)))


def _told(manifest: Manifest) -> list[tuple[str, str]]:
    return [(each.what, each.state) for each in doubts(manifest)]


def test_nothing_where_all_can_be_put_back() -> None:
    assert _told(_manifest()) == []


def test_what_stops_a_replay_comes_first() -> None:
    manifest = _manifest(
        command={"argv": ["python", {"$redacted": "ab"}]}, seeds={"os_entropy_uses": {"a.py:1": 1}}
    )

    assert _told(manifest) == [("command", "impossible"), ("os entropy", "approximate")]


def test_a_hash_seed_that_nobody_pinned() -> None:
    assert _told(_manifest("record", seeds={"hash_seed": "random"})) == [
        ("hash seed", "approximate")
    ]


def test_threads_that_may_come_in_any_order() -> None:
    settings = {"torch.deterministic.mode": 0, "torch.num_threads": 2}

    assert _told(_manifest(settings=settings)) == [("order of threads", "approximate")]
    assert _told(_manifest(settings={**settings, "torch.num_threads": 1})) == []


def test_what_cuda_may_add_in_any_order() -> None:
    optimizer = {"optimizer.0": {"devices": "cuda"}}
    allowed = {"torch.deterministic.mode": 0, "torch.num_threads": 16}
    cudnn = {"torch.backends.cudnn.deterministic": True, "torch.backends.cudnn.benchmark": True}

    (told,) = doubts(_manifest(settings=allowed, training=optimizer))
    assert "threads of the GPU" in told.why
    assert "the gradient of a convolution or an index" in told.why

    both = doubts(_manifest(settings=allowed | cudnn, training=optimizer))
    assert both[0].fix == "`torch.backends.cudnn.benchmark = False`"
    assert "the gradient of an index" in both[1].why

    strict = {**allowed, "torch.deterministic.mode": 2}
    assert doubts(_manifest(settings=strict, training=optimizer)) == []


def test_a_manifest_that_no_replay_would_take() -> None:
    assert _told(_manifest(seeds={"entropy": "none"})) == [("manifest", "impossible")]


def test_cudnn_that_times_its_kernels_is_none_where_nothing_trained_on_a_device() -> None:
    settings = {"torch.deterministic.mode": 2, "torch.backends.cudnn.benchmark": True}
    assert _told(_manifest(settings=settings)) == []
    on_cuda = {"optimizer.0": {"devices": "cuda"}}
    assert _told(_manifest(settings=settings, training=on_cuda)) == [
        ("cuDNN benchmarking", "approximate")
    ]


def test_what_is_sure_to_part_runs_stands_before_what_may() -> None:
    settings = {"torch.deterministic.mode": 0, "torch.num_threads": 2}
    environment = {"env.OMP_DYNAMIC": "true"}
    told = _told(_manifest(settings=settings, environment=environment))
    assert told == [("OMP_DYNAMIC", "approximate"), ("order of threads", "approximate")]
