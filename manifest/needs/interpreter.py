"""The interpreter, the packages that it finds, and the locale and time zone that it is in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from manifest.environment import editable, packages, variables
from manifest.needs import program
from manifest.needs.items import PlanItem, Wish, impact_of, impossible, item, shortened
from manifest.recorded import Recorded

_PROBE: Final = (
    "import json, locale, sys, time;"
    "print(json.dumps([sys.version.split()[0], sys.path, locale.setlocale(locale.LC_ALL, None),"
    " list(time.tzname)]))"
)
_PROBE_TIMEOUT_SECONDS: Final = 60
_OF_PLACE: Final = {"process.locale": "locale", "process.time_zone": "time zone"}


@dataclass(frozen=True, slots=True)
class Found:
    """What an interpreter says of itself."""

    version: str
    paths: list[str]
    places: dict[str, object]


def interpreter(recorded: Recorded, wish: Wish) -> Iterator[PlanItem]:
    """The interpreter, its packages and where it believes to be."""
    path = program.executable(recorded, wish)
    if path is None:
        argv = recorded.command.arguments or ["?"]
        yield impossible("interpreter", f"there is no program '{shortened(argv[0])}' here any more")
        return
    if wish.changes.python is not None:
        why = f"{wish.changes.python}, with the packages that it has, on purpose"
        yield item("interpreter", "changed", why, "certain")
        return
    version = recorded.environment.get("python.version")
    if version is None:
        return
    if wish.is_rebuilt:
        yield item(
            "interpreter", "restorable", f"Python {version}, in a new environment", "certain"
        )
        yield from _packages(recorded, [], is_rebuilt=True)
        return
    if not wish.may_run and path != sys.executable and program.is_from_manifest(path, recorded):
        why = f"{path} is not asked for its version before you agree to run what it names"
        yield item("interpreter", "approximate", why, "certain")
        return
    found = probe(path, recorded)
    if found is None:
        return
    if found.version == version:
        yield item("interpreter", "equal already", f"Python {version}", "certain")
    else:
        why = f"recorded with Python {shortened(version)}, here is {found.version}"
        yield impossible("interpreter", why)
    yield from _packages(recorded, found.paths, is_rebuilt=False)
    yield from _edited(recorded, found.paths)
    yield from _places(recorded, found)


def probe(executable: str, recorded: Recorded) -> Found | None:
    """Ask an interpreter for its version, path, locale and time zone, given recorded variables."""
    if not program.is_python_name(executable):
        return None
    restored = variables.restore_variables(recorded.environment, os.environ)
    environ = {k: v for k, v in restored.items() if not k.startswith("MANIFEST_")}
    try:
        answer = subprocess.run(
            [executable, "-c", _PROBE],
            env=environ,
            cwd="/",  # a module of the folder that one stands in must not answer
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_TIMEOUT_SECONDS,
            check=True,
        )
        version, paths, locale, zone = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Found(version, paths, {"process.locale": locale, "process.time_zone": zone})


def _packages(recorded: Recorded, paths: list[str], *, is_rebuilt: bool) -> Iterator[PlanItem]:
    if not recorded.packages:
        return
    present: Mapping[str, str] = packages.capture_packages(paths)
    changed = [n for n, version in recorded.packages.items() if present.get(n) != version]
    if is_rebuilt:
        why = f"{len(changed)} are installed anew, at the recorded versions"
        yield item("packages", "restorable", why, "certain")
        return
    for name in changed:
        yield PlanItem(
            what=f"package {shortened(name)}",
            state="impossible",
            why=f"recorded {shortened(recorded.packages[name])}, "
            f"here {present.get(name, 'not installed')}; --rebuild-env installs it apart",
            impact=impact_of("packages", name),
        )
    if not changed:
        why = f"all {len(recorded.packages)} have the recorded versions"
        yield item("packages", "equal already", why, "certain")


def _edited(recorded: Recorded, paths: list[str]) -> Iterator[PlanItem]:
    # What is installed for editing changes without another version.
    changes = editable.changed_sources(recorded.installed, paths, root=recorded.home)
    for name, change in changes.items():
        yield impossible(f"source of {shortened(name)}", change)


def _places(recorded: Recorded, found: Found) -> Iterator[PlanItem]:
    for key, what in _OF_PLACE.items():
        was, now = recorded.environment.get(key), found.places[key]
        if was is not None and was != now and not isinstance(was, dict):
            why = f"recorded {shortened(was)}, here {shortened(now)}"
            yield item(what, "approximate", why, impact_of("environment", key))
