"""Runs that nobody ran, written as a run writes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import pytest

from manifest.identity import new_run_id
from manifest.origin import RUN, Origin, write_origin
from manifest.rundir import RunDirectory
from manifest.streams import STREAMS, UNOBSERVED
from manifest.trail import Ending, TrailWriter


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., RunDirectory]:
    """Write a run of several processes: by name, told and joined rank, steps, changed digests."""

    def make(
        processes: Mapping[str, tuple[int | None, int | None, int]],
        *,
        changed: Mapping[tuple[str, int, str], bytes] | None = None,
        streams: Collection[str] = STREAMS,
        environments: Mapping[str, dict[str, str]] | None = None,
        notes: Mapping[str, str] | None = None,
        ending: Ending | None = None,
        mode: str = RUN,
        error: str | None = None,
        exited: tuple[int, str | None] | None = (0, None),
    ) -> RunDirectory:
        run = RunDirectory.create(tmp_path / ".manifest", new_run_id())
        _, journal = run.claim("run")
        origin = Origin(
            mode=mode,
            command=["torchrun", "train.py"],
            executable="torchrun",
            folder=tmp_path,
            entropy=bytes(32),
            hash_seed="0",
        )
        write_origin(journal, run, origin)
        for name, (told, joined, steps) in processes.items():
            _, own = run.claim(name)
            own.append("process", pid=1, rank=told)
            own.section("environment", {"python.version": "3.11.7"})
            own.section("environment", {**(environments or {}).get(name, {})})
            for where, what in (notes or {}).items():
                own.note(where, what)
            if joined is not None:
                own.append("rank", rank=joined)
            own.append("end", error=error)
            own.close()
            writer = TrailWriter(run.trail_path(name))
            for step in range(steps):
                digests = (
                    (changed or {}).get((name, step, stream), f"{step} {stream}".encode().ljust(16))
                    if stream in streams
                    else UNOBSERVED
                    for stream in STREAMS
                )
                writer.append(*digests)
            writer.close(ending)
        if exited is not None:
            code, signal = exited
            journal.append("exit", code=code, signal=signal)
        journal.close()
        run.write_manifest()
        return run

    return make
