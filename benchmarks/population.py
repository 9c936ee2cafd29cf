"""The runs of `million.py`: as manifests, and much faster as the rows that these become."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from functools import cache
from typing import Any, Final, NamedTuple

from manifest.canonical import canonical_bytes, digest_bytes
from manifest.models import Manifest, Verdict
from manifest.sealing import seal_document
from manifest.trail import ALGORITHM
from manifest_server.incoming import Incoming
from manifest_server.packing import PackedRun, compressed, pack_run, setup_of
from manifest_server.terms import OWN, Term, own_terms
from storing import shared_sections

PROJECTS: Final = 40
ENVIRONMENTS: Final = 300
WORDS: Final = (
    *("amber", "basalt", "cedar", "delta", "ember", "fjord"),
    *("garnet", "harbor", "indigo", "juniper", "krill", "lotus"),
)
_COMMITS: Final = 3000
_ORIGINALS: Final = 10_000
_FIRST_MS: Final = 1_735_689_600_000
_APART_MS: Final = 30_000
_STILL_RUNNING: Final = 20
_GRID: Final = tuple(round(base * 10**-power, 6) for power in range(1, 6) for base in (1, 2, 3, 5))


class Shared(NamedTuple):
    """The sections that runs of an environment have in common."""

    values: dict[str, dict[str, Any]]
    bodies: dict[str, bytes]
    """The canonical bytes of those that runs add nothing to."""
    digests: dict[str, str]
    """Of these."""
    keys: dict[str, str]
    """Under which they are kept, by name."""
    packed: PackedRun
    """A run that has nothing else, as the store packs it."""


class Made(NamedTuple):
    """A run of the population."""

    document: dict[str, Any]
    """Its manifest without the sections that it shares."""
    added: dict[str, dict[str, Any]]
    """What it adds to shared sections: the store takes that off again."""
    shared: Shared
    outcome: str | None
    tags: dict[str, str]


def population(count: int) -> Iterator[Made]:
    """The same runs every time: ever so many of 40 projects, in 300 environments."""
    known = random.Random(count)
    weights = [1 / (rank + 2) for rank in range(PROJECTS)]
    originals: list[str] = []
    for number, project in enumerate(known.choices(range(PROJECTS), weights, k=count)):
        environment = (project * 7 + known.randrange(8)) % ENVIRONMENTS
        commit = (environment * 10 + known.randrange(10)) % _COMMITS
        document = own_document(number, project, known)
        if number >= count - _STILL_RUNNING:
            document |= {"status": "running", "ended_at": None}
        elif originals and known.random() < 0.03:
            document["replay_of"] = known.choice(originals)
        if len(originals) < _ORIGINALS:
            originals.append(document["id"])
        yield Made(
            document,
            {
                "environment": {"env.HOSTNAME": f"node-{known.randrange(64):03}"},
                "loaders": {"train": {"base_seed": known.getrandbits(63)}},
            },
            shared_of(environment, commit),
            known.choice(("identical", "diverged")) if document["replay_of"] else None,
            {"team": known.choice(WORDS), "kept": "yes"} if known.random() < 0.05 else {},
        )


def own_document(number: int, project: int, known: random.Random) -> dict[str, Any]:
    """What no other run has just so."""
    digits = f"{_FIRST_MS + number * _APART_MS:012x}7{known.getrandbits(12):03x}"
    digits += f"{8 + known.getrandbits(2):x}{known.getrandbits(60):015x}"
    began = (_FIRST_MS + number * _APART_MS) // 1000
    status = known.choices(("finished", "failed", "crashed"), (90, 8, 2))[0]
    config = {key: known.choice(values) for key, values in config_of(project).items()}
    if known.random() < 0.1:  # the others search a grid
        config["lr"] = round(10 ** known.uniform(-5, -1), 8)
    config["seed"] = known.randrange(10_000)
    name = f"{known.choice(WORDS)}-{known.choice(WORDS)}-{known.randrange(1000)}"
    return {
        "schema": 1,
        "id": "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])),
        "project": f"project-{project:02}",
        "name": name if known.random() < 0.7 else None,
        "status": status,
        "started_at": moment(began),
        "ended_at": moment(began + known.randrange(60, 36_000)),
        "exit_code": 0 if status == "finished" else 1,
        "replay_of": None,
        "mode": "run",
        "sections": {
            "command": {
                "argv": ["python", "train.py", "--lr", str(config["lr"])],
                "cwd": ".",
                "executable": "/usr/bin/python3",
                "kind": "script",
            },
            "config": config,
            "seeds": {
                "entropy": f"{known.getrandbits(256):064x}",
                "entropy_from": None,
                "hash_seed": str(known.getrandbits(32)),
                "pinned_os_entropy": False,
                "draws": {"numpy.random": known.randrange(9), "torch": 1},
            },
        },
        "processes": {
            "main": {
                "pid": known.randrange(2**22),
                "trail": {
                    "steps": known.randrange(100, 100_000),
                    "streams": ["rng", "batch", "loss", "grad", "param"],
                    "algorithm": ALGORITHM,
                },
            }
        },
    }


@cache
def config_of(project: int) -> dict[str, tuple[Any, ...]]:
    """Twenty keys of a project's configuration, and the few values that each takes."""
    known = random.Random(-1 - project)
    keys: dict[str, tuple[Any, ...]] = {
        "lr": _GRID,
        "seed": (0,),
        "batch_size": (32, 64, 128, 256),
        "epochs": (3, 10, 30, 90),
        "optimizer": ("sgd", "adam", "adamw"),
        "model": tuple(f"net-{known.randrange(50)}" for _ in range(4)),
        "dataset": (f"data-{project}",),
        "augment": (True, False),
    }
    for number in range(12):
        few = range(1 + number % 3)
        keys[f"option_{number}"] = tuple(known.randrange(100) / 4 for _ in few)
    return keys


