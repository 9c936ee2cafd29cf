"""Values of a manifest and its command, each on one line."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Final

from manifest.canonical import Json, digest_bytes
from manifest.models import Manifest

NOT_CAPTURED: Final = "not captured"

_FIRST: Final = {
    "generators": ("kind", "seed", "offset", "digest"),
    "loaders": ("dataset", "batch_size", "num_workers", "sampler", "place"),
    "training": ("class", "lr", "weight_decay"),
    "settings": (
        "torch.num_threads",
        "torch.deterministic.mode",
        "torch.default_dtype",
        "torch.backends.cudnn.benchmark",
        "torch.backends.cudnn.deterministic",
        "fp32_precision.cuda.matmul",
        "fp32_precision.cuda.conv",
    ),
    "packages": ("torch", "numpy", "torchvision", "lightning", "transformers", "accelerate"),
    "environment": ("python.version", "python.implementation", "python.flags"),
    "hardware": ("gpu.0.name", "cpu.model", "cpu.count", "memory_bytes", "os.kernel"),
}
"""What people look for, shown before the rest of a section, or of a map in it."""

_DIGEST_DIGITS = 12


def describe(value: Json) -> str:
    """Say a value as a person would; not yet made harmless, not yet cut."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return _tagged(value) or _mapping(value)
    if isinstance(value, Sequence):
        return "[" + ", ".join(_inner(item) for item in value) + "]"
    return repr(value)


def short_digest(digest: str) -> str:
    """The start of a digest, enough to tell two apart by eye."""
    algorithm, colon, digits = digest.partition(":")
    return f"{algorithm}:{digits[:_DIGEST_DIGITS]}…" if colon and len(digits) > 16 else digest


def shown(text: str) -> str:
    r"""Make any text harmless, with what was in it still visible.

    Example:
        >>> shown("red \x1b[31m")
        'red \\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def capitalized(text: str) -> str:
    """Give words a capital; a name that comes first keeps its own letters."""
    first = text.partition(" ")[0].rstrip(",:;")
    return text[:1].upper() + text[1:] if first.isalpha() else text


def as_sentence(text: str) -> str:
    """Give words a capital and a full stop."""
    return capitalized(text) + ("" if not text or text.endswith((".", "!", "?")) else ".")


def command_line(manifest: Manifest) -> str:
    """The command of a run as it was typed; what was redacted is said."""
    argv = manifest.sections.get("command", {}).get("argv") or []
    words = [word if isinstance(word, str) else f"<{describe(word)}>" for word in argv]
    return " ".join(word if word.startswith("<") else shlex.quote(word) for word in words)


def shortened_command(command: str) -> str:
    """A command line without the folders of its program."""
    program, space, rest = command.partition(" ")
    return program.rpartition("/")[2] + space + rest if program.startswith("/") else command


def in_reading_order(section: str, values: Mapping[str, Json]) -> list[tuple[str, Json]]:
    """The pairs of a section: what people look for, then the others, then what is not there."""
    first = _FIRST.get(section, ())

    def place(pair: tuple[str, Json]) -> tuple[bool, int, str]:
        key, value = pair
        return is_absent(value), first.index(key) if key in first else len(first), key

    return sorted(values.items(), key=place)


def is_absent(value: Json) -> bool:
    """Whether a value says that there is none."""
    return isinstance(value, Mapping) and value.keys() == {"$absent"}


def _text(value: str) -> str:
    is_ambiguous = not value or value != value.strip() or _reads_as_another_type(value)
    return json.dumps(value, ensure_ascii=False) if is_ambiguous else short_digest(value)


def _reads_as_another_type(value: str) -> bool:
    if value in ("True", "False", "None", NOT_CAPTURED, "not set"):
        return True
    try:
        float(value)
    except ValueError:
        return False
    return True


def _tagged(value: Mapping[str, Json]) -> str:
    if len(value) != 1:
        return ""
    (tag, content), *_ = value.items()
    match tag:
        case "$absent":
            return "not set"
        case "$redacted":
            return f"redacted ({str(content)[:8]})"
        case "$failed":
            return f"could not be read: {content}"
        case "$float" | "$int" | "$repr":
            return str(content)
        case "$bytes":
            return _bytes(content)
    return ""


def _bytes(content: Json) -> str:
    try:
        data = base64.b64decode(content, validate=True)
    except (TypeError, ValueError):
        return "bytes that cannot be read"
    return f"{len(data)} bytes, {short_digest(digest_bytes(data))}"


def _mapping(value: Mapping[str, Json]) -> str:
    return ", ".join(f"{key}: {_inner(item)}" for key, item in value.items()) or "empty"


def _inner(value: Json) -> str:
    is_nested = isinstance(value, Mapping) and not _tagged(value)
    return "{" + describe(value) + "}" if is_nested else describe(value)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
