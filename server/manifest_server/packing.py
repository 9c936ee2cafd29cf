"""A manifest as rows, and back."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self, TypeAlias

from pydantic_core import from_json

from manifest.blobs import blobs_in
from manifest.canonical import Digest, canonical_bytes, checked_digest, digest_bytes, digest_value
from manifest.errors import DamagedRun, DigestMismatch, DigestWrong
from manifest.models import Manifest, Section, Verdict
from manifest.summaries import LABEL_LENGTHS, label, summarize
from manifest_server.incoming import Incoming, damaged_run, member
from manifest_server.tables import SHARED
from manifest_server.terms import OWN, Term, own_terms

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEY: Final = slice(len("sha256:"), len("sha256:") + 32)
_OF_BLOBS: Final = b'"sha256:'
"""Canonical bytes without it name no blob, and need not be walked for any."""
_UNCOMPRESSED_BYTES = 200  # zlib's own start costs more than it saves below this

# What is another in every run would keep the sections around it from being shared.
_VOLATILE: Final = {
    "environment": re.compile(
        r"env(_now)?\.(PYTHONHASHSEED|HOSTNAME|PWD|OLDPWD|SLURM_.*|MASTER_PORT|TORCHELASTIC_.*)"
        r"|launcher\.(id|address|port|command).*"
    ),
}
_VOLATILE_SETTINGS: Final = frozenset({"python.hash_probe"})
_VOLATILE_OF_LOADERS: Final = frozenset({"base_seed", "generator_state", "iterators"})


@dataclass(frozen=True, slots=True)
class SharedSection:
    """A section that many runs may have in common, without what is each run's own."""

    name: str
    body: bytes
    """In canonical form."""
    digest: Digest

    @classmethod
    def of(cls, name: str, values: Section) -> Self:
        """Encode a section."""
        body = canonical_bytes(values)
        return cls(name, body, digest_bytes(body))

    @property
    def key(self) -> str:
        """What it is kept under."""
        return self.digest[_KEY]

    def values(self) -> Section:
        """What it holds, read anew."""
        found: Section = json.loads(self.body)
        return found


@dataclass(frozen=True, slots=True)
class PackedRun:
    """The rows that one run becomes."""

    row: dict[str, object]
    setup: dict[str, object] = field(default_factory=dict)
    """The keys of the run's shared sections, together; empty where it has none."""
    sections: dict[str, SharedSection] = field(default_factory=dict)
    """By key."""
    references: list[dict[str, object]] = field(default_factory=list)
    """From processes other than the first to sections."""
    terms: list[Term] = field(default_factory=list)
    """The run's own; those of its sections are made when a section is new."""
    blobs: set[Digest] = field(default_factory=set)
    """What the run refers to in that which is its own."""

    @property
    def id(self) -> str:
        """Of the run."""
        return str(self.row["id"])

    @property
    def digest(self) -> str:
        """Of the manifest; empty while the run goes on."""
        return str(self.row["digest"])


@dataclass(frozen=True, slots=True)
class UnpackedSection:
    """What is kept of a section that runs share; whoever reads it may not change it."""

    values: Section
    digest: Digest
    size: int
    """Of its canonical bytes."""


@dataclass(frozen=True, slots=True)
class KeptSection:
    """A section that a run refers to."""

    process: str
    name: str
    content: UnpackedSection


def unpack_section(key: str, body: bytes) -> UnpackedSection:
    """Read a shared section back.

    Raises:
        DigestMismatch: Its bytes were changed.
        ValueError: They are no JSON.
    """
    whole = expanded(body)
    digest = digest_bytes(whole)
    if (found := section_key_of(digest)) != key:
        raise DigestMismatch(key, found, "a section in the store")
    return UnpackedSection(_decoded(whole), digest, len(whole))


def unpack_document(document: bytes) -> dict[str, Any]:
    """What is kept of a run alone, for `unpack_run`.

    Raises:
        ValueError: It is no JSON.
    """
    whole: dict[str, Any] = _decoded(expanded(document))
    return whole


def has_sections_of_processes(whole: Mapping[str, Any]) -> bool:
    """Whether a process other than the first may refer to sections."""
    return any("sections" in process for process in whole.get("processes", {}).values())