def moment(seconds: int) -> str:
    """Seconds since 1970, as manifests say it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(seconds))


@cache
def shared_of(environment: int, commit: int) -> Shared:
    """What runs of an environment and a commit share, packed by the store's own function."""
    values = {
        **shared_sections(environment),
        "hardware": {f"gpu.{n}.name": f"Model {environment % 12}" for n in range(8)},
        "code": {"git.commit": f"{commit:040x}", "git.dirty": commit % 5 == 0},
        "inputs": {f"data/{environment % 50}.bin": {"size": 2**20, "digest": "xxh3:0" * 6}},
        "training": {"optimizer": {"kind": "AdamW", "groups": environment % 4}},
        "loaders": {"train": {"workers": environment % 9, "shuffle": True}},
    }
    document = {**own_document(0, 0, random.Random(0)), "sections": values}
    seal_document(document)
    packed = pack_run(Incoming.of(Manifest.model_validate(document)))
    bodies = {
        name: canonical_bytes(value)
        for name, value in values.items()
        if name not in ("environment", "loaders")
    }
    return Shared(
        values,
        bodies,
        {name: digest_bytes(body) for name, body in bodies.items()},
        {section.name: key for key, section in packed.sections.items()},
        packed,
    )


def verdict_of(made: Made) -> Verdict | None:
    """What a replay showed."""
    if made.outcome is None:
        return None
    original, replay = made.document["replay_of"], made.document["id"]
    return Verdict.model_validate(
        {"outcome": made.outcome, "original": original, "replay": replay, "sentence": "It did."}
    )


def manifest_of(made: Made) -> Manifest:
    """The manifest as it is read, sealed unless the run still goes on."""
    document = {**made.document}
    document["sections"] = {**made.shared.values, **_own_sections(made)}
    if document["status"] != "running":
        seal_document(document)
    return Manifest.model_validate(document)


def packed_of(made: Made) -> PackedRun:
    """The rows of the manifest; that they are these is checked on a sample."""
    if made.document["status"] == "running":
        return pack_run(Incoming.of(manifest_of(made)))
    document = made.document
    kept = {**document, "peeled": {"": made.added}, "digests left out": True}
    shared = made.shared.packed
    setup = setup_of(document["project"], made.shared.keys)
    packed = PackedRun(
        row={
            **shared.row,
            **{key: document[key] for key in _LISTED},
            "command": " ".join(document["sections"]["command"]["argv"]),
            "steps": document["processes"]["main"]["trail"]["steps"],
            "digest": _digest_of(made),
            "setup_key": setup["key"],
            "document": compressed(canonical_bytes(kept)),
        },
        setup=setup,
        sections=shared.sections,
    )
    for name in OWN:
        if (section := document["sections"].get(name)) is not None:
            packed.terms.extend(terms_in(document["project"], name, section))
    return packed


_LISTED: Final = ("id", "project", "name", "status", "started_at", "ended_at", "replay_of")


def terms_in(project: str, section: str, values: dict[str, Any]) -> Iterator[Term]:
    """The terms of a section, most of which were met before."""
    for key, value in values.items():
        if isinstance(value, dict) or key == "lr" or section == "seeds":
            yield from own_terms(project, section, {key: value})
        else:
            yield from _terms_of(project, section, key, type(value).__name__, value)


@cache
def _terms_of(project: str, section: str, key: str, _: str, value: Any) -> tuple[Term, ...]:
    return tuple(own_terms(project, section, {key: value}))


def _own_sections(made: Made) -> dict[str, Any]:
    values, added = made.shared.values, made.added
    loader = {**values["loaders"]["train"], **added["loaders"]["train"]}
    return {
        **made.document["sections"],
        "environment": {**values["environment"], **added["environment"]},
        "loaders": {"train": loader},
    }


def _digest_of(made: Made) -> str:
    """The digest of the whole manifest, with each section encoded once at most."""
    own = {name: canonical_bytes(value) for name, value in _own_sections(made).items()}
    bodies = {**made.shared.bodies, **own}
    digests = {**made.shared.digests, **{name: digest_bytes(own[name]) for name in own}}
    members = b",".join(b'"%b":%b' % (name.encode(), bodies[name]) for name in sorted(bodies))
    whole = canonical_bytes({**made.document, "sections": {}, "digests": digests})
    return digest_bytes(whole.replace(b'"sections":{}', b'"sections":{%b}' % members))
