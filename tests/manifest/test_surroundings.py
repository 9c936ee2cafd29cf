"""What surrounds a process is recorded once, and its settings as often as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from manifest.canonical import Json
from manifest.surroundings import Surroundings


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Json]]] = []
        self.failed: list[str] = []

    def section(self, name: str, values: dict[str, Json]) -> None:
        self.told.append((name, values))

    @contextmanager
    def guarded(self, where: str) -> Iterator[None]:
        try:
            yield
        except ZeroDivisionError:
            self.failed.append(where)

    def soon(self, where: str, work: Callable[[], None]) -> None:
        work()

    def keys(self, section: str) -> set[str]:
        return {key for name, values in self.told if name == section for key in values}


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def surroundings(listener: Listener) -> Surroundings:
    return Surroundings(listener, lambda: b"salt")


def test_they_are_recorded_once(surroundings: Surroundings, listener: Listener) -> None:
    surroundings.capture()
    assert {"python.version", "env.PYTHONHASHSEED"} <= listener.keys("environment")
    assert "pytest" in listener.keys("packages")
    assert listener.keys("hardware")
    told = len(listener.told)
    surroundings.capture()
    assert len(listener.told) == told


def test_what_cannot_be_learnt_costs_only_itself(
    surroundings: Surroundings, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manifest.environment.hardware.capture_hardware", lambda: 1 / 0)
    surroundings.capture()
    assert listener.failed == ["hardware"]
    assert listener.keys("packages")


def test_settings_are_recorded_as_they_are_now(
    surroundings: Surroundings, listener: Listener
) -> None:
    surroundings.capture_settings()
    surroundings.capture_settings()
    assert [name for name, _ in listener.told] == ["settings", "settings"]


def test_what_takes_long_is_said_to_be_there(
    surroundings: Surroundings, listener: Listener
) -> None:
    assert not surroundings.has_what_takes_long
    surroundings.capture_what_takes_long()
    assert surroundings.has_what_takes_long
    assert listener.told
