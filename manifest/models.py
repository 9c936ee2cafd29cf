"""The manifest and what is said about runs: plain, validated data.

Only readers import this file (store, diff, replay, CLI); recording writes plain entries and never
pays for it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from manifest.canonical import Json, plain
from manifest.restoring import RestoreOutcome

SECTIONS = (
    "command",
    "code",
    "config",
    "links",
    "settings",
    "seeds",
    "generators",
    "loaders",
    "training",
    "snapshots",
    "packages",
    "environment",
    "hardware",
    "inputs",
    "outputs",
)
"""Every section, in the order in which people read them."""

Status = Literal["running", "finished", "failed", "crashed"]
Impact = Literal["certain", "possible", "unknown", "performance", "informational"]
Outcome = Literal["identical", "diverged", "within tolerance", "not replayable"]
AuditOutcome = Literal[
    "reproducible", "reproducible when replayed", "not reproducible", "not judged"
]
Reach = Literal["impossible", "approximate", "given again", "elsewhere", "suspect"]


def _number(value: Any) -> Any:
    return value["$float"] if isinstance(value, dict) and value.keys() == {"$float"} else value


RunId = Annotated[
    str, Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
]
Section = dict[str, Json]
Number = Annotated[
    float, BeforeValidator(_number), PlainSerializer(plain, return_type=Any, when_used="json")
]
"""A float, also one that is not finite; see `canonical`."""


class _Model(BaseModel):
    # Built at first use: a command that lists runs needs few of these models.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Note(_Model):
    """Something that Manifest could not do while it recorded, said instead of raised."""

    where: str = Field(description="The probe or part that noticed, such as `code.git`.")
    what: str = Field(description="What happened, in one sentence.")


class Restore(_Model):
    """What came of putting one thing back."""

    what: str = Field(
        description="A setting, a generator, a loader, or the place where a seed is given."
    )
    outcome: RestoreOutcome = Field(description="`restored`: read back, and equal.")
    reason: str = ""
    number: int = Field(default=1, ge=1, description="How many things of this name and outcome.")
    process: str = Field(default="main", description="The first process with one.")


class TrailSummary(_Model):
    """What the trail of one process holds."""

    steps: int = Field(ge=0, description="Optimizer steps observed.")
    streams: tuple[str, ...] = Field(description="Streams with at least one fingerprint.")
    algorithm: str = Field(description="How fingerprints were made; only equal ones compare.")


class Process(_Model):
    """One process of the run that trained: a rank, or a worker with an optimizer of its own."""

    sections: dict[str, Section] = Field(default_factory=dict)
    trail: TrailSummary | None = None
    started_at: str | None = None
    ended_at: str | None = None
    pid: int | None = None
    rank: int | None = None


class Manifest(_Model):
    """The record of one run: immutable once sealed, content-addressed, canonical.

    `sections` are those of the first process that trained; what other processes recorded is in
    `processes`, by process name (``main.x0`` is the first program that ``main`` started,
    ``main.f0`` its first fork).
    """

    # "schema" would shadow a method of pydantic's BaseModel.
    schema_version: int = Field(alias="schema", ge=1)
    id: RunId
    project: str
    name: str | None = None
    status: Status
    started_at: str = Field(description="UTC, ISO 8601.")
    ended_at: str | None = None
    exit_code: int | None = None
    exit_signal: str | None = None
    error: str | None = Field(default=None, description="The exception that ended the program.")
    replay_of: RunId | None = None
    mode: Literal["run", "record"] = Field(
        description="`run`: watched from the first instruction; `record`: from a call in the code."
    )
    sections: dict[str, Section]
    processes: dict[str, Process] = Field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    restores: tuple[Restore, ...] = Field(
        default=(), description="What was put back, if this run repeats or continues another."
    )
    digests: dict[str, str] = Field(
        default_factory=dict, description="Digest of each section, by name."
    )
    digest: str = Field(default="", description="Digest of the document without this field.")


class Difference(_Model):
    """One key that two manifests do not agree on."""

    section: str
    key: str
    before: Any = Field(description="The value in the first run; see `canonical` for `$` forms.")
    after: Any
    was_captured_before: bool = True
    was_captured_after: bool = True
    impact: Impact
    reason: str = Field(description="Why it can, or cannot, change results.")
    source: str = Field(default="", description="Where that is documented or how it was measured.")
    detail: str = Field(default="", description="A unified diff, where the value is a text file.")


class Variation(_Model):
    """One key on which not all of several runs agree."""

    section: str
    key: str
    values: tuple[Any, ...] = Field(description="One for each run, in their order.")
    were_captured: tuple[bool, ...]
    impact: Impact = Field(description="The gravest, between the first run and any other.")
    reason: str
    source: str = ""


class Diff(_Model):
    """Where two runs differ, the most consequential first."""

    before: RunId
    after: RunId
    conclusion: str
    differences: tuple[Difference, ...]
    compared: int = Field(description="Keys that were compared.")


class Divergence(_Model):
    """The first fingerprint that two trails do not agree on."""

    process: str
    step: int = Field(ge=0, description="Counted from 0.")
    stream: str = Field(description="`rng`, `batch`, `loss`, `grad` or `param`.")
    tensors: tuple[str, ...] = Field(
        default=(), description="The tensors that differ there, in order, where leaves were kept."
    )
    tensors_step: int | None = Field(
        default=None, description="The step at which `tensors` were compared, if a later one."
    )
    equal_streams: tuple[str, ...] = Field(
        default=(), description="Streams that are equal up to and at this step."
    )
    since: int | None = Field(
        default=None,
        description="The first step at which it can have happened, if parameters were not compared "
        "at the step before; large ones are fingerprinted every so many steps.",
    )


class TrailComparison(_Model):
    """What came of comparing the trails of two runs."""

    steps: int = Field(ge=0, description="Steps compared: those both runs have.")
    streams: tuple[str, ...] = Field(description="Streams compared.")
    divergence: Divergence | None = None
    steps_before: int = 0
    steps_after: int = 0
    gaps: dict[str, int] = Field(
        default_factory=dict,
        description="Streams that were not compared at every step, and at how many they were.",
    )
    one_sided: dict[str, int] = Field(
        default_factory=dict,
        description="Streams that one run alone observed at some step, and the first such step.",
    )


class Deviation(_Model):
    """How far two runs are apart in one number, or in the samples of one parameter."""

    process: str
    name: str = Field(description="`loss`, or the name of a parameter.")
    step: int | None = Field(default=None, description="None: at the end of the process.")
    before: Number | None = None
    after: Number | None = None
    absolute: Number
    relative: Number = Field(description="To the larger of the two.")


class Tolerance(_Model):
    """What came of comparing the numbers of two runs whose bits differ."""

    rtol: float
    atol: float
    steps: int = Field(ge=0, description="Losses compared.")
    tensors: int = Field(ge=0, description="Parameters of which samples were compared.")
    largest: Deviation | None = None
    exceeded: Deviation | None = Field(
        default=None, description="The first deviation that is not within."
    )

    @property
    def is_within(self) -> bool:
        """Whether numbers were compared and all are within."""
        return bool(self.steps or self.tensors) and self.exceeded is None


class OperationDifference(_Model):
    """The first operation on which two densely recorded runs do not agree."""

    process: str
    step: int = Field(ge=0)
    ordinal: int = Field(default=0, ge=0, description="Of the operations of the step, from 0.")
    name: str = Field(description="Such as `aten.mm.default`.")
    other: str = Field(default="", description="Its name in the second run.")
    place: str = Field(default="", description="File and line of the program.")
    node: str = Field(default="", description="The node of the backward pass it is part of.")
    has_compiled: bool = Field(
        default=False, description="Whether there was compiled code, which is not observed."
    )


class KeptTrail(_Model):
    """What a service has of the trail of one process."""

    process: str
    steps: int = Field(ge=0)
    files: dict[str, str] = Field(
        default_factory=dict, description="What lies beside the rows, by suffix, as blobs."
    )


class Verdict(_Model):
    """What a replay showed."""

    outcome: Outcome
    original: RunId
    replay: RunId | None
    sentence: str
    changed: tuple[str, ...] = Field(default=(), description="What was changed on purpose.")
    comparison: TrailComparison | None = None
    explanations: tuple[Difference, ...] = Field(
        default=(), description="Differences of the two runs that can explain a divergence."
    )
    reasons: tuple[str, ...] = Field(default=(), description="Why a run cannot be replayed.")
    restores: tuple[Restore, ...] = Field(
        default=(), description="What was put back into the program while it ran again."
    )
    tolerance: Tolerance | None = Field(
        default=None, description="Where a tolerance was asked for and bits differ."
    )
    operation: OperationDifference | None = Field(
        default=None, description="Where both runs were recorded densely and bits differ."
    )


class Doubt(_Model):
    """One thing that makes a run hard to repeat, or hard to trust."""

    what: str
    state: Reach = Field(
        description="`impossible` stops a replay; `approximate`: no replay repeats it surely; "
        "`given again`: a replay repeats it, without Manifest each run has it otherwise; "
        "`elsewhere`: it repeats here, and may not where the run is taken to; `suspect`: it "
        "repeats, and is hardly meant."
    )
    why: str = Field(description="What was found, and what that does.")
    impact: Impact
    place: str = Field(default="", description="File and line of the program, where known.")
    fix: str = Field(default="", description="What to change, in one line.")
    source: str = Field(default="", description="Where that is documented.")


class Audit(_Model):
    """What came of running a program twice from one start."""

    outcome: AuditOutcome
    run: RunId = Field(description="The first run.")
    sentence: str
    verdict: Verdict | None = Field(default=None, description="None if there was no second run.")
    doubts: tuple[Doubt, ...] = ()


class RunSummary(_Model):
    """One line of a list of runs."""

    id: RunId
    project: str
    name: str | None = None
    status: Status
    started_at: str
    ended_at: str | None = None
    command: str = Field(description="The command line, quoted for a shell.")
    steps: int | None = None
    replay_of: RunId | None = None
    outcome: Outcome | None = Field(default=None, description="The verdict, if this is a replay.")


class FacetValue(_Model):
    """One value of a field."""

    value: str | int | float | bool
    runs: int = Field(ge=0, description="How many runs have it.")


Tag = Annotated[str, Field(min_length=1, max_length=200)]


class Annotations(_Model):
    """What people say of a run afterwards; the manifest itself never changes."""

    version: int = Field(default=0, ge=0, description="Counts the changes; 0: nothing said yet.")
    tags: Annotated[dict[Tag, Tag], Field(max_length=100)] = Field(
        default_factory=dict, description="Words to find the run by, as in `team: nlp`."
    )
    note: Annotated[str, Field(max_length=20_000)] = ""
    updated_at: str | None = None
    updated_by: str | None = None


Scope = Literal["read", "write", "admin"]


class Token(_Model):
    """What is known of a token; never the token itself."""

    id: RunId
    name: str = Field(min_length=1, max_length=200, description="Whose it is, or what it is for.")
    scopes: tuple[Scope, ...] = Field(min_length=1)
    project: str | None = Field(
        default=None, description="The one project that it is good for; null for all."
    )
    created_at: str
    expires_at: str | None = None
    revoked_at: str | None = None
    last_used_at: str | None = Field(default=None, description="To the minute.")


class AuditEntry(_Model):
    """One change, and who made it."""

    id: RunId
    at: str
    caller: str
    token_id: RunId | None = None
    action: str
    subject: str
