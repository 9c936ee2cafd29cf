"""One precision of float32 arithmetic in several places: PyTorch has four ways to set it.

A particular setting reads as what it inherits from a more general one, and the older switches are
views of the newer ones.
"""

from __future__ import annotations

from typing import Final

from manifest.canonical import Json
from manifest.findings import Found, Judgement, Pair, catalogued, is_tagged

_PREFIX: Final = "fp32_precision."
_GENERAL: Final = f"{_PREFIX}generic.all"
_PRODUCTS: Final = "torch.float32_matmul_precision"
_OF_PRODUCTS: Final = (f"{_PREFIX}cuda.matmul", f"{_PREFIX}mkldnn.matmul")
_CUDA_LAYERS: Final = (f"{_PREFIX}cuda.conv", f"{_PREFIX}cuda.rnn")
_MKLDNN: Final = tuple(f"{_PREFIX}mkldnn.{kind}" for kind in ("matmul", "conv", "rnn"))
_SEEN_BY: Final = {
    _PRODUCTS: _OF_PRODUCTS,
    "torch.backends.cuda.matmul.allow_tf32": _OF_PRODUCTS[:1],
    "torch.backends.cudnn.allow_tf32": _CUDA_LAYERS,
    "torch.backends.mkldnn.allow_tf32": _MKLDNN,
}
"""What each of the older switches shows."""

_WRITTEN: Final = {
    "highest": ("none", "ieee"),
    "high": ("tf32",),
    "medium": ("tf32", "bf16"),
}
"""What `torch.set_float32_matmul_precision` writes into the settings of matrix products."""


def inherited(found: Found, pair: Pair) -> Judgement | None:
    """A particular precision that follows from a general one is no difference of its own."""
    if found.key in (_GENERAL, f"{_PREFIX}cuda.all", f"{_PREFIX}mkldnn.all", _PRODUCTS):
        own = _reaching(found, pair)
        if own is not None:
            return own
    general = _general_of(found.key, pair)
    if general is None:
        return None
    return Judgement("informational", f"follows from {general}, which differs too")


def older_switch(found: Found, pair: Pair) -> Judgement | None:
    """The older switches cannot be read where newer ones were set; those are recorded too."""
    newer = _SEEN_BY.get(found.key, ())
    values = [value for key in newer for value in pair.values("settings", key)]
    if not newer or None in values or any(is_tagged(value) for value in values):
        return None
    differing = [key for key in newer if pair.differs("settings", key)]
    if not differing or (found.key == _PRODUCTS and not _is_unreadable(found)):
        return None
    verb = "differs" if len(differing) == 1 else "differ"
    return Judgement("informational", f"follows from {' and '.join(differing)}, which {verb} too")


def _is_unreadable(found: Found) -> bool:
    return any(is_tagged(value, "$failed") for value in found.values)


def _reaching(found: Found, pair: Pair) -> Judgement | None:
    """A general precision weighs as much as the particular ones that follow from it."""
    known = catalogued(found, pair)
    followers = [
        key
        for key in dict.fromkeys((*_OF_PRODUCTS, *_CUDA_LAYERS, *_MKLDNN))
        if pair.differs("settings", key) and _general_of(key, pair) == found.key
    ]
    if known is None or not followers or _general_of(found.key, pair) is not None:
        return None
    names = ", ".join(key.removeprefix(_PREFIX) for key in followers)
    return Judgement("certain", f"{known.reason} It reaches {names}.", known.source)


def _general_of(key: str, pair: Pair) -> str | None:
    """The most general setting that differs and explains both values of this one."""
    backend = key.removeprefix(_PREFIX).partition(".")[0]
    above = [_GENERAL, f"{_PREFIX}{backend}.all"] if key.startswith(_PREFIX) else []
    if key in _OF_PRODUCTS:
        above.append(_PRODUCTS)
    for general in above:
        values = pair.values("settings", general)
        if general == key or not pair.differs("settings", general):
            continue
        explained = zip(values, pair.values("settings", key), strict=True)
        if all(_explains(backend, one, own) for one, own in explained):
            return general
    return None


def _explains(backend: str, general: Json, own: Json) -> bool:
    if not isinstance(general, str) or not isinstance(own, str):
        return False
    if general in _WRITTEN:
        return own in _WRITTEN[general]
    # Where the general one says nothing, each has its default; CUDA has no bfloat16 for float32.
    return general in ("none", own) or (backend, general, own) == ("cuda", "bf16", "none")
