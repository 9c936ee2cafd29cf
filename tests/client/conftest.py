"""A folder of a user with runs in it, and the command line called in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from manifest.canonical import Json
from manifest.journal import Journal
from manifest.origin import RUN, Origin, write_origin
from manifest.rundir import RunDirectory
from manifest_client.cli.main import main

Record = Callable[..., RunDirectory]


class Answer(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str


Call = Callable[..., Answer]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs are kept in an empty folder, which is entered."""
    folder = tmp_path / "digits"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder / ".manifest"


@pytest.fixture
def record(base: Path) -> Record:
    """Write a run directory as a recorded program does; each is newer than the one before."""
    numbers = count(1)

    def write(
        *,
        command: Sequence[str] = ("python", "train.py"),
        name: str | None = None,
        project: str | None = None,
        replay_of: str | None = None,
        sections: dict[str, dict[str, Json]] | None = None,
        notes: Sequence[str] = (),
        exit_code: int = 0,
        is_over: bool = True,
    ) -> RunDirectory:
        run = RunDirectory.create(base, f"0199c3f2-{next(numbers):04x}-7000-8000-000000000000")
        _, journal = run.claim("run")
        origin = Origin(
            mode=RUN,
            command=command,
            executable="python",
            folder=Path.cwd(),
            entropy=bytes(32),
            hash_seed="0",
            name=name,
            project=project,
            replay_of=replay_of,
        )
        write_origin(journal, run, origin)
        _write_facts(journal, sections or {}, notes)
        if is_over:
            journal.append("exit", code=exit_code, signal=None)
            run.write_manifest()
        journal.close()
        return run

    return write


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call `manifest` with arguments."""

    def answer(*arguments: str) -> Answer:
        monkeypatch.setattr("sys.argv", ["manifest", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ending:
            main()
        return Answer(int(ending.value.code or 0), *capsys.readouterr())

    return answer


def _write_facts(
    journal: Journal, sections: dict[str, dict[str, Json]], notes: Sequence[str]
) -> None:
    for section, values in sections.items():
        journal.append("section", section=section, values=values)
    for note in notes:
        journal.append("note", where="probe", what=note)