def unpack_run(whole: dict[str, Any], digest: str, sections: Iterable[KeptSection]) -> Manifest:
    """Put a manifest together again, exactly as it was packed.

    Raises:
        ValueError: It is none.
    """
    whole["digest"] = digest
    known = _put_back(whole, sections)
    if whole.pop(_DIGESTS_LEFT_OUT, False):
        whole["digests"] = {
            name: known.get(name) or digest_value(values)
            for name, values in whole["sections"].items()
        }
    return Manifest.model_validate(whole)


def unpack_sections(document: bytes, sections: Iterable[KeptSection]) -> dict[str, Section]:
    """The sections of a run that lie in its document, and those that are given."""
    whole = unpack_document(document)
    _put_back(whole, sections)
    found: dict[str, Section] = whole["sections"]
    return found


def _decoded(data: bytes) -> Any:
    """Read JSON.

    Raises:
        ValueError: It is none.
    """
    try:
        return from_json(data)  # which takes half the time
    except ValueError:  # or is nested deeper than this reads
        return json.loads(data)


def _put_back(whole: dict[str, Any], sections: Iterable[KeptSection]) -> dict[str, Digest]:
    """Put shared sections into a document; gives the digests of those that nothing was added to."""
    peeled = whole.pop(_PEELED, {})
    known: dict[str, Digest] = {}
    for each in sections:
        holder = whole["processes"][each.process] if each.process else whole
        own = peeled.get(each.process, {}).get(each.name)
        values = each.content.values
        holder["sections"][each.name] = _merged(values, own) if own else values
        if not own and not each.process:
            known[each.name] = each.content.digest
    return known


def setup_of(project: str, keys: Mapping[str, str]) -> dict[str, object]:
    """The row of the sections that a run shares, of which it has these keys, by name."""
    kept = label(project, LABEL_LENGTHS["project"]) or ""
    told = "\0".join([kept, *(keys.get(name, "") for name in SHARED)])
    return {
        "key": digest_bytes(told.encode())[_KEY],
        "project": project,
        **{f"{name}_key": keys.get(name) for name in SHARED},
    }


def section_key_of(digest: str) -> str:
    """What a section is kept under: the first half of the SHA-256 of what is kept of it."""
    return checked_digest(digest)[_KEY]


def pack_verdict(verdict: Verdict) -> bytes:
    """Turn a verdict into the bytes that are kept of it."""
    try:
        return compressed(canonical_bytes(verdict.model_dump(mode="json", exclude_unset=True)))
    except (ValueError, TypeError, RecursionError) as error:
        where = f"the verdict on run '{verdict.original}'"
        raise DamagedRun(where, f"{type(error).__name__}: {error}") from error


def unpack_verdict(data: bytes) -> Verdict:
    """Read a verdict back."""
    return Verdict.model_validate_json(expanded(data))


def compressed(data: bytes) -> bytes:
    """Make JSON smaller where that pays."""
    if len(data) < _UNCOMPRESSED_BYTES:
        return data
    compressor = zlib.compressobj(1, zdict=USUAL)
    return compressor.compress(data) + compressor.flush()


def expanded(data: bytes) -> bytes:
    """Undo `compressed`: JSON begins with a brace, which zlib never does."""
    if data[:1] == b"{":
        return data
    expander = zlib.decompressobj(zdict=USUAL)  # read also what was compressed without it
    whole = expander.decompress(data)
    if not expander.eof:
        raise zlib.error("incomplete or truncated stream")
    return whole


