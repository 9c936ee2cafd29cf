"""The same project and interpreter in other folders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Impacts = Callable[..., dict[str, str]]
Sections = dict[str, dict[str, Any]]


def project(root: str, **sections: Any) -> Sections:
    command = {"root": root, **sections.pop("command", {})}
    return {"command": command, **sections}


def test_a_project_in_another_folder_is_the_same_project(impacts: Impacts) -> None:
    def run(root: str) -> Sections:
        return project(
            root,
            command={"argv": ["python", f"{root}/train.py", f"--data={root}/d"]},
            environment={"python.path": [root, f"{root}/src"], "env.PYTHONPATH": f"{root}/src:/x"},
            inputs={f"{root}/d/a.csv": {"size": 3, "mtime_us": 1, "digest": "xxh3:1"}},
            seeds={"os_entropy_uses": {f"{root}/train.py:3": 1}},
        )

    assert impacts(run("/home/a/p"), run("/tmp/replay-1")) == {"root": "informational"}


def test_a_path_that_only_looks_like_the_project_is_another_path(impacts: Impacts) -> None:
    before = project("/p", config={"data": "/other/p/d"})
    after = project("/q", config={"data": "/other/q/d"})
    assert impacts(before, after) == {"root": "informational", "data": "possible"}


def test_another_interpreter_matters_unless_version_and_packages_are_the_same(
    impacts: Impacts,
) -> None:
    def run(executable: str, torch: str) -> Sections:
        return {
            "command": {"executable": executable},
            "environment": {"python.version": "3.11.7"},
            "packages": {"torch": torch},
        }

    assert impacts(run("/a", "2.13.0"), run("/b", "2.13.0")) == {"executable": "informational"}
    assert impacts(run("/a", "2.13.0"), run("/b", "2.13.1"))["executable"] == "possible"
