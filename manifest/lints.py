"""What in the seeds, settings, loaders and source of a run makes it hard to repeat, and the cure.

Each is told by the manifest alone. It comes from strangers, so any value may be of any type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from manifest import catalogue, entropy
from manifest.canonical import Json
from manifest.determinism.explaining import Explanation, explain, explained
from manifest.models import Doubt, Manifest, Reach
from manifest.unrepeated import devices

RANDOMNESS: Final = "https://docs.pytorch.org/docs/stable/notes/randomness.html"
_WORKERS: Final = (
    "https://docs.pytorch.org/docs/stable/data.html#randomness-in-multi-process-data-loading"
)
_HASH_SEED: Final = "https://docs.python.org/3/using/cmdline.html#envvar-PYTHONHASHSEED"

SEED_ALL: Final = "call `manifest.determinism.seed_everything(0)` first in the program"

_SEEDING_TORCH: Final = ("torch.manual_seed", "torch.random.manual_seed")


class _Setting(NamedTuple):
    """A setting with which equal programs may compute other bits."""

    key: str
    is_risk: Callable[[Json], bool]
    state: Reach
    why: str
    fix: str
    is_of_accelerators: bool = False


_SETTINGS: Final = (
    _Setting(
        "fp32_precision.cuda.conv",
        lambda value: value == "tf32",
        "elsewhere",
        "convolutions round to TF32 where the accelerator has it, and compute in full elsewhere",
        '`torch.backends.cudnn.conv.fp32_precision = "ieee"`',
        is_of_accelerators=True,
    ),
    *(
        _Setting(
            f"torch._inductor.config.{name}",
            lambda value: value is True,
            "approximate",
            "`torch.compile` times kernels where its cache is cold, and takes the fastest",
            f"leave `torch._inductor.config.{name}` and `max-autotune` modes off",
        )
        for name in (
            "max_autotune",
            "max_autotune_gemm",
            "max_autotune_pointwise",
            "coordinate_descent_tuning",
        )
    ),
)


def lints(manifest: Manifest) -> Iterator[Doubt]:
    """Name what a manifest tells, without what only a replay's plan can know."""
    for rule in (_unseeded, _hash_seed, _warnings, _settings, _threads, _loaders, _source):
        yield from rule(manifest)


def has_trained(manifest: Manifest) -> bool:
    """Whether a process of the run made a training step."""
    return any(each.trail is not None and each.trail.steps for each in manifest.processes.values())


def _unseeded(manifest: Manifest) -> Iterator[Doubt]:
    if not has_trained(manifest) or manifest.mode != "run":
        return
    seeds = manifest.sections.get("seeds", {})
    calls = _names(seeds.get("calls"))
    yield from _unseeded_own(manifest, calls)
    draws = seeds.get("draws")
    drawn = draws if isinstance(draws, dict) else {}
    if drawn.get("torch") and not any(call.endswith(_SEEDING_TORCH) for call in calls):
        why = "PyTorch's generator was never seeded, and starts from entropy of the system"
        yield _given_again("seeds of PyTorch", why, "certain", fix=SEED_ALL)
    elif _is_above(drawn.get("torch"), 1):
        why = "a generator of PyTorch was seeded from the system, as `torch.seed()` does"
        yield _given_again("seeds of PyTorch", why, "certain", fix="`manual_seed(0)` instead")
    # A process that is spawned loads NumPy anew, which draws once.
    if _is_above(drawn.get("numpy.random"), 1) and not _spawns(manifest):
        why = "generators of NumPy were made without a seed, as `default_rng()` does"
        yield _given_again("seeds of NumPy", why, "certain", fix="`np.random.default_rng(0)`")


def _unseeded_own(manifest: Manifest, calls: list[str]) -> Iterator[Doubt]:
    kind = "random.Random"
    seeded = {call.removesuffix(f" {kind}") for call in calls if call.endswith(f" {kind}")}
    made = {
        name.removeprefix(f"{kind} ")
        for name in manifest.sections.get("generators", {})
        if name.startswith(f"{kind} ")
    }
    if seeded - made:  # one may have been seeded elsewhere than where it was made
        return
    for place in sorted(made - seeded):
        why = "a `random.Random()` was made without a seed"
        yield _given_again("seeds of random", why, "certain", fix="`random.Random(0)`", place=place)


def _hash_seed(manifest: Manifest) -> Iterator[Doubt]:
    seeds = manifest.sections.get("seeds", {})
    try:
        own = str(entropy.hash_seed(bytes.fromhex(str(seeds.get("entropy")))))
    except ValueError:
        return
    if manifest.mode == "run" and seeds.get("hash_seed") == own and has_trained(manifest):
        why = "PYTHONHASHSEED was not set, so sets of strings have another order in each process"
        fix = "start with `PYTHONHASHSEED=0`, or sort before iterating over a set"
        yield _given_again("hash seed", why, "possible", fix=fix, source=_HASH_SEED)


