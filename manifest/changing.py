"""What a replay does otherwise on purpose: "the same run, but with one thread"."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from manifest import catalogue, settings
from manifest.canonical import Json
from manifest.environment.redaction import redact_value
from manifest.errors import UnknownChange

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What they name is loaded or run in place of the program that was recorded.
_REFUSED: Final = re.compile(r"(?:LD|DYLD|MANIFEST)_.*|PATH|PYTHON(?:PATH|HOME|STARTUP|HASHSEED)")
_HASH_SEEDS: Final = range(2**32)
_OWN: Final = ("entropy", "hash_seed", "python")
_MOST_MATCHES: Final = 3


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs from the recorded run because someone asked for it."""

    variables: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Json] = field(default_factory=dict)
    is_entropy_fresh: bool = False
    hash_seed: int | None = None
    python: str | None = None
    arguments: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.described())

    def described(self) -> tuple[str, ...]:
        """Each change as it was asked for; a value that may be a secret is not shown."""
        said = [f"env.{name}={_shown(name, value)}" for name, value in self.variables.items()]
        said += [f"{key}={value}" for key, value in self.settings.items()]
        if self.is_entropy_fresh:
            said.append("entropy=fresh")
        if self.hash_seed is not None:
            said.append(f"hash_seed={self.hash_seed}")
        if self.python is not None:
            said.append(f"python={self.python}")
        said += [f"argument {_shown('argument', argument)}" for argument in self.arguments]
        return tuple(said)


def read_changes(pairs: Sequence[str], *, arguments: Sequence[str] = ()) -> Changes:
    """Read what a user typed.

    Args:
        pairs: ``key=value`` each: ``env.NAME``, a setting of the catalogue, ``entropy=fresh``,
            ``hash_seed`` or ``python``.
        arguments: Further arguments for the program.

    Raises:
        UnknownChange: There is no such key, or it cannot have this value.
    """
    variables: dict[str, str] = {}
    changed: dict[str, Json] = {}
    own: dict[str, str] = {}
    for pair in pairs:
        key, is_pair, text = pair.partition("=")
        if not is_pair:
            raise UnknownChange(f"expected key=value, found {pair!r}")
        if key.startswith("env."):
            name = key.removeprefix("env.")
            variables[name] = _variable(name, text)
        elif key in _OWN:
            own[key] = text
        else:
            changed[key] = _setting(key, text)
    return Changes(
        variables=variables,
        settings=changed,
        is_entropy_fresh=_is_fresh(own.get("entropy")),
        hash_seed=_hash_seed(own.get("hash_seed")),
        python=_python(own.get("python")),
        arguments=tuple(arguments),
    )


def _variable(name: str, value: str) -> str:
    if not _VARIABLE.fullmatch(name) or "\0" in value:
        raise UnknownChange(f"env.{name}: expected the name of a variable and a value for it")
    if name == "PYTHONHASHSEED":
        raise UnknownChange("env.PYTHONHASHSEED: write hash_seed=N instead")
    if _REFUSED.fullmatch(name):
        raise UnknownChange(
            f"env.{name} decides which code is run, so it would not be the recorded program; "
            f"`export {name}=…` before `manifest run` records one with it"
        )
    return value


def _setting(key: str, text: str) -> Json:
    known = {each.key: each for each in catalogue.settings_of("process") if each.set}
    if key not in known:
        near = difflib.get_close_matches(key, [*known, *_OWN], n=_MOST_MATCHES, cutoff=0.5)
        near += [name for name in known if name.endswith(f".{key}")][:_MOST_MATCHES]
        said = ", ".join(dict.fromkeys(near)) or "env.NAME, entropy, hash_seed, python"
        raise UnknownChange(f"there is no setting '{key}' to set; perhaps: {said}")
    value = _literal(text)
    if known[key].kind == "number" and type(value) is int:
        value = float(value)
    if (reason := settings.refusal(key, value)) is not None:
        raise UnknownChange(f"{key}={text}: {reason}")
    return value


def _literal(text: str) -> Json:
    if text.lower() in ("none", "null"):
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"] if "\n" not in text else text
    except tomllib.TOMLDecodeError:
        return text  # a bare word, such as torch.float64


def _is_fresh(text: str | None) -> bool:
    if text not in (None, "fresh"):
        raise UnknownChange(f"entropy={text}: expected entropy=fresh")
    return text is not None


def _hash_seed(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isdecimal() and text.isascii() and len(text) <= 10 and int(text) in _HASH_SEEDS):
        raise UnknownChange(f"hash_seed={text}: expected a number from 0 to {_HASH_SEEDS[-1]}")
    return int(text)


def _python(text: str | None) -> str | None:
    if text is None:
        return None
    path = os.path.abspath(os.path.expanduser(text))
    if not (os.path.isfile(path) and os.access(path, os.X_OK)):
        raise UnknownChange(f"python={text}: there is no program at that place")
    return path


def _shown(name: str, value: str) -> Json:
    kept = redact_value(name, value, b"")
    return kept if isinstance(kept, str) else "<redacted>"
