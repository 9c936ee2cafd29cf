"""Tokens in the user's own file: put and taken away, with every other line left as it is."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Final

from manifest_client.settings import checked_url, read_toml, user_file

_TABLE: Final = re.compile(r"\s*\[")
_TOKENS: Final = re.compile(r"\s*\[\s*tokens\s*\]")
_URL: Final = re.compile(r"\s*url\s*=")


def put_token(url: str, token: str | None) -> Path:
    """Keep a token for a service, which becomes the user's own if there is none yet.

    Raises:
        SettingInvalid: The file cannot be read.
        OSError: It cannot be written.
    """
    path = user_file()
    content = read_toml(path)
    tokens = _without(content.get("tokens", {}), url, str(path))
    if token is not None:
        tokens[url] = token
    lines = _other_lines(path)
    if "url" not in content:
        lines.insert(0, f"url = {json.dumps(url)}")
    _write(path, lines, tokens)
    return path


def remove_token(url: str) -> bool:
    """Forget the token of a service, and that it is the user's own; says whether there was one."""
    path = user_file()
    content = read_toml(path)
    known = content.get("tokens", {})
    tokens = _without(known, url, str(path))
    lines = _other_lines(path)
    if "url" in content and checked_url(content["url"], str(path)) == url:
        lines = [line for line in lines if not _URL.match(line)]
    if len(tokens) == len(known) and lines == _other_lines(path):
        return False
    _write(path, lines, tokens)
    return len(tokens) < len(known)


def _without(tokens: dict[str, str], url: str, path: str) -> dict[str, str]:
    return {each: token for each, token in tokens.items() if checked_url(each, path) != url}


def _other_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    kept: list[str] = []
    is_of_tokens = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if _TABLE.match(line):
            is_of_tokens = bool(_TOKENS.match(line))
        if not is_of_tokens:
            kept.append(line)
    return kept


def _write(path: Path, lines: list[str], tokens: dict[str, str]) -> None:
    if tokens:
        table = [f"{json.dumps(url)} = {json.dumps(token)}" for url, token in tokens.items()]
        lines = [*lines, "[tokens]", *table]
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    # Nobody else may read it at any moment.
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file, "w", encoding="utf-8") as opened:
            opened.write("".join(f"{line}\n" for line in lines))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
