"""The switches that make PyTorch compute the same again: set together, told, and put back."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, Self, TypeVar, get_args

from manifest.canonical import Json
from manifest.determinism.reports import Item, Outcome, Report
from manifest.errors import ArgumentInvalid
from manifest.importing import is_imported, when_imported
from manifest.restoring import RestoredItem
from manifest.settings import libraries_of, read_settings, refusal, restore_settings

P = ParamSpec("P")
R = TypeVar("R")

Mode = Literal["strict", "warn", "off"]

_MODE: Final = "torch.deterministic.mode"
_FILL: Final = "torch.utils.deterministic.fill_uninitialized_memory"
_THREADS: Final = "torch.num_threads"
_TF32: Final = ("torch.backends.cuda.matmul.allow_tf32", "torch.backends.cudnn.allow_tf32")
_CUDA_PRECISIONS: Final = tuple(
    f"fp32_precision.cuda.{operation}" for operation in ("matmul", "conv", "rnn")
)
_BEHIND_TF32: Final = tuple(
    f"fp32_precision.{backend}.{operation}"
    for backend in ("cuda", "mkldnn")
    for operation in ("matmul", "conv", "rnn")
)
"""What those write to; several values of these read as one of theirs."""

_ON: Final[Mapping[str, Json]] = {
    "torch.backends.cudnn.benchmark": False,
    "torch.backends.cudnn.deterministic": True,
    "torch.backends.mkldnn.deterministic": True,
    "torch._inductor.config.deterministic": True,
}
_OFF: Final[Mapping[str, Json]] = {
    "torch.backends.cudnn.deterministic": False,
    "torch.backends.mkldnn.deterministic": False,
    "torch._inductor.config.deterministic": False,
}
_LEVELS: Final[Mapping[str, tuple[int, Mapping[str, Json]]]] = {
    "strict": (2, _ON),
    "warn": (1, _ON),
    "off": (0, _OFF),
}

CUBLAS: Final = "CUBLAS_WORKSPACE_CONFIG"
WORKSPACES: Final = (":4096:8", ":16:8")
"""With which cuBLAS repeats itself; the first is quicker, and takes 24 MiB."""

_RUNNING_LATE: Final = (
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)

_OUTCOMES: Final[Mapping[str, Outcome]] = {
    "restored": "set",
    "equal already": "equal already",
    "failed": "failed",
}


def deterministic(
    mode: Mode = "strict",
    *,
    fill_memory: bool | None = None,
    tf32: bool | None = None,
    threads: int | None = None,
) -> Deterministic:
    """Have PyTorch compute the same again, given the same inputs on the same machine.

    It acts at once: deterministic algorithms, cuDNN without benchmarking, the deterministic mode
    of the compiler, and the workspace of cuBLAS. Nothing is imported and no accelerator started;
    for a library that comes later the switches are set when it is imported. In a `with` block, or
    as a decorator, it puts back at the end what it found.

    Args:
        mode: ``strict`` raises at an operation that has no deterministic implementation, ``warn``
            warns, ``off`` allows it, for a part of a strict program.
        fill_memory: Whether memory that `torch.empty` and others hand out is filled; PyTorch does
            so in these modes unless told otherwise, which takes time.
        tf32: Whether matrix products and convolutions may round to TF32. That repeats itself; but
            a device that lacks it computes something else. Left as it is by default.
        threads: How many threads an operation on the CPU may use: with another number, sums are
            added in another order. Left as it is by default.

    Returns:
        What was done, as its `report`.

    Raises:
        ArgumentInvalid: There is no such mode, or number of threads. Nothing was set.

    Example:
        >>> print(deterministic())  # doctest: +SKIP
        >>> with deterministic("off"):  # doctest: +SKIP
        ...     loss = median_of(batch)
    """
    if mode not in get_args(Mode):
        modes = ", ".join(map(repr, get_args(Mode)))
        raise ArgumentInvalid(f"expected one of {modes} as the mode, found {mode!r:.60}")
    level, switches = _LEVELS[mode]
    wanted = {_MODE: level, **switches}
    wanted |= {} if fill_memory is None else {_FILL: fill_memory}
    wanted |= {} if tf32 is None else _tf32_switches(tf32)
    wanted |= {} if threads is None else {_THREADS: threads}
    for key, value in wanted.items():
        if reason := refusal(key, value):
            raise ArgumentInvalid(f"{key}: {reason}")
    return Deterministic(mode, wanted, is_fixing_cublas=mode != "off")


def _tf32_switches(is_allowed: Json, library: str | None = None) -> dict[str, Json]:
    """What sets TF32; for PyTorch 2.9 to 2.12, whose switches raise at times, what is behind."""
    found = read_settings([*_TF32, *_CUDA_PRECISIONS], library=library)
    if isinstance(is_allowed, bool) and found and found.keys().isdisjoint(_TF32):
        return dict.fromkeys(_CUDA_PRECISIONS, "tf32" if is_allowed else "ieee")
    return dict.fromkeys(_TF32, is_allowed)


class Deterministic:
    """Switches that were set; also a context manager and a decorator, which put back what was."""

    def __init__(self, mode: Mode, wanted: Mapping[str, Json], *, is_fixing_cublas: bool) -> None:
        self._mode = mode
        self._wanted = wanted
        self._is_fixing_cublas = is_fixing_cublas
        self._before: list[_Before] = []
        self.report = self._set()
        self._is_standing = True  # set by the call alone: nothing is yet to put it back

    def __enter__(self) -> Self:
        if not self._is_standing:
            self.report = self._set()
        self._is_standing = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._before.pop().put_back()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function that is to run so; nothing stays set between its calls."""
        if self._is_standing:
            self._is_standing = False
            self._before.pop().put_back()
        if any(is_late(function) for is_late in _RUNNING_LATE):
            raise ArgumentInvalid(
                f"{function.__qualname__} runs after its call has returned: "
                "write `with deterministic():` inside it."
            )

        @functools.wraps(function)
        def repeated(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return repeated

    def __str__(self) -> str:
        return str(self.report)

    def __repr__(self) -> str:
        return f"<Deterministic {self._mode}>"

    def _set(self) -> Report:
        before = _Before(self._wanted)
        self._before.append(before)
        items = [_told(item, before.found) for item in restore_settings(before.there())]
        items += before.unreadable()
        items += before.wait()
        if self._is_fixing_cublas:
            items.append(before.fix_cublas())
        return Report(f"deterministic: {self._mode}", items)


def _told(item: RestoredItem, found: Mapping[str, Json]) -> Item:
    reason = f"was {found[item.what]}" if item.outcome == "restored" else item.reason
    return Item(item.what, _OUTCOMES.get(item.outcome, "failed"), reason)


class _Before:
    """What was before the switches were set."""

    def __init__(self, wanted: Mapping[str, Json]) -> None:
        self._wanted = wanted
        self.found = read_settings({*wanted, *(_BEHIND_TF32 if _TF32[0] in wanted else ())})
        self._cublas = os.environ.get(CUBLAS)
        self._is_cublas_fixed = False
        self._waited: dict[str, Json] = {}

    def there(self) -> dict[str, Json]:
        """What is wanted of the settings that are there, and could be put back."""
        return {
            key: value
            for key, value in self._wanted.items()
            if key in self.found and not isinstance(self.found[key], dict)
        }

    def unreadable(self) -> list[Item]:
        """Settings that are there and are left as they are."""
        values = {key: self.found.get(key) for key in self._wanted}
        return [
            Item(key, "failed", f"cannot be read, so it was left as it is: {value['$failed']}")
            for key, value in values.items()
            if isinstance(value, dict)
        ]

    def wait(self) -> list[Item]:
        """Have the others set when their library is imported."""
        items: list[Item] = []
        for library, keys in libraries_of(self._wanted.keys() - self.found.keys()).items():
            if is_imported(library):
                continue  # of a version that does not have them
            for key in keys:
                self._waited[key] = _waiting.get(key)
                _waiting[key] = self._wanted[key]
                items.append(Item(key, "pending", f"set when {library} is imported"))
            _await(library)
        return items

    def fix_cublas(self) -> Item:
        """Set the workspace of cuBLAS, which it reads when it starts."""
        if self._cublas in WORKSPACES:
            return Item(CUBLAS, "equal already")
        os.environ[CUBLAS] = WORKSPACES[0]
        self._is_cublas_fixed = True
        if _is_cuda_started():
            reason = "CUDA has started, and may have read it; set it before, in the environment"
            return Item(CUBLAS, "too late", reason)
        return Item(CUBLAS, "set", f"was {self._cublas or 'not set'}")

    def put_back(self) -> None:
        """Set everything as it was."""
        later = {key: _instead_of(key, value) for key, value in self._waited.items()}
        restore_settings(self.found | {key: v for key, v in later.items() if v is not None})
        if self._is_cublas_fixed:
            if self._cublas is None:
                os.environ.pop(CUBLAS, None)
            else:
                os.environ[CUBLAS] = self._cublas


_waiting: dict[str, Json] = {}
"""What is wanted of settings whose library is not imported yet."""

_pristine: dict[str, Json] = {}
"""What such a library came with."""

_awaited: set[str] = set()


def _await(library: str) -> None:
    if library not in _awaited:
        _awaited.add(library)
        when_imported(library, lambda module: _set_waiting(library))


def _set_waiting(library: str) -> None:
    keys = libraries_of(_waiting).get(library, ())
    if library == "torch" and _TF32[0] in keys:
        _waiting.update(_tf32_switches(_waiting[_TF32[0]], library))
        keys = libraries_of(_waiting).get(library, ())
    _pristine.update(read_settings(keys, library=library))
    restore_settings({key: _waiting[key] for key in keys}, library=library)


def _instead_of(key: str, waited: Json) -> Json:
    """What takes the place of a value that waited, or of which the library has come meanwhile."""
    if waited is None:
        _waiting.pop(key, None)
        return _pristine.get(key)
    _waiting[key] = waited
    return waited if key in _pristine else None


def _is_cuda_started() -> bool:
    cuda: Any = sys.modules.get("torch.cuda")
    return cuda is not None and bool(cuda.is_initialized())
