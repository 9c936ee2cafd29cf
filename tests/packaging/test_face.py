"""The public face: what `import manifest` offers, and what it brings along."""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import manifest

# A training process must not pay for these, and must not have its generators touched by them.
HEAVY = {
    "alembic",
    "asyncio",
    "fastapi",
    "httpx",
    "numpy",
    "psycopg",
    "pydantic",
    "random",
    "rich",
    "secrets",
    "socket",
    "sqlalchemy",
    "sqlite3",
    "tempfile",
    "torch",
    "typer",
    "uuid",
}


def loaded_after(program: str, folder: Path) -> set[str]:
    """The modules that a fresh interpreter loads for a program, beyond those it starts with."""
    script = (
        "import sys; before = set(sys.modules)\n"
        f"{program}\n"
        "print('loaded:', *sorted(set(sys.modules) - before))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=folder
    )
    return set(ended.stdout.rpartition("loaded:")[2].split())


def test_everything_public_is_in_all_and_sorted() -> None:
    public = {
        name
        for name in dir(manifest)
        if not name.startswith("_")
        and name != "annotations"  # left by `from __future__ import annotations`
        and not inspect.ismodule(getattr(manifest, name))
    }
    assert manifest.__all__ == sorted(public)


def test_everything_public_has_a_docstring() -> None:
    bare = [name for name in manifest.__all__ if not getattr(manifest, name).__doc__]
    assert bare == []


def test_no_module_is_named_like_a_public_name() -> None:
    modules = {module.name for module in pkgutil.iter_modules(manifest.__path__)}
    assert modules & set(manifest.__all__) == set()


def test_importing_manifest_brings_nothing_heavy(tmp_path: Path) -> None:
    loaded = loaded_after("import manifest", tmp_path)
    assert "manifest" in loaded
    assert loaded & HEAVY == set()


def test_recording_a_run_brings_nothing_heavy(tmp_path: Path) -> None:
    loaded = loaded_after("import manifest\nwith manifest.record():\n    pass", tmp_path)
    assert (tmp_path / ".manifest" / "runs").is_dir()
    assert loaded & HEAVY == set()
