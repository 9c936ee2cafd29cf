"""Where ranks meet: a free port where it is ours to choose, and nothing else touched."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from manifest.rendezvous import variables, with_free_ports


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which someone listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_is_taken_is_replaced_by_one_that_is_free(taken: int) -> None:
    for argument in (["--master-port", f"{taken}"], [f"--master_port={taken}"]):
        found = with_free_ports(["torchrun", *argument, "train.py"])
        port = int(found[-2].rpartition("=")[2])
        assert port != taken
        with socket.create_server(("127.0.0.1", port)):
            pass
    (endpoint,) = with_free_ports([f"--rdzv-endpoint=localhost:{taken}"])
    assert endpoint.startswith("--rdzv-endpoint=localhost:")
    assert not endpoint.endswith(f":{taken}")


def test_everything_else_on_a_command_line_stays(taken: int) -> None:
    command = ["torchrun", "--master-port", "29511", "--nproc-per-node", f"{taken}", "train.py"]
    command += ["--master-port", f"{taken}", f"--rdzv-endpoint=localhost:{taken}", "--master-port"]
    assert with_free_ports(command) == command
    elsewhere = ["torchrun", f"--rdzv-endpoint=host.example:{taken}", "train.py"]
    assert with_free_ports(elsewhere) == elsewhere


def test_a_place_on_this_machine_that_the_program_was_given_is_chosen_anew() -> None:
    recorded = {"given.MASTER_ADDR": "localhost", "given.MASTER_PORT": "29500"}
    found = variables(recorded)
    assert found["MASTER_ADDR"] == "localhost"
    assert 1024 < int(found["MASTER_PORT"]) < 65536


@pytest.mark.parametrize(
    "recorded",
    [
        {},
        {"env.MASTER_PORT": "29500", "env.MASTER_ADDR": "localhost"},
        {"given.MASTER_ADDR": "10.0.0.1", "given.MASTER_PORT": "29500"},
        {"given.MASTER_ADDR": {"$redacted": "00"}, "given.MASTER_PORT": "29500"},
    ],
)
def test_a_place_that_its_launcher_or_another_machine_chose_is_left_to_them(
    recorded: dict[str, object],
) -> None:
    assert variables(recorded) == {}
