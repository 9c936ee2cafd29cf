"""Settings of the client: one frozen object, one precedence, and where each value came from.

An argument comes before the environment (``MANIFEST_URL``), that before the file of the project
(``[tool.manifest]`` in `pyproject.toml`, or `manifest.toml`, the nearest upward), that before the
user's own file (`~/.config/manifest/config.toml`), that before the default.

A token is the user's alone: it comes from the environment or the user's file, where each stands
under the address that it is for. What a project says never decides who is sent a token.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from manifest.errors import ManifestError
from manifest.rundir import FOLDER, find_base

Mode: TypeAlias = Literal["online", "offline", "disabled"]

PREFIX: Final = "MANIFEST_"
PROJECT_FILES: Final = ("manifest.toml", "pyproject.toml")
DEFAULT: Final = "default"

_OF_FILES: Final = ("url", "project", "mode", "timeout")
_DEFAULTS: Final[Mapping[str, Any]] = {"mode": "online", "timeout": 5.0}
_LONGEST_TIMEOUT_SECONDS: Final = 3600.0


class SettingInvalid(ManifestError):
    """A setting that is not what it must be."""

    def __init__(self, name: str, source: str, expected: str) -> None:
        super().__init__(f"the setting '{name}' from {source}: expected {expected}.")


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides how the client works."""

    url: str | None
    """The service; None where there is none."""
    token: str | None = field(repr=False)
    project: str | None
    mode: Mode
    timeout: float
    """How many seconds the end of a run waits for its delivery."""
    dir: Path
    """The folder that keeps runs."""
    sources: Mapping[str, str]
    """Where each value came from, by name."""

    @property
    def is_delivering(self) -> bool:
        """Whether runs go to a service by themselves."""
        return self.url is not None and self.mode == "online"


def load_settings(*, url: str | None = None, start: Path | None = None) -> Settings:
    """Gather the settings that hold here.

    Args:
        url: The service, as an argument gives it.
        start: The folder from which project files are looked for; by default the current one.

    Raises:
        SettingInvalid: A value, or a file, cannot be used.
    """
    found: dict[str, tuple[Any, str]] = {name: (_DEFAULTS.get(name), DEFAULT) for name in _OF_FILES}
    user = user_file()
    tokens, user_values = _of_user(user)
    project_values, project_file = _of_project((start or Path.cwd()).absolute())
    _lay_over(found, user_values, str(user))
    _lay_over(found, project_values, str(project_file))
    for name in _OF_FILES:
        if given := os.environ.get(PREFIX + name.upper()):
            found[name] = (given, PREFIX + name.upper())
    if url is not None:
        found["url"] = (url, "argument")
    values = {name: _checked(name, *found[name]) for name in _OF_FILES}
    is_from_project = found["url"][1] == str(project_file)
    token, token_source = _token(values["url"], tokens, str(user), is_trusted=not is_from_project)
    sources = {name: source for name, (_, source) in found.items()}
    sources |= {"token": token_source, "dir": _source_of_dir(start)}
    return Settings(**values, token=token, dir=find_base(start), sources=sources)


def user_file() -> Path:
    """The user's own file, whether it is there or not."""
    chosen = os.environ.get("XDG_CONFIG_HOME")
    folder = Path(chosen) if chosen else Path("~/.config").expanduser()
    return folder / "manifest" / "config.toml"


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a file of settings; nothing, where it is not there.

    Raises:
        SettingInvalid: It cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingInvalid("*", str(path), f"a readable TOML file ({error})") from error


def checked_url(text: object, source: str) -> str:
    """The address of a service in its one form.

    Raises:
        SettingInvalid: It is none.
    """
    expected = "an address such as https://manifest.example.org"
    if not isinstance(text, str):
        raise SettingInvalid("url", source, expected)
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise SettingInvalid("url", source, expected) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise SettingInvalid("url", source, f"{expected}, found {text[:200]!r}")
    if parts.username or parts.password:
        raise SettingInvalid("url", source, "an address without a password; use `manifest login`")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    suffix = "" if port is None else f":{port}"
    return f"{parts.scheme}://{host}{suffix}{parts.path.rstrip('/')}"


def _of_user(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    content = read_toml(path)
    tokens = content.pop("tokens", {})
    if not isinstance(tokens, dict) or not all(isinstance(each, str) for each in tokens.values()):
        raise SettingInvalid("tokens", str(path), "a table of addresses and their tokens")
    if tokens:
        _refuse_readable(path)
    return tokens, content


def _refuse_readable(path: Path) -> None:
    mode = path.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        expected = f"that only you can read a file with tokens: chmod 600 {path}"
        raise SettingInvalid("tokens", str(path), expected)


def _of_project(start: Path) -> tuple[dict[str, Any], Path | None]:
    for path in _project_files(start):
        content = read_toml(path)
        if path.name == "pyproject.toml":
            content = content.get("tool", {}).get("manifest")
            if content is None:
                continue
        if not isinstance(content, dict):
            raise SettingInvalid("*", str(path), "a table [tool.manifest]")
        if content.keys() & {"token", "tokens"}:
            expected = "no token in a file that others see: use `manifest login` or MANIFEST_TOKEN"
            raise SettingInvalid("token", str(path), expected)
        return content, path
    return {}, None


def _project_files(start: Path) -> Iterator[Path]:
    for folder in (start, *start.parents):
        for name in PROJECT_FILES:
            if (folder / name).is_file():
                yield folder / name


def _lay_over(found: dict[str, tuple[Any, str]], values: Mapping[str, Any], source: str) -> None:
    for name, value in values.items():
        if name not in _OF_FILES:
            raise SettingInvalid(name, source, f"one of {', '.join(_OF_FILES)}")
        found[name] = (value, source)


def _checked(name: str, value: Any, source: str) -> Any:
    if value is None:
        return None
    if name == "url":
        return checked_url(value, source)
    if name == "mode":
        if value not in get_args(Mode):
            raise SettingInvalid(name, source, f"one of {', '.join(get_args(Mode))}")
        return value
    if name == "timeout":
        return _seconds(value, source)
    if not isinstance(value, str):
        raise SettingInvalid(name, source, "a text")
    return value


def _seconds(value: Any, source: str) -> float:
    try:
        seconds = float(value) if not isinstance(value, bool) else -1.0
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds <= _LONGEST_TIMEOUT_SECONDS:
        raise SettingInvalid("timeout", source, "seconds, from 0 to 3600")
    return seconds


def _token(
    url: str | None, tokens: Mapping[str, str], path: str, *, is_trusted: bool
) -> tuple[str | None, str]:
    given = os.environ.get(f"{PREFIX}TOKEN")
    if given and is_trusted:
        return given.strip(), f"{PREFIX}TOKEN"
    for address, token in tokens.items():
        if url is not None and checked_url(address, path) == url:
            return token, path
    if given:
        return None, f"{DEFAULT}: MANIFEST_TOKEN goes only where MANIFEST_URL or you say"
    return None, DEFAULT


def _source_of_dir(start: Path | None) -> str:
    if os.environ.get(f"{PREFIX}DIR"):
        return f"{PREFIX}DIR"
    return f"the nearest {FOLDER}" if find_base(start).is_dir() else DEFAULT
