"""An environment made anew from the packages that a run recorded, apart from the user's.

It is made by uv, from its cache and the index that the user has configured, and kept under the
digest of what is in it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from manifest.canonical import Json, canonical_bytes, digest_value
from manifest.environment import packages
from manifest.errors import NotReplayable
from manifest.recorded import Recorded, is_below

_TIMEOUT_SECONDS: Final = 1800
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,200}[a-z0-9])?")
_VERSION: Final = re.compile(r"[0-9][A-Za-z0-9.!+_-]{0,100}")
_PYTHON: Final = re.compile(r"3\.\d{1,2}\.\d{1,3}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# Without "$": installers put variables of whoever installs into addresses.
_ADDRESS: Final = re.compile(r"(?:https|ssh|file)://[^\s;#@$\\]+(?:@[^\s;#@$\\]+)?")
_TORCH_BUILD: Final = re.compile(r".*\+(cpu|cu\d{2,4}|rocm[\d.]{1,8}|xpu)")
_HOW_TO_GET_UV: Final = "`pip install 'manifest-replay[rebuild]'` brings it"
_SELF: Final = "manifest-replay"
_DONE: Final = "manifest-packages.json"
# An installer reads its own settings from these; they are the user's to give.
_PIP_OPTIONS: Final = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_CERT": "SSL_CERT_FILE",
}


def rebuild(recorded: Recorded, *, cache: Path | None = None) -> Path:
    """Make an environment with the recorded interpreter and packages, or find it made already.

    Args:
        recorded: The run whose packages are wanted.
        cache: Where environments are kept; by default in the user's cache.

    Returns:
        Its interpreter.

    Raises:
        NotReplayable: uv is not there, or something that was recorded cannot be had.
    """
    version = python_version(recorded)
    if version is None:
        told = str(recorded.environment.get("python.version"))
        raise NotReplayable([f"the recorded Python version {told[:40]!r} is none to install"])
    wanted = requirements(recorded)
    base = cache or _cache()
    folder = base / digest_value([version, wanted]).removeprefix("sha256:")[:24]
    base.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        if not (folder / _DONE).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            try:
                _make(folder, version, wanted)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        _lend_manifest(folder)
    return folder / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Named:
    """A recorded package, as an installer takes it."""

    name: str
    line: str = ""
    """Empty where the project itself holds its source, or it cannot be named."""
    problem: str = ""


def requirements(recorded: Recorded) -> list[str]:
    """The recorded packages, each as an installer takes it.

    Raises:
        NotReplayable: Some cannot be named so; all of them are said.
    """
    found = named(recorded)
    problems = [f"package {each.name[:80]}: {each.problem}" for each in found if each.problem]
    if problems:
        raise NotReplayable(problems)
    return [each.line for each in found if each.line]


def named(recorded: Recorded) -> list[Named]:
    """The recorded packages, and why one cannot be named; Manifest itself is left out."""
    origins = recorded.environment.get("packages.origins")
    origins = origins if isinstance(origins, dict) else {}
    found = []
    for name, version in sorted(recorded.packages.items()):
        if name == _SELF:
            continue
        origin = origins.get(name)
        try:
            line = _requirement(name, version, origin if isinstance(origin, dict) else {}, recorded)
        except ValueError as error:
            found.append(Named(name, problem=str(error)))
        else:
            found.append(Named(name, line))
    return found


def python_version(recorded: Recorded) -> str | None:
    """The recorded version of Python; None where that is none to install."""
    version = recorded.environment.get("python.version")
    return version if isinstance(version, str) and _PYTHON.fullmatch(version) else None


def _requirement(name: str, version: str, origin: Mapping[str, Json], recorded: Recorded) -> str:
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        raise ValueError(f"{version[:80]!r} is not a version of a package")
    url = str(origin.get("url", ""))
    if not origin:
        return f"{name}=={version}"
    path = url.removeprefix("file://")
    if origin.get("editable"):
        if is_below(path, recorded.root):
            return ""  # the workspace holds its source, and comes first on the path
        raise ValueError(f"it was an editable install of {url}, whose state was not recorded")
    commit, digest = str(origin.get("commit", "")), str(origin.get("digest", ""))
    if not _ADDRESS.fullmatch(url):
        raise ValueError(f"it came from {url[:200]!r}, which cannot be fetched from")
    if _COMMIT.fullmatch(commit):
        return f"{name} @ git+{url}@{commit}"
    if re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        return f"{name} @ {url}#sha256={digest.removeprefix('sha256:')}"
    if url.startswith("file://"):
        # A local file without a digest: the version alone tells what it was.
        return f"{name}=={version}"
    raise ValueError(f"it came from {url}, at no recorded commit or digest")


def _make(folder: Path, version: str, wanted: list[str]) -> None:
    uv = _find_uv()
    venv = [uv, "venv", "--quiet", "--no-project", "--python", _interpreter(version), str(folder)]
    if said := _run(venv):
        raise NotReplayable([f"Python {version} cannot be had. uv says: {_shortened(said)}"])
    listing = folder / "manifest-requirements.txt"
    listing.write_text("".join(f"{line}\n" for line in wanted), encoding="utf-8")
    command = [uv, "pip", "install", "--no-deps", "--no-progress", "--python", str(folder)]
    command += ["--requirement", str(listing)]
    said = _run(command) if wanted else ""
    if said and (build := _torch_build(wanted)) is not None:
        said = _run([*command, "--torch-backend", build])
    if said:
        raise NotReplayable([_told(said, wanted)])
    _check(folder, wanted)
    (folder / _DONE).write_bytes(canonical_bytes([version, wanted]))


def _interpreter(version: str) -> str:
    here = getattr(sys, "_base_executable", None) or sys.executable
    return str(here) if version == sys.version.split()[0] else version


def _torch_build(wanted: list[str]) -> str | None:
    """The build of PyTorch, such as ``cpu``, which has an index of its own that uv knows."""
    builds = (_TORCH_BUILD.fullmatch(line) for line in wanted if line.startswith("torch=="))
    return next((build[1] for build in builds if build), None)


def _check(folder: Path, wanted: list[str]) -> None:
    present = packages.capture_packages([str(path) for path in _site_folders(folder)])
    pairs = (line.split("==") for line in wanted if "==" in line)
    missing = [f"{name}=={version}" for name, version in pairs if present.get(name) != version]
    if missing:
        raise NotReplayable([f"not installed as asked: {', '.join(missing)}"])


def _run(command: list[str]) -> str:
    """Run uv; gives what it said if it failed, else nothing."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("MANIFEST_")}
    environ.pop("VIRTUAL_ENV", None)
    for pip_name, name in _PIP_OPTIONS.items():
        if pip_name in environ and name not in environ:
            environ[name] = environ[pip_name]
    try:
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NotReplayable([f"uv could not be run: {error}"]) from error
    return (done.stderr or f"exit code {done.returncode}") if done.returncode else ""


