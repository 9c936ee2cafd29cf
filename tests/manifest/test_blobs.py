"""What a manifest refers to is found wherever it stands."""

from __future__ import annotations

from manifest.blobs import blobs_in, blobs_of
from manifest.models import Manifest

A, B, C, D = (f"sha256:{digit * 64}" for digit in "abcd")


def test_every_digest_in_every_section_of_every_process_is_found() -> None:
    manifest = Manifest.model_validate(
        {
            "schema": 1,
            "id": "01990000-0000-7000-8000-000000000001",
            "project": "digits",
            "status": "running",
            "started_at": "2025-01-31T08:00:00Z",
            "mode": "run",
            "sections": {
                "code": {"files": {"train.py": A}, "git.untracked": {"b.py": B}},
                "inputs": {"data.csv": {"size": 1, "blob": C}},
            },
            "processes": {"main.x0": {"sections": {"config": {"lists": [[D]]}}}},
            "digests": {"code": f"sha256:{'e' * 64}"},
        }
    )

    assert blobs_of(manifest) == {A, B, C, D}


def test_what_only_looks_like_a_digest_is_none() -> None:
    others = ["sha256:abc", "sha256:" + "G" * 64, "xxh3:" + "a" * 32, A + "0", A.upper(), " " + A]

    assert blobs_in({"values": others, A: 1, "number": 5}) == set()
