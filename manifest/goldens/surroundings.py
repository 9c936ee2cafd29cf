"""What of the surroundings decides the bits of a training: kept in a golden, and compared with it.

Left out is what is as PyTorch and Python come, so that the text stays short: what a golden does not
say was at its default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from manifest import catalogue
from manifest.canonical import ABSENT, Json
from manifest.describing import describe
from manifest.diffing import diff_sections
from manifest.environment.hardware import capture_accelerators, capture_hardware
from manifest.environment.interpreter import capture_interpreter
from manifest.environment.variables import capture_variables
from manifest.findings import Sections
from manifest.models import Difference
from manifest.settings import capture_settings

_LEFT_OUT: Final = frozenset(
    {
        "cpu.affinity_count",  # of which `torch.num_threads` is made, as of the next
        "cpu.count",
        "python.hash_probe",
        "torch.config",  # in words, what `torch.git_version` names
        "torch.num_interop_threads",
        "torch.parallel_info",
    }
)
_KEPT: Final[Mapping[str, tuple[str, ...]]] = {
    "environment": ("env.", "python.version"),
    "hardware": ("cpu.isa", "cpu.model", "gpu.", "os.libc", "os.machine"),
    "settings": ("",),
}
"""How the names of keys begin that are kept."""

_IDLE: Final = (None, "", ABSENT)


def surroundings() -> dict[str, dict[str, Json]]:
    """What can change the bits here, where it is not as it comes."""
    captured = {
        "environment": capture_interpreter() | capture_variables(os.environ),
        "hardware": capture_hardware() | capture_accelerators(),
        "settings": capture_settings(),
    }
    return {
        section: {key: value for key, value in values.items() if _is_kept(section, key, value)}
        for section, values in captured.items()
    }


def changed(before: Sections, after: Sections) -> tuple[Difference, ...]:
    """What differs between two of them and can change the bits, the gravest first."""
    found = diff_sections(_filled(before, after), _filled(after, before))
    return tuple(each for each in found if each.impact in ("certain", "possible"))


def _is_kept(section: str, key: str, value: Json) -> bool:
    if key in _LEFT_OUT or not key.startswith(_KEPT[section]) or value in _IDLE:
        return False
    known = catalogue.lookup(section, key)
    if known is None or known.impact not in ("certain", "possible"):
        return False
    is_variable = key.startswith("env.")
    if is_variable and known.impact == "possible":  # the home, the locale
        return False
    return describe(value).lower() != known.default.lower()


def _filled(sections: Sections, other: Sections) -> Sections:
    """What is said, and the defaults of what only the other says."""
    return {
        **sections,
    } | {
        name: {
            **{key: _default(name, key) for key in other.get(name, {})},
            **sections.get(name, {}),
        }
        for name in _KEPT
    }


def _default(section: str, key: str) -> Json:
    known = catalogue.lookup(section, key)
    return known.default if known is not None and known.default else ABSENT