def _told(said: str, wanted: list[str]) -> str:
    # The packages in question first, then the words of uv, which may be many.
    words = set(re.split(r"[\s,`']+", said))
    named = [line for line in wanted if line in words or f"/{line.split('==')[0]}/" in said]
    what = ", ".join(named) or "some of the recorded packages"
    return f"{what} cannot be had from the configured indexes. uv says: {_shortened(said)}"


def _shortened(said: str) -> str:
    return " ".join(said.split())[:600]


def _lend_manifest(folder: Path) -> None:
    """Let a program in it import this Manifest, which is not installed there."""
    lent = folder / "manifest-replay"
    lent.mkdir(exist_ok=True)
    link = lent / "manifest"
    package = Path(__file__).parent
    if link.is_symlink() and link.resolve() != package.resolve():
        link.unlink()
    if not link.is_symlink():
        link.symlink_to(package)
    for site in _site_folders(folder):
        (site / "manifest-replay.pth").write_text(f"{lent}\n", encoding="utf-8")


def _site_folders(folder: Path) -> list[Path]:
    return sorted(folder.glob("lib/python3.*/site-packages"))


def _find_uv() -> str:
    found = shutil.which("uv")
    if found is not None:
        return found
    try:
        from uv import find_uv_bin
    except ImportError:
        raise NotReplayable(
            [f"--rebuild-env needs uv, which is not on PATH: {_HOW_TO_GET_UV}"]
        ) from None
    return str(find_uv_bin())


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "manifest" / "environments"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # Two replays may want the same environment at once: the second waits, and finds it made.
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
