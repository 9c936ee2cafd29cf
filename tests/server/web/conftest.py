"""Pages as a browser asks for them, of runs that were put through the API."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from manifest.models import Manifest, Verdict

PutRun = Callable[..., Manifest]
MakeManifest = Callable[..., Manifest]


@pytest.fixture
def put_run(client: TestClient, make_manifest: MakeManifest) -> PutRun:
    """A function that puts a run of `make_manifest`, with its verdict if it has one."""

    def put(*, outcome: str | None = None, **changes: object) -> Manifest:
        run = make_manifest(**changes)
        body = run.model_dump_json(by_alias=True, exclude_unset=True)
        assert client.put(f"/api/v1/runs/{run.id}", content=body).status_code == 200
        if outcome is not None:
            verdict = Verdict.model_validate(
                {
                    "outcome": outcome,
                    "original": run.replay_of,
                    "replay": run.id,
                    "sentence": f"it was {outcome}",
                }
            )
            address = f"/api/v1/runs/{run.id}/verdict"
            assert client.put(address, content=verdict.model_dump_json()).status_code == 204
        return run

    return put