# What most documents have in common, the most usual last. Not a byte of it may ever change: it is
# what kept documents are read with.
USUAL: Final = (
    b'"launcher":{"kind":"torchrun"},"environment":{"env.HOSTNAME":"","env.PWD":"/home/",'
    b'"env.PYTHONHASHSEED":"0","env.SLURM_JOB_ID":"","env_now.PYTHONHASHSEED":"0"},'
    b'"settings":{"python.hash_probe":},"generators":{"python.random":{"kind":"mt19937","state":'
    b'"sha256:"},"numpy.random":{},"torch.cpu":{},"torch.cuda.0":{}},'
    b'"outputs":{"model.pt":{"digest":"sha256:","size":},"checkpoint":"/results/"},'
    b'"notes":[{"what":"No repository.","where":"code.git"}],"parent":null,'
    b'"beta1":0.9,"beta2":0.999,"dropout":0.1,"hidden_size":,"num_layers":,"momentum":0.9,'
    b'"num_workers":,"scheduler":"cosine","warmup_steps":,"max_steps":,"data_dir":"/data/",'
    b'"output_dir":"","weight_decay":0.01,"gradient_clip":1.0,"precision":"bf16",true,false,'
    b'{"digests left out":true,"ended_at":"2026-01-01T00:00:00.000000Z","exit_code":0,"id":"019",'
    b'"mode":"run","mode":"replay","name":null,"peeled":{"":{"environment":{"env.HOSTNAME":""},'
    b'"loaders":{"train":{"base_seed":,"generator_state":"sha256:","iterators":1}}}},'
    b'"processes":{"main":{"ended_at":"","host":"","pid":,"rank":0,"sections":{},'
    b'"trail":{"algorithm":"xxh3-128+ml32x2","steps":,'
    b'"streams":["rng","batch","loss","grad","param"]}}},"project":"","replay_of":null,"schema":1,'
    b'"sections":{"command":{"argv":["python","train.py","--epochs","--batch-size","--seed","--lr",'
    b'"],"cwd":".","executable":"/usr/bin/python3","kind":"script"},'
    b'"config":{"augment":false,"batch_size":,"dataset":"data","epochs":,"learning_rate":0.001,'
    b'"lr":0.0,"model":"","optimizer":"adamw","seed":},"seeds":{"draws":{"numpy.random":1,'
    b'"os_entropy":1,"python.random":1,"torch":1},"entropy":"","entropy_from":null,'
    b'"hash_seed":"","os_entropy_uses":[],"pinned_os_entropy":false}},'
    b'"started_at":"2026-01-01T00:00:00.000000Z","status":"failed","status":"finished"}'
)

_HEAVY: Any = {"sections": True, "digest": True, "processes": {"__all__": {"sections"}}}
_DIGESTS_LEFT_OUT = "digests left out"
_PEELED = "peeled"

_Peeled: TypeAlias = dict[str, dict[str, dict[str, Any]]]
"""By process ('' for the run's own), by section."""


def pack_run(incoming: Incoming) -> PackedRun:
    """Turn a manifest into rows.

    A sealed run never changes, so its sections are split off to be shared; a run that still goes
    on is kept whole, or every look at it would leave sections behind that nobody refers to.

    Raises:
        DamagedRun: The manifest has no canonical form, or its id or digest is none.
        DigestMismatch: A section is not what its digest says.
        DigestWrong: The manifest is not.
    """
    manifest = incoming.manifest
    try:
        _check_keys(manifest)
        packed = PackedRun(row=_listed(manifest))
        document = manifest.model_dump(
            mode="json", by_alias=True, exclude_unset=True, exclude=_HEAVY
        )
        _check_digests(incoming)
        if manifest.digest:
            _check_digest(manifest, document, incoming.bodies)
        peeled: _Peeled = {}
        document["sections"] = _put_sections(None, manifest.sections, packed, peeled, incoming)
        for name, process in manifest.processes.items():
            if "sections" in process.model_fields_set:
                holder = document["processes"][name]
                holder["sections"] = _put_sections(name, process.sections, packed, peeled)
        if peeled:
            document[_PEELED] = peeled
        if manifest.digest and manifest.digests and manifest.digests == incoming.digests:
            del document["digests"]
            document[_DIGESTS_LEFT_OUT] = True
        packed.row["document"] = compressed(canonical_bytes(document))
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged_run(manifest, error) from error
    return packed


def _check_keys(manifest: Manifest) -> None:
    for run_id in (manifest.id, manifest.replay_of):
        if run_id is not None and not _ID.fullmatch(run_id):
            raise ValueError(f"expected a run id such as new_run_id() makes, found {run_id!r}")
    for moment in (manifest.started_at, manifest.ended_at):
        if moment is not None:
            datetime.fromisoformat(moment)
    if manifest.digest:
        checked_digest(manifest.digest)


def _listed(manifest: Manifest) -> dict[str, object]:
    # The outcome is kept with its verdict, which has an order of its own.
    return {
        **summarize(manifest).model_dump(exclude={"outcome"}),
        "setup_key": None,
        "digest": manifest.digest,
    }


def _check_digests(incoming: Incoming) -> None:
    expected = incoming.manifest.digests
    for name, found in incoming.digests.items():
        if expected.get(name, found) != found:
            where = f"section '{name}' of run {incoming.manifest.id}"
            raise DigestMismatch(expected[name], found, where)