def _warnings(manifest: Manifest) -> Iterator[Doubt]:
    warned = manifest.sections.get("training", {}).get("nondeterministic")
    for name, place in sorted(warned.items()) if isinstance(warned, dict) else ():
        yield _of_operation(explained(name, place=place if isinstance(place, str) else ""))
    if manifest.error is not None and (refused := explain(manifest.error)) is not None:
        yield _of_operation(refused)


def _of_operation(found: Explanation) -> Doubt:
    cause = f": {found.cause}" if found.cause else ""
    return Doubt(
        what=found.operation,
        state="approximate",
        why=f"PyTorch complained of `{found.name}`{cause}",
        impact="possible",
        place=found.place,
        fix=found.cure,
        source=found.source,
    )


def _settings(manifest: Manifest) -> Iterator[Doubt]:
    settings = manifest.sections.get("settings", {})
    has_accelerator = bool(devices(manifest) - {"cpu"})
    for known in _SETTINGS:
        is_risk = known.key in settings and known.is_risk(settings[known.key])
        if not is_risk or (known.is_of_accelerators and not has_accelerator):
            continue
        entry = catalogue.lookup("settings", known.key)
        yield Doubt(
            what=known.key,
            state=known.state,
            why=known.why,
            impact="possible",
            fix=known.fix,
            source=entry.source if entry is not None else "",
        )


def _threads(manifest: Manifest) -> Iterator[Doubt]:
    given = manifest.sections.get("environment", {}).get("env.OMP_DYNAMIC")
    if isinstance(given, str) and given.strip().lower() in ("1", "true"):
        entry = catalogue.lookup("environment", "env.OMP_DYNAMIC")
        yield Doubt(
            what="OMP_DYNAMIC",
            state="approximate",
            why="the load of the machine decides how many threads compute, and so how sums round",
            impact="certain",
            fix="`unset OMP_DYNAMIC`",
            source=entry.source if entry is not None else "",
        )


def _loaders(manifest: Manifest) -> Iterator[Doubt]:
    for loader in manifest.sections.get("loaders", {}).values():
        if not isinstance(loader, dict) or not _is_above(loader.get("num_workers"), 1):
            continue
        made = loader.get("made")
        place = made if isinstance(made, str) else ""
        if loader.get("in_order") is False:
            yield Doubt(
                what="DataLoader",
                state="approximate",
                why="`in_order=False` gives the batch of whichever worker is first",
                impact="certain",
                place=place,
                fix="leave `in_order` as it is",
                source="https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.DataLoader",
            )
        if loader.get("dataset_has_rng") is True and loader.get("worker_init_fn") is None:
            yield Doubt(
                what="DataLoader",
                state="suspect",
                why="the dataset holds a generator: each worker has a copy, and all draw the same",
                impact="certain",
                place=place,
                fix="seed it in `worker_init_fn` from `torch.initial_seed()`",
                source=_WORKERS,
            )


def _source(manifest: Manifest) -> Iterator[Doubt]:
    code = manifest.sections.get("code", {})
    if code.get("git.dirty") is True:
        yield Doubt(
            what="uncommitted code",
            state="elsewhere",
            why="the code is not that of its commit; what differs is kept with this run alone",
            impact="possible",
            fix="`git commit` before what others are to repeat",
        )
    origins = manifest.sections.get("environment", {}).get("packages.origins")
    folders = [
        name
        for name, origin in sorted(origins.items() if isinstance(origins, dict) else ())
        if isinstance(origin, dict) and origin.get("editable") is True and name != _OWN
    ]
    if folders:
        yield Doubt(
            what="packages",
            state="elsewhere",
            why=f"installed from folders, which no version describes: {', '.join(folders[:5])}",
            impact="possible",
            fix="install a release, or a commit: `pip install 'name @ git+https://…@<commit>'`",
        )


_OWN: Final = "manifest-replay"


def _given_again(
    what: str, why: str, impact: str, *, fix: str, place: str = "", source: str = RANDOMNESS
) -> Doubt:
    return Doubt.model_validate(
        {
            "what": what,
            "state": "given again",
            "why": why,
            "impact": impact,
            "place": place,
            "fix": fix,
            "source": source,
        }
    )


def _names(value: Json) -> list[str]:
    return list(value) if isinstance(value, dict) else []


def _is_above(value: Json, least: int) -> bool:
    return isinstance(value, int) and value > least


def _spawns(manifest: Manifest) -> bool:
    loaders = manifest.sections.get("loaders", {}).values()
    methods = {each.get("multiprocessing_context") for each in loaders if isinstance(each, dict)}
    return bool(methods & {"spawn", "forkserver"}) or len(manifest.processes) > 1
