"""Which installed packages a process has loaded anything of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def loaded(paths: list[str], *lines: str) -> set[str]:
    program = "\n".join(
        (
            "import sys",
            "from manifest.environment.imported import Installed",
            "installed = Installed(sys.argv[1:])",
            *lines,
            "print(*installed.loaded())",
        )
    )
    command = [sys.executable, "-c", program, *paths]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_a_package_counts_from_its_import_on() -> None:
    paths = [path for path in sys.path if path]
    before, after = loaded(paths), loaded(paths, "import numpy, markdown_it")
    assert after - before >= {"numpy", "markdown-it-py"}
    assert not {"torch", "scipy", "rich"} & after


def install(site: Path, name: str, *files: str) -> None:
    folder = site / f"{name}-1.dist-info"
    folder.mkdir(parents=True)
    (folder / "RECORD").write_text("".join(f"{file},sha256=x,1\n" for file in files))


def test_a_package_is_known_by_its_modules_and_shared_libraries(tmp_path: Path) -> None:
    import _ctypes

    library = tmp_path / "vendor" / "lib" / "libx.so.1"
    library.parent.mkdir(parents=True)
    library.write_bytes(Path(_ctypes.__file__).read_bytes())
    install(tmp_path, "Vendor.Lib", "vendor/lib/libx.so.1")
    install(tmp_path, "other_lib", "vendor/lib/liby.so.1")
    install(tmp_path, "one_file", "json.py")
    install(tmp_path, "never", "never/__init__.py", "../../bin/never")
    paths = [str(tmp_path)]
    assert loaded(paths, "import json") == {"one-file"}
    given = f"import ctypes; ctypes.CDLL({str(library)!r})"
    assert loaded(paths, "import json", given) == {"one-file", "vendor-lib"}


def test_what_does_not_list_its_modules_counts_as_loaded(tmp_path: Path) -> None:
    install(tmp_path, "edited", "__editable__.edited.pth", "edited-1.dist-info/METADATA")
    install(tmp_path, "empty")
    (tmp_path / "old-1.egg-info").mkdir()
    assert loaded([str(tmp_path)]) == {"edited", "empty", "old"}
