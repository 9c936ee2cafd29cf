"""The plan of a replay: what can be put back, what cannot, and what that does to the bits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from manifest import catalogue
from manifest.environment import asked, hardware, packages
from manifest.filefacts import content_digest, is_of_run
from manifest.models import Impact, Manifest

State = Literal["restorable", "equal already", "approximate", "impossible"]

_PROBE = "import json, platform, sys; print(json.dumps([platform.python_version(), sys.path]))"
_PROBE_TIMEOUT_SECONDS = 60


class PlanItem(BaseModel):
    """One thing that a replay needs."""

    model_config = ConfigDict(frozen=True)

    what: str
    state: State
    why: str
    impact: Impact


class Plan(BaseModel):
    """Everything that a replay needs, and whether it is to be had."""

    model_config = ConfigDict(frozen=True)

    items: tuple[PlanItem, ...]

    @property
    def blocking(self) -> tuple[PlanItem, ...]:
        """What cannot be put back and can change the bits: a strict replay stops at these."""
        return tuple(
            item
            for item in self.items
            if item.state == "impossible" and item.impact in ("certain", "possible")
        )


def make_plan(manifest: Manifest, *, in_place: bool) -> Plan:
    """Look at what a replay of this run needs, without running anything of the program."""
    items: list[PlanItem] = []
    for part in (_command, _randomness, _interpreter, _hardware, _ranks, _variables, _inputs):
        items.extend(part(manifest))
    items.extend(_source(manifest, in_place=in_place))
    return Plan(items=tuple(items))


def recorded_executable(manifest: Manifest) -> str | None:
    """The interpreter or program to start, if it is still there."""
    command = manifest.sections.get("command", {})
    recorded = command.get("executable")
    if isinstance(recorded, str) and os.access(recorded, os.X_OK):
        return recorded
    argv = command.get("argv") or [None]
    return shutil.which(argv[0]) if isinstance(argv[0], str) else None


def _command(manifest: Manifest) -> Iterator[PlanItem]:
    command = manifest.sections.get("command", {})
    argv = command.get("argv")
    if not isinstance(argv, list) or not argv:
        yield _impossible("command", "no command was recorded: a notebook or a shell, perhaps")
        return
    hidden = [index for index, argument in enumerate(argv) if not isinstance(argument, str)]
    if hidden:
        yield _impossible(
            "command", f"argument {hidden[0]} looked like a secret and was not stored"
        )
    elif argv[-1] == "-" and command.get("kind") == "code":
        yield _impossible("command", "the program was read from standard input")
    else:
        yield PlanItem(
            what="command",
            state="restorable",
            why="the same arguments, in a fresh process",
            impact="certain",
        )


def _randomness(manifest: Manifest) -> Iterator[PlanItem]:
    seeds = manifest.sections.get("seeds", {})
    if manifest.mode == "run":
        why = "unseeded sources and the hash seed start from the recorded entropy"
        yield PlanItem(what="randomness", state="restorable", why=why, impact="certain")
    else:
        why = "generator states are put back where `record()` captured them"
        yield PlanItem(what="randomness", state="restorable", why=why, impact="certain")
        if not str(seeds.get("hash_seed", "")).isdigit():
            yield PlanItem(
                what="hash seed",
                state="approximate",
                why="PYTHONHASHSEED was not set, so the order of sets of strings was random; "
                "`manifest run` pins it",
                impact="possible",
            )
    places = seeds.get("os_entropy_uses") or {}
    if places and not seeds.get("pinned_os_entropy"):
        yield PlanItem(
            what="os entropy",
            state="approximate",
            why=f"{next(iter(places))} drew from the operating system, which is not repeated; "
            "record with --pin-entropy to repeat it",
            impact="possible",
        )


def _interpreter(manifest: Manifest) -> Iterator[PlanItem]:
    executable = recorded_executable(manifest)
    if executable is None:
        argv = manifest.sections.get("command", {}).get("argv") or ["?"]
        yield _impossible("interpreter", f"there is no program '{argv[0]}' here any more")
        return
    recorded = manifest.sections.get("environment", {}).get("python.version")
    found = _probe(executable)
    if recorded is None or found is None:
        return
    version, paths = found
    if version == recorded:
        why = f"Python {version}"
        yield PlanItem(what="interpreter", state="equal already", why=why, impact="certain")
    else:
        yield _impossible("interpreter", f"recorded with Python {recorded}, here is {version}")
    yield from _packages(manifest, paths)


def _packages(manifest: Manifest, paths: list[str]) -> Iterator[PlanItem]:
    recorded = manifest.sections.get("packages", {})
    if not recorded:
        return
    present = packages.capture_packages(paths)
    changed = [name for name in recorded if present.get(name) != recorded[name]]
    for name in changed:
        found = present.get(name, "not installed")
        yield PlanItem(
            what=f"package {name}",
            state="impossible",
            why=f"recorded {recorded[name]}, here {found}",
            impact=_impact("packages", name),
        )
    if not changed:
        why = f"all {len(recorded)} have the recorded versions"
        yield PlanItem(what="packages", state="equal already", why=why, impact="certain")


def _hardware(manifest: Manifest) -> Iterator[PlanItem]:
    recorded = manifest.sections.get("hardware", {})
    present = hardware.capture_hardware()
    changed = [key for key in recorded if key in present and present[key] != recorded[key]]
    for key in changed:
        impact = _impact("hardware", key)
        if impact in ("certain", "possible"):
            why = f"recorded {_short(recorded[key])}, here {_short(present[key])}"
            yield PlanItem(what=key, state="impossible", why=why, impact=impact)
    if recorded and not changed:
        why = f"{recorded.get('cpu.model', 'the same machine')}"
        yield PlanItem(what="hardware", state="equal already", why=why, impact="certain")


def _ranks(manifest: Manifest) -> Iterator[PlanItem]:
    environment = manifest.sections.get("environment", {})
    count = environment.get("launcher.world_size")
    if manifest.mode == "record" and isinstance(count, int) and count > 1:
        yield _ranks_that_recorded_themselves(manifest, count)
    machines = environment.get("launcher.nodes")
    if isinstance(machines, int) and machines > 1:
        yield _impossible(
            "ranks",
            f"they ran on {machines} machines, and a replay starts those of one; start it on all "
            "at once, with --best-effort",
        )


def _ranks_that_recorded_themselves(manifest: Manifest, count: int) -> PlanItem:
    found = sum(process.rank is not None for process in manifest.processes.values())
    if manifest.sections.get("command", {}).get("ranks") != count:
        return _impossible(
            "ranks",
            f"{found} of {count} ranks recorded themselves, and what started them is not known; "
            "`manifest run -- torchrun …` records and repeats all of them",
        )
    if found != count:
        return _impossible(
            "ranks",
            f"{found} of {count} ranks recorded themselves, so the others cannot be put back where "
            "they were; call `record()` in each",
        )
    why = f"all {count} are started again by the launcher that started them"
    return PlanItem(what="ranks", state="restorable", why=why, impact="certain")


def _variables(manifest: Manifest) -> Iterator[PlanItem]:
    recorded = manifest.sections.get("environment", {})
    reasons = asked.not_restored(recorded, os.environ)
    for name, reason in reasons.items():
        yield PlanItem(
            what=f"variable {name}",
            state="impossible",
            why=f"the program asked for it; {reason}: set it as it was, then replay",
            impact="possible",
        )
    restored = sum(key.startswith("asked.") for key in recorded) - len(reasons)
    if restored > 0:
        yield PlanItem(
            what="variables",
            state="restorable",
            why=f"{restored} that the program asked for by name",
            impact="certain",
        )


def _inputs(manifest: Manifest) -> Iterator[PlanItem]:
    recorded = manifest.sections.get("inputs", {})
    started_at = datetime.fromisoformat(manifest.started_at)
    kept = 0
    for path, facts in recorded.items():
        if not isinstance(facts, dict) or "missing" in facts:
            continue
        if is_of_run(facts, round(started_at.timestamp() * 1e6)):
            continue
        problem = None if "blob" in facts else _changed(path, facts)
        kept += problem is None
        if problem is not None:
            yield _impossible(f"input {path}", problem)
    if kept:
        why = f"{kept} are as recorded"
        yield PlanItem(what="inputs", state="equal already", why=why, impact="certain")


def _changed(path: str, facts: dict[str, Any]) -> str | None:
    try:
        status = os.stat(path)
    except OSError as error:
        return f"cannot be read any more: {error.strerror}"
    if status.st_size != facts.get("size"):
        return f"had {facts.get('size')} bytes, has {status.st_size}"
    if status.st_mtime_ns // 1000 == facts.get("mtime_us"):
        return None
    if facts.get("digest") is not None and content_digest(Path(path)) == facts["digest"]:
        return None
    return "was changed since"


def _source(manifest: Manifest, *, in_place: bool) -> Iterator[PlanItem]:
    files = manifest.sections.get("code", {}).get("files") or {}
    if not in_place:
        why = f"{len(files)} files from the run directory, in a folder of its own"
        yield PlanItem(what="source", state="restorable", why=why, impact="certain")
        return
    root = Path(manifest.sections["command"]["root"])
    changed = [name for name, digest in files.items() if not _is_same(root / name, digest)]
    for name in changed:
        yield _impossible(f"source {name}", "was changed since; leave --in-place away")
    if not changed:
        why = f"{len(files)} files are as recorded"
        yield PlanItem(what="source", state="equal already", why=why, impact="certain")


def _is_same(path: Path, digest: str) -> bool:
    from manifest.canonical import digest_bytes

    try:
        return digest_bytes(path.read_bytes()) == digest
    except OSError:
        return False


def _probe(executable: str) -> tuple[str, list[str]] | None:
    if "python" not in os.path.basename(executable):
        return None
    environ = {k: v for k, v in os.environ.items() if not k.startswith("MANIFEST_")}
    try:
        answer = subprocess.run(
            [executable, "-c", _PROBE],
            env=environ,
            capture_output=True,
            timeout=_PROBE_TIMEOUT_SECONDS,
            check=True,
        )
        version, paths = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return version, paths


def _impact(section: str, key: str) -> Impact:
    setting = catalogue.lookup(section, key)
    return setting.impact if setting is not None else "unknown"


def _impossible(what: str, why: str) -> PlanItem:
    return PlanItem(what=what, state="impossible", why=why, impact="certain")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
