"""The machine: processors, accelerators, system, and what of them the program is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from manifest.canonical import ABSENT, Json
from manifest.environment import given, hardware
from manifest.needs.items import PlanItem, Wish, impact_of, item, shortened
from manifest.recorded import Recorded

_GIVEN: Final[frozenset[str]] = frozenset(("cpu.affinity_count",))
"""Decided by the processors that the replay is given, which is an item of its own."""


def machine(recorded: Recorded, wish: Wish) -> Iterator[PlanItem]:
    """What differs of the hardware and the system, and can change the bits."""
    present = hardware.capture_hardware()
    if any(key.startswith("gpu.") for key in recorded.hardware):
        present |= hardware.capture_accelerators()
    yield from compare(recorded, present)


def compare(recorded: Recorded, present: Mapping[str, Json]) -> Iterator[PlanItem]:
    """The same, against hardware that is known already."""
    known = recorded.hardware
    passed_over = _GIVEN
    if are_accelerators_hidden(recorded, present):
        why = "there were none; those here are hidden from the program"
        yield item("accelerators", "restorable", why, "certain")
    if not _used_accelerators(recorded):
        passed_over |= {key for key in known if key.startswith("gpu.")}
    changed = sorted(key for key in known.keys() - passed_over if _differs(key, known, present))
    consequential = [k for k in changed if impact_of("hardware", k) in ("certain", "possible")]
    for key in consequential:
        why = f"recorded {shortened(_said(known[key]))}, here {_said(present.get(key, ABSENT))}"
        yield item(key, "impossible", shortened(why, most=160), impact_of("hardware", key))
    if known and not consequential:
        why = shortened(known.get("cpu.model", "the same machine"))
        yield item("hardware", "equal already", why, "certain")


def are_accelerators_hidden(recorded: Recorded, present: Mapping[str, Json]) -> bool:
    """Whether a program that may choose finds accelerators here, where it found none."""
    return (
        recorded.hardware.get("gpu.driver") == ABSENT
        and present.get("gpu.driver", ABSENT) != ABSENT
        and "env.CUDA_VISIBLE_DEVICES" not in _set_variables(recorded)
    )


def processors(recorded: Recorded, wish: Wish) -> Iterator[PlanItem]:
    """The processors that the program may use, which libraries count."""
    wanted = given.processors(recorded.environment)
    if not wanted:
        return
    fitting, there = given.fitting_processors(recorded.environment), given.available_processors()
    impact = impact_of("environment", "process.affinity")
    if not fitting:
        why = f"the program could use {len(wanted)}, here are {len(there)}"
        yield item("processors", "impossible", why, impact)
    elif fitting != wanted:
        why = f"{given.ranges(fitting)} instead of {given.ranges(wanted)}, as many as recorded"
        yield item("processors", "restorable", why, impact)
    elif fitting == there:
        yield item("processors", "equal already", given.ranges(wanted), impact)
    else:
        yield item("processors", "restorable", f"only {given.ranges(wanted)}", impact)


def limits(recorded: Recorded, wish: Wish) -> Iterator[PlanItem]:
    """The mask of file modes, and how many files may be open."""
    mask, files = given.mask(recorded.environment), recorded.environment.get("given.open_files")
    if mask is not None and mask != int(given.umask(), 8):
        yield item("umask", "restorable", f"{mask:04o}", "informational")
    here = given.open_files()
    if isinstance(files, int) and files != here:
        why = f"{files} could be open, here {here} can; `ulimit -n` sets it"
        yield item("open files", "approximate", why, "informational")


def _used_accelerators(recorded: Recorded) -> bool:
    # Read only where CUDA was started; without settings of PyTorch nothing is known.
    is_known = "torch.num_threads" in recorded.settings
    return not is_known or "torch.cuda.device_count" in recorded.settings


def _set_variables(recorded: Recorded) -> set[str]:
    return {key for key, value in recorded.environment.items() if value != ABSENT}


def _differs(key: str, known: Mapping[str, Json], present: Mapping[str, Json]) -> bool:
    if key in present:
        return bool(present[key] != known[key])
    return key == "gpu.count"  # that the driver is not there says nothing of each device


def _said(value: Json) -> str:
    return "none" if value == ABSENT else str(value)
