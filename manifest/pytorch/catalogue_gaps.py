"""List switches of the installed PyTorch that the settings catalogue does not know.

For those who keep the catalogue, after a release of PyTorch: `python -m
manifest.pytorch.catalogue_gaps`. Each name belongs into ``catalogue.toml``: as a setting, or under
``[ignored]`` with the reason why it is none.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator

import torch
from torch.backends import ContextProp

from manifest.catalogue import all_settings, ignored_names

_GETTER = re.compile(r"(_?)(?:get|is)_(\w+?)(?:_enabled)?")
_COMPILER_CONFIGS = (
    "torch._inductor.config",
    "torch._dynamo.config",
    "torch._functorch.config",
)


def unknown_switches() -> list[str]:
    """Names of switches that the catalogue neither reads, nor sets, nor ignores."""
    known = _known_text()
    found = {*_backend_switches(), *_native_switches(), *_changed_compiler_options()}
    return sorted(name for name in found if not re.search(rf"{re.escape(name)}\b", known))


def _known_text() -> str:
    expressions = [text for setting in all_settings() for text in (setting.read, setting.set)]
    return "\n".join([*expressions, *ignored_names()])


def _backend_switches() -> Iterator[str]:
    """Properties of `torch.backends` and its modules, such as ``torch.backends.cudnn.enabled``."""
    for found in pkgutil.walk_packages(torch.backends.__path__, "torch.backends."):
        if found.name.startswith("torch.backends._"):
            continue
        module = importlib.import_module(found.name)
        for name, value in vars(type(module)).items():
            if isinstance(value, ContextProp):
                yield f"{found.name}.{name}"


def _native_switches() -> Iterator[str]:
    """Getters of `torch._C` that have a setter, such as ``torch._C._get_nnpack_enabled``."""
    names = set(dir(torch._C))
    for name in names:
        getter = _GETTER.fullmatch(name)
        if getter is None:
            continue
        start, what = getter.groups()
        setters = {f"{start}set_{what}", f"{start}set_{what}_enabled", f"{start}set_sdp_use_{what}"}
        if setters & names:
            # What `torch` exports itself is better known by that name.
            yield f"torch.{name}" if hasattr(torch, name) else f"torch._C.{name}"


def _changed_compiler_options() -> Iterator[str]:
    """Options of `torch.compile` that this process has away from their defaults."""
    for module_name in _COMPILER_CONFIGS:
        config = importlib.import_module(module_name)
        for line in config.codegen_config().splitlines():
            yield line.partition(" = ")[0]


def main() -> int:
    """Print the gaps, one a line.

    Returns:
        The exit code: 1 if there are any.
    """
    gaps = unknown_switches()
    sys.stdout.write(f"{len(gaps)} switches of torch {torch.__version__} are not known\n")
    sys.stdout.writelines(f"{name}\n" for name in gaps)
    return 1 if gaps else 0


if __name__ == "__main__":
    sys.exit(main())
