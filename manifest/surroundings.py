"""What surrounds a recorded process: interpreter, variables, packages, hardware, settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from manifest.canonical import Json
from manifest.environment import launcher
from manifest.inheriting import as_user_made_it


class Listener(Protocol):
    """Whoever writes down what is learnt."""

    def section(self, name: str, values: dict[str, Json]) -> None:
        """Record facts of one section."""

    def guarded(self, where: str) -> AbstractContextManager[None]:
        """Keep whatever goes wrong inside away from the program."""

    def soon(self, where: str, work: Callable[[], None]) -> None:
        """Do what may not hold up the program for long."""


class Surroundings:
    """Records what surrounds this process; what does not change, once."""

    def __init__(self, listener: Listener, salt: Callable[[], bytes]) -> None:
        self._listener = listener
        self._salt = salt
        self._are_captured = False
        self.has_what_takes_long = False

    def capture(self) -> None:
        """Record interpreter, variables, packages and hardware."""
        if self._are_captured:
            return
        self._are_captured = True
        with self._listener.guarded("surroundings"):
            from manifest.environment import hardware, interpreter, packages, variables  # noqa: F401

            self._listener.soon("surroundings", self._capture)

    def _capture(self) -> None:
        from manifest.environment import hardware, interpreter, packages

        for name, capture in (
            ("environment", interpreter.capture_interpreter),
            ("environment", self._capture_variables),
            ("environment", lambda: launcher.capture_launcher(os.environ)),
            ("packages", lambda: packages.capture_packages(sys.path)),
            ("hardware", hardware.capture_hardware),
        ):
            with self._listener.guarded(name):
                self._listener.section(name, capture())

    def _capture_variables(self) -> dict[str, Json]:
        from manifest.environment import variables

        return variables.capture_variables(
            as_user_made_it(os.environ),
            exec_environ=as_user_made_it(variables.read_exec_environ(os.environ)),
            salt=self._salt(),
        )

    def capture_what_takes_long(self) -> None:
        """Record settings that are slow to read, and the libraries that compute."""
        self.has_what_takes_long = True
        with self._listener.guarded("settings"):
            from manifest.settings import capture_slow_settings

            self._listener.section("settings", capture_slow_settings())
        with self._listener.guarded("environment"):
            from manifest.environment.mapped import capture_mapped

            self._listener.section("environment", capture_mapped())

    def capture_settings(self) -> None:
        """Record the settings that the loaded libraries have now."""
        with self._listener.guarded("settings"):
            from manifest.settings import capture_settings

            self._listener.section("settings", capture_settings())
