"""What a replay reads of a manifest, checked: nothing else of it reaches the system.

A manifest may come from anywhere. Here every value that decides what is run, read or written gets
its type and its limits; whoever replays uses these and not the manifest itself.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from manifest.canonical import Digest, Json, checked_digest
from manifest.errors import NotReplayable
from manifest.models import Manifest

_LONGEST_ARGUMENT = 1 << 17  # what Linux takes as one
_LONGEST_PATH = 4096
_MOST_FILES = 100_000


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("it holds a null character")
    os.fsencode(value)  # raises ValueError where the system has no form of it
    return value


def _absolute(value: str) -> str:
    if not os.path.isabs(value):
        raise ValueError(f"{value[:80]!r} is not an absolute path")
    return os.path.normpath(value)


def _only_texts(value: Any) -> Any:
    # A value that could not be read stands there as a map.
    return (
        {k: v for k, v in value.items() if isinstance(v, str)} if isinstance(value, dict) else value
    )


Text = Annotated[str, Field(max_length=_LONGEST_ARGUMENT), AfterValidator(_text)]
PathText = Annotated[str, Field(max_length=_LONGEST_PATH), AfterValidator(_text)]
Folder = Annotated[PathText, AfterValidator(_absolute)]
DigestText = Annotated[Digest, AfterValidator(checked_digest)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Command(_Part):
    """How the program was started."""

    argv: tuple[Text | dict[str, Json], ...] = Field(default=(), strict=False, max_length=100_000)
    executable: PathText = ""
    cwd: PathText = "."
    root: Folder
    kind: str = "other"
    ranks: int | None = None
    """How many ranks the command starts, where they recorded themselves."""

    @property
    def arguments(self) -> list[str]:
        """The arguments; one that was not stored is left out, which the plan says."""
        return [argument for argument in self.argv if isinstance(argument, str)]


class Seeds(_Part):
    """What the run drew from."""

    entropy: str = Field(pattern=r"^[0-9a-f]{64}$")
    hash_seed: Json = None
    pinned_os_entropy: bool = False
    os_entropy_uses: dict[str, Json] = Field(default_factory=dict)


class FileFacts(_Part):
    """What is known of a file that the program read."""

    size: int | None = None
    mtime_us: int | None = None
    blob: DigestText | None = None
    digest: str | None = None
    missing: Json = None


class StandardInput(_Part):
    """What stood on standard input."""

    kind: str = "terminal"
    path: PathText = ""
    offset: int = Field(default=0, ge=0, lt=2**62)
    size: int | None = None
    mtime_us: int | None = None
    blob: DigestText | None = None


class _Environment(_Part):
    standard_input: StandardInput | None = Field(default=None, alias="given.stdin")


class _Code(_Part):
    files: dict[PathText, DigestText] = Field(default_factory=dict, max_length=_MOST_FILES)
    installed: dict[Text, dict[PathText, DigestText]] = Field(
        default_factory=dict, max_length=_MOST_FILES
    )


class Recorded(BaseModel):
    """A recorded run as a replay sees it."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    id: str
    mode: Literal["run", "record"]
    project: str
    name: str | None
    status: str
    started_at_ns: int
    command: Command
    seeds: Seeds
    standard_input: StandardInput | None
    sources: dict[str, Digest]
    """Blobs of the source that ran, by path relative to the root."""
    installed: dict[str, dict[str, Digest]]
    """Digests of the source that packages installed for editing ran, by package and path."""
    code: dict[str, Json]
    inputs: dict[str, FileFacts]
    outputs: frozenset[str]
    packages: dict[str, str]
    environment: dict[str, Json]
    hardware: dict[str, Json]
    settings: dict[str, Json]
    rank_count: int
    """How many ranks recorded themselves."""
    home: Path
    """Where the project lies here: at the recorded place, or where the run was brought to."""

    @property
    def root(self) -> str:
        """Where the project lay when the run was recorded."""
        return self.command.root

    def is_own(self, facts: FileFacts) -> bool:
        """Whether the run wrote an input itself, to read it again."""
        return facts.mtime_us is not None and facts.mtime_us * 1000 >= self.started_at_ns

    def here(self, path: str) -> str:
        """A recorded path, as it is here."""
        return moved(path, self.root, self.home)


def read(manifest: Manifest, *, base: Path | None = None) -> Recorded:
    """Check what a replay needs of a manifest.

    Args:
        manifest: Not trusted.
        base: The folder that keeps the run; a project that was moved lies around it.

    Raises:
        NotReplayable: It is not what Manifest writes; the first thing that is wrong is named.
    """
    sections = manifest.sections
    try:
        source = _Code.model_validate(sections.get("code", {}))
        command = Command.model_validate(sections.get("command", {}))
        return Recorded(
            id=manifest.id,
            mode=manifest.mode,
            project=_text(manifest.project),
            name=None if manifest.name is None else _text(manifest.name),
            status=manifest.status,
            started_at_ns=_nanoseconds(manifest.started_at),
            command=command,
            seeds=Seeds.model_validate(sections.get("seeds", {})),
            standard_input=_Environment.model_validate(
                sections.get("environment", {})
            ).standard_input,
            sources=dict(source.files),
            installed=source.installed,
            code=sections.get("code", {}),
            inputs=_files(sections.get("inputs", {})),
            outputs=frozenset(_path(name) for name in _limited(sections.get("outputs", {}))),
            packages=_only_texts(sections.get("packages", {})),
            environment=sections.get("environment", {}),
            hardware=sections.get("hardware", {}),
            settings=sections.get("settings", {}),
            rank_count=sum(process.rank is not None for process in manifest.processes.values()),
            home=_home(Path(command.root), base),
        )
    except ValidationError as error:
        raise NotReplayable([_first_fault(error)]) from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise NotReplayable([f"its manifest is not what Manifest writes: {error}"]) from None


def moved(path: str, root: str, place: Path) -> str:
    """A path below `root`, as it is below `place`; any other as it is."""
    if not os.path.isabs(path):
        return path
    path = os.path.normpath(path) if ".." in path else path
    return str(place / os.path.relpath(path, root)) if is_below(path, root) else path


def is_below(path: str, folder: str) -> bool:
    """Whether a path lies in a folder, or is it."""
    return os.path.isabs(path) and Path(os.path.normpath(path)).is_relative_to(folder)


def _home(root: Path, base: Path | None) -> Path:
    # Without a folder of runs nothing here is looked at: a service knows nothing of these paths.
    if base is None or base.name != ".manifest" or root.is_dir():
        return root
    return base.parent


def _files(section: dict[str, Json]) -> dict[str, FileFacts]:
    return {
        _path(path): FileFacts.model_validate(facts) for path, facts in _limited(section).items()
    }


def _limited(section: dict[str, Json]) -> dict[str, Json]:
    if len(section) > _MOST_FILES:
        raise ValueError(f"it names {len(section)} files, more than {_MOST_FILES}")
    return section


def _path(path: str) -> str:
    if len(path) > _LONGEST_PATH:
        raise ValueError(f"a path of {len(path)} characters")
    return _text(path)


def _nanoseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1e9)


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part)[:80] for part in first["loc"])
    return f"its manifest is not what Manifest writes: {place}: {first['msg']}"
