"""Installed packages: names and versions from folder names, origins from what installers left.

Nothing is imported and no metadata is parsed for the versions, so that a training process can
afford to ask.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence

from manifest.canonical import Json, digest_bytes, plain
from manifest.environment.redaction import redact_url

_SUFFIXES = (".dist-info", ".egg-info", ".egg")
_MOST_BYTES = 8 * 2**20
_SEPARATORS = re.compile(r"[-_.]+")
_EGG_PYTHON = re.compile(r"-py\d.*$")


def capture_packages(paths: Sequence[str]) -> dict[str, str]:
    """List what is installed along a search path, by normalized name.

    Of several packages of one name the first on the path counts, as it does for an import.

    Args:
        paths: Folders to search, as in `sys.path`.

    Source:
        PyPA specification "Recording installed projects"; PEP 503 for the names.
    """
    found: dict[str, str] = {}
    for name, version, _ in distributions(paths):
        found.setdefault(name, version)
    return found


def capture_package_origins(paths: Sequence[str]) -> dict[str, Json]:
    """Say where packages that did not come from an index came from.

    Reads one file a package: for a background thread.

    Returns:
        By normalized name: ``url`` without credentials, ``editable``, ``commit`` and ``digest``
        where they are known; the digest is that of the archive, or of all files that were copied
        from a folder.
    """
    origins: dict[str, Json] = {}
    seen: set[str] = set()
    for name, _, folder in distributions(paths):
        if name not in seen and (origin := _origin(folder)):
            origins[name] = origin
        seen.add(name)
    return origins


def distributions(paths: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Find name, version and folder of what is installed along a search path, in its order."""
    for path in dict.fromkeys(paths):
        try:
            names = sorted(os.listdir(path or "."))
        except OSError:  # a zip file, or gone
            continue
        for name in names:
            # pip renames what it could not remove to "~…".
            if name.endswith(_SUFFIXES) and name[0] not in "~.":
                folder = os.path.join(path, name)
                project, version = _split(name, folder)
                if project:
                    yield _SEPARATORS.sub("-", project).lower(), version, folder


def _split(name: str, folder: str) -> tuple[str, str]:
    stem, kind = os.path.splitext(name)
    project, _, version = stem.partition("-")
    if kind != ".dist-info":
        version = _EGG_PYTHON.sub("", version)
    if not version:
        version = _version_within(folder)
    return project, version.replace("_", "-")  # file names escape "-"


def _version_within(folder: str) -> str:
    # `setup.py develop` leaves a folder with no version in its name.
    for name in ("METADATA", "PKG-INFO"):
        try:
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
                for line in file:
                    if line.startswith("Version:"):
                        return line.partition(":")[2].strip()
        except OSError:
            continue
    return ""


def _origin(folder: str) -> dict[str, Json]:
    try:
        with open(os.path.join(folder, "direct_url.json"), encoding="utf-8") as file:
            told = json.load(file)
        origin: dict[str, Json] = {"url": redact_url(str(told["url"]))}
        parts = {key: told.get(key) or {} for key in ("dir_info", "vcs_info", "archive_info")}
        origin["editable"] = bool(parts["dir_info"].get("editable"))
        origin["commit"] = parts["vcs_info"].get("commit_id")
        hashes = parts["archive_info"].get("hashes") or {}
        origin["digest"] = f"sha256:{hashes['sha256']}" if "sha256" in hashes else None
        if "dir_info" in told and not origin["editable"]:
            origin["digest"] = _digest_of_files(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {key: plain(value) for key, value in origin.items() if value}


def _digest_of_files(folder: str) -> str | None:
    """What was copied from a folder, whatever has become of that: the digests of all its files."""
    try:
        with open(os.path.join(folder, "RECORD"), "rb") as file:
            lines = file.read(_MOST_BYTES).splitlines()
    except OSError:
        return None
    of_installer = (b"../", os.fsencode(os.path.basename(folder)))
    kept = [line for line in lines if b"=" in line and not line.startswith(of_installer)]
    return digest_bytes(b"\n".join(sorted(kept)))
