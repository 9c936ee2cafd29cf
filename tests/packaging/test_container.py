"""The container: nothing that it is not needed for, and settings that really start the service."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

PINNED = re.compile(r"[a-z-]+:\d+(\.\d+)+(-[a-z]+)*")


@pytest.fixture(scope="module")
def steps(checkout: Path) -> list[tuple[str, str]]:
    """The instructions of the Dockerfile and what each is given."""
    text = (checkout / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [
        (word, " ".join(rest.split())) for word, _, rest in (x.partition(" ") for x in lines if x)
    ]


@pytest.fixture(scope="module")
def services(checkout: Path) -> dict[str, dict[str, Any]]:
    text = (checkout / "docker-compose.yml").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
    return found


def given(steps: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for instruction, rest in steps if instruction == word]


def test_images_are_pinned(
    steps: list[tuple[str, str]], services: dict[str, dict[str, Any]]
) -> None:
    images = [each.partition(" ")[0] for each in given(steps, "FROM")]
    images += [service["image"] for service in services.values()]
    assert [image for image in images if not PINNED.fullmatch(image)] == []
    assert "--constraint constraints.txt" in given(steps, "RUN")[0]


def test_everything_that_is_copied_is_there(steps: list[tuple[str, str]], checkout: Path) -> None:
    allowed = (checkout / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [each for each in given(steps, "COPY") if not each.startswith("--from")]
    sources = {name for each in copied for name in each.split()[:-1]}
    assert [name for name in sources if not (checkout / name).exists()] == []
    assert {f"!{name}" for name in sources} == {line for line in allowed if line[0] == "!"}


def test_what_is_copied_links_only_to_what_is_copied(
    steps: list[tuple[str, str]], checkout: Path
) -> None:
    copied = [each for each in given(steps, "COPY") if not each.startswith("--from")]
    sources = [checkout / name for each in copied for name in each.split()[:-1]]
    links = [link for source in sources for link in source.rglob("*") if link.is_symlink()]
    assert links  # the guide is the documents
    ends = [link.resolve() for link in links]
    assert [end for end in ends if not any(map(end.is_relative_to, sources))] == []


def test_it_runs_as_nobody_and_writes_nowhere(
    steps: list[tuple[str, str]], services: dict[str, dict[str, Any]]
) -> None:
    service = services["manifest"]
    assert given(steps, "USER") == [service["user"]] == ["10001"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    for each in services.values():
        assert each["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "network_mode", "pid"} & set(each)


def test_only_this_machine_reaches_it(services: dict[str, dict[str, Any]]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_no_secret_is_written_down(services: dict[str, dict[str, Any]]) -> None:
    values = [str(value) for each in services.values() for value in each["environment"].values()]
    told = [value for value in values if "PASSWORD" in value.upper()]
    assert len(told) == 2
    assert all("${MANIFEST_DB_PASSWORD:?" in value for value in told)


def test_its_settings_start_a_service_that_its_health_check_finds(
    steps: list[tuple[str, str]], tmp_path: Path
) -> None:
    settings = dict(pair.split("=", 1) for pair in given(steps, "ENV")[0].split())
    settings |= {
        "PATH": os.environ["PATH"],
        "MANIFEST_SERVER_HOST": "127.0.0.1",
        "MANIFEST_SERVER_PORT": "0",
        "MANIFEST_SERVER_DATABASE_URL": f"sqlite:///{tmp_path}/manifest.db",
    }
    program = str(Path(sys.executable).with_name(json.loads(given(steps, "ENTRYPOINT")[0])[0]))
    command = [program, *json.loads(given(steps, "CMD")[0])]
    check = json.loads(given(steps, "HEALTHCHECK")[0].partition("CMD ")[2])
    served = subprocess.Popen(
        command,
        env=settings,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert served.stdout is not None
        port = urlsplit(served.stdout.readline().split()[-1]).port
        found = settings | {"MANIFEST_SERVER_PORT": str(port)}
        checking = [sys.executable, *check[1:]]
        assert subprocess.run(checking, env=found, check=False, timeout=60).returncode == 0
        served.terminate()
        assert served.wait(60) == 0
        ended = subprocess.run(checking, env=found, check=False, timeout=60, capture_output=True)
        assert ended.returncode != 0
    finally:
        served.kill()
        served.communicate()
