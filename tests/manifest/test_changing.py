"""What a replay may do otherwise on purpose, as people type it."""

from __future__ import annotations

import sys

import pytest

from manifest.changing import Changes, read_changes
from manifest.errors import UnknownChange


def test_each_kind_of_change_is_read_and_described() -> None:
    pairs = [
        "env.OMP_NUM_THREADS=1",
        "env.EMPTY=",
        "torch.num_threads=1",
        "torch.default_dtype=torch.float64",
        "torch.autocast.cpu.enabled=true",
        "entropy=fresh",
        "hash_seed=4294967295",
        f"python={sys.executable}",
    ]
    changes = read_changes(pairs, arguments=["--epochs", "1"])
    assert changes.variables == {"OMP_NUM_THREADS": "1", "EMPTY": ""}
    assert changes.settings == {
        "torch.num_threads": 1,
        "torch.default_dtype": "torch.float64",
        "torch.autocast.cpu.enabled": True,
    }
    assert (changes.is_entropy_fresh, changes.hash_seed) == (True, 2**32 - 1)
    assert changes.python == sys.executable
    assert len(changes.described()) == len(pairs) + 2
    assert changes.described()[0] == "env.OMP_NUM_THREADS=1"


def test_no_change_is_false() -> None:
    assert not Changes()
    assert not read_changes([])


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("torch.num_treads=1", "torch.num_threads"),
        ("num_threads=1", "torch.num_threads"),
        ("OMP_NUM_THREADS=1", "perhaps"),
        ("torch.num_threads", "expected key=value"),
        ("torch.num_threads=many", "expected integer from"),
        ("torch.num_threads=true", "expected integer from"),
        ("torch.num_threads=0", "expected integer from"),
        ("torch.default_dtype=torch.nothing", "one of 'torch.float32'"),
        ("torch.default_dtype=__import__('os')", "one of"),
        ("env.LD_PRELOAD=/evil.so", "decides which code is run"),
        ("env.PATH=/evil", "decides which code is run"),
        ("env.PYTHONPATH=/evil", "decides which code is run"),
        ("env.MANIFEST_RUN_DIR=/evil", "decides which code is run"),
        ("env.PYTHONHASHSEED=0", "hash_seed=N"),
        ("env.=1", "the name of a variable"),
        ("env.A B=1", "the name of a variable"),
        ("env.A=\0", "the name of a variable"),
        ("entropy=old", "entropy=fresh"),
        ("hash_seed=4294967296", "from 0 to 4294967295"),
        ("hash_seed=-1", "from 0 to"),
        ("hash_seed=random", "from 0 to"),
        ("python=/nowhere/python", "no program at that place"),
        ("python=/tmp", "no program at that place"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(pair: str, said: str) -> None:
    with pytest.raises(UnknownChange) as refused:
        read_changes([pair])
    assert said in str(refused.value)
