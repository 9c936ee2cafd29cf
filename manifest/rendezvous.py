"""Where the ranks of a run meet: a port of this machine, chosen anew where it is taken."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Final

from manifest.canonical import Json

_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")
_HERE: Final = frozenset(("localhost", "127.0.0.1", "::1"))
# Below those that a system gives to outgoing connections.
_FIRST_PORT: Final = 20_000
_PORTS: Final = 12_000
_PORT_OPTION: Final = re.compile(r"--(?:master[-_]port|main[-_]process[-_]port)")
_ENDPOINT_OPTION: Final = re.compile(r"--rdzv[-_]endpoint")
_ENDPOINT: Final = re.compile(r"(localhost|127\.0\.0\.1):(\d{1,5})")


def variables(recorded: Mapping[str, Json]) -> dict[str, str]:
    """Choose a meeting place for a program that was given one of this machine.

    A port decides no bit, and the recorded one may be in use by another training.

    Args:
        recorded: The ``environment`` section of an untrusted manifest.

    Returns:
        Variables for the replay; none where the program was given none, or another machine.
    """
    address = recorded.get("given.MASTER_ADDR", "127.0.0.1")
    if "given.MASTER_PORT" not in recorded or str(address) not in _HERE:
        return {}
    return {"MASTER_ADDR": address, "MASTER_PORT": str(_free_port(_taken_ports()))}


def with_free_ports(arguments: Sequence[str]) -> list[str]:
    """Replace the port on a launcher's command line, where another program listens on it now."""
    taken = _taken_ports()
    found = list(arguments)
    for index, argument in enumerate(found):
        if argument.endswith(".py"):
            break  # what follows are options of the program
        option, is_joined, value = argument.partition("=")
        if is_joined:
            found[index] = f"{option}={_free(option, value, taken)}"
        elif index + 1 < len(found):
            found[index + 1] = _free(option, found[index + 1], taken)
    return found


def _free(option: str, value: str, taken: frozenset[int]) -> str:
    if _PORT_OPTION.fullmatch(option) and value.isdecimal() and int(value) in taken:
        return str(_free_port(taken))
    if _ENDPOINT_OPTION.fullmatch(option) and (endpoint := _ENDPOINT.fullmatch(value)):
        host, port = endpoint.groups()
        return f"{host}:{_free_port(taken)}" if int(port) in taken else value
    return value


def _free_port(taken: frozenset[int]) -> int:
    # From a place of its own, so that replays that begin side by side do not meet.
    start = os.getpid() * 7
    ports = (_FIRST_PORT + (start + step) % _PORTS for step in range(_PORTS))
    return next(port for port in ports if port not in taken)


def _taken_ports() -> frozenset[int]:
    # Read from the system's tables: the core opens no socket.
    ports: set[int] = set()
    for table in _TABLES:
        try:
            with open(table, encoding="ascii") as file:
                lines = file.readlines()[1:]
        except OSError:
            continue
        ports.update(int(line.split()[1].rpartition(":")[2], 16) for line in lines)
    return frozenset(ports)