def _check_digest(
    manifest: Manifest, document: Mapping[str, Any], bodies: Mapping[str, bytes]
) -> None:
    # Put together from what was encoded already: encoding everything again would cost as much as
    # all the rest.
    rest = dict(document)
    if any("sections" in process.model_fields_set for process in manifest.processes.values()):
        whole = manifest.model_dump(mode="json", exclude_unset=True, include={"processes"})
        rest["processes"] = whole["processes"]
    before = {key: value for key, value in rest.items() if key < "sections"}
    after = {key: value for key, value in rest.items() if key > "sections"}
    sections = b",".join(member(name, bodies[name]) for name in sorted(bodies))
    members = (
        canonical_bytes(before)[1:-1],
        b'"sections":{' + sections + b"}",
        canonical_bytes(after)[1:-1],
    )
    found = digest_bytes(b"{" + b",".join(filter(None, members)) + b"}")
    if found != manifest.digest:
        raise DigestWrong(manifest.id, manifest.digest, found)


def _put_sections(
    process: str | None,
    sections: dict[str, Section],
    packed: PackedRun,
    peeled: _Peeled,
    incoming: Incoming | None = None,
) -> dict[str, Section]:
    """Share what can be shared; gives what stays in the document."""
    # A run that goes on is kept whole: every look at it would leave sections behind that nobody
    # refers to.
    if not packed.digest:
        return sections
    staying = {}
    shared: list[SharedSection] = []
    for name, section in sections.items():
        if process is None and name in OWN:
            packed.terms.extend(own_terms(str(packed.row["project"]), name, section))
        # PostgreSQL cannot key by just any text; a section of such a name stays in the document.
        if name not in SHARED or (process is not None and not _NAME.fullmatch(process)):
            staying[name] = section
            if incoming is None or _OF_BLOBS in incoming.bodies[name]:
                packed.blobs.update(blobs_in(section))
            continue
        rest, own = _peel(name, section)
        if own:
            peeled.setdefault(process or "", {})[name] = own
            packed.blobs.update(blobs_in(own))
        if own or incoming is None:
            shared.append(SharedSection.of(name, rest))
        else:
            shared.append(SharedSection(name, incoming.bodies[name], incoming.digests[name]))
    if incoming is not None:
        shared += (
            SharedSection(name, incoming.bodies[name], incoming.digests[name])
            for name in incoming.bodies.keys() - sections.keys()
        )
    _refer(process, shared, packed)
    return staying


def _refer(process: str | None, shared: Sequence[SharedSection], packed: PackedRun) -> None:
    keys = {each.name: each.key for each in shared}
    packed.sections.update((each.key, each) for each in shared)
    if process:
        run_id = packed.row["id"]
        packed.references.extend(
            {"run_id": run_id, "process": process, "name": name, "key": key}
            for name, key in keys.items()
        )
    elif keys:
        packed.setup.update(setup_of(str(packed.row["project"]), keys))
        packed.row["setup_key"] = packed.setup["key"]


def _peel(name: str, section: Section) -> tuple[Section, dict[str, Any]]:
    """Take off what is another in every run."""
    if name == "loaders":
        return _peel_loaders(section)
    if name == "settings":
        found = section.keys() & _VOLATILE_SETTINGS
    elif (volatile := _VOLATILE.get(name)) is not None:
        found = {key for key in section if volatile.fullmatch(key)}
    else:
        return section, {}
    own = {key: section[key] for key in found}
    return ({k: v for k, v in section.items() if k not in own} if own else section), own


def _peel_loaders(section: Section) -> tuple[Section, dict[str, Any]]:
    rest: Section = {}
    own = {}
    for loader, facts in section.items():
        rest[loader] = facts
        if isinstance(facts, dict) and (volatile := facts.keys() & _VOLATILE_OF_LOADERS):
            own[loader] = {key: facts[key] for key in volatile}
            rest[loader] = {key: value for key, value in facts.items() if key not in volatile}
    return rest, own


def _merged(values: Section, own: dict[str, Any]) -> Section:
    """Put back what `_peel` took off."""
    merged = dict(values)
    for key, value in own.items():
        below = values.get(key)
        merged[key] = {**below, **value} if isinstance(below, dict) else value
    return merged
