"""A run as a shell script, for where there is no Manifest: it repeats the run and compares nothing.

Every value of the manifest stands in single quotes, in a comment of one line, or encoded.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

from manifest import restarting, sources
from manifest.canonical import ABSENT, checked_digest
from manifest.describing import shown
from manifest.environment import asked, given, launcher, variables
from manifest.environment.source import LINK, SourceState
from manifest.errors import DigestMismatch, NotReplayable
from manifest.exports.requirements import requirements_text
from manifest.needs import program
from manifest.rebuilding import python_version
from manifest.recorded import Recorded, is_below
from manifest.rundir import RunDirectory
from manifest.workspace import confined

_MOST_BYTES: Final = 32 << 20
_REPOSITORY: Final = re.compile(
    r"(?:https|http|ssh|git)://[^\s-][^\s]*|[A-Za-z0-9_][\w.]*@[A-Za-z0-9][\w.-]*:[^\s-][^\s]*|/[^\n]*"
)
_NO_REPOSITORY: Final = (
    "no repository is known: only the files that ran are there; REPOSITORY can name it"
)
_TELL_VERSION: Final = "import platform; print(platform.python_version())"
_END: Final = "END"
"""Ends what stands in the script; no line of Base64 or of requirements is like it."""

_TOOLS: Final = r"""
put() { # PATH: write what comes encoded, nowhere but in the project
  mkdir -p -- "$(dirname -- "$1")"
  case "$(cd -P -- "$(dirname -- "$1")" && pwd)/" in
    "$project"/*) ;;
    *) echo "$1 leaves $project" >&2; exit 1 ;;
  esac
  rm -f -- "$1"
  base64 -d > "$1"
}
"""
_MAIN: Final = """
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  echo "usage: sh $0 FOLDER [lay-out|run]" >&2
  exit 2
fi
case ${2-all} in
  all|lay-out) mkdir -- "$1" ;;
  run) ;;
  *) echo "expected lay-out or run, found $2" >&2; exit 2 ;;
esac
folder=$(cd -P -- "$1" && pwd)
project=$folder/project
case ${2-all} in
  all) lay_out; run ;;
  lay-out) lay_out ;;
  run) run ;;
esac
"""


def script_text(recorded: Recorded, run: RunDirectory) -> str:
    """The script.

    Raises:
        NotReplayable: The run has no command, or holds more than a script can.
    """
    if not recorded.command.arguments or recorded.command.argv[0] != recorded.command.arguments[0]:
        raise NotReplayable(["no command was recorded that a script could start"])
    parts = [
        *_opening(recorded),
        _TOOLS.strip("\n"),
        "",
        "lay_out() {",
        *_layout(recorded, run),
        "}",
        "",
        "run() {",
        *_start(recorded),
        "}",
        _MAIN.rstrip("\n"),
    ]
    return "".join(f"{part}\n" for part in parts)


def _opening(recorded: Recorded) -> Iterator[str]:
    yield "#!/bin/sh"
    yield f"# Repeats run {recorded.id}, in a new folder:"
    yield "#   sh repeat.sh FOLDER           all of it"
    yield "#   sh repeat.sh FOLDER lay-out   its files and its environment alone"
    yield "#   sh repeat.sh FOLDER run       its command, after that"
    yield "# REPOSITORY says where else the repository is cloned from, ENVIRONMENT which"
    yield "# environment is taken as it is. Nothing is put back while it runs, and nothing is"
    yield "# compared: what nobody seeded draws anew. `manifest replay` does both."
    yield "# shellcheck disable=SC2016 # what looks like an expansion is a value"
    yield "set -eu"
    yield ""


def _layout(recorded: Recorded, run: RunDirectory) -> Iterator[str]:
    yield 'mkdir -- "$project"'
    project = restarting.project(recorded, None)
    yield from _repository(recorded, run, project.outputs)
    yield 'cd -- "$project"'
    bytes_left = _MOST_BYTES
    for name, digest in sorted(project.sources.items()):
        content = _blob(run, digest)
        bytes_left -= len(content)
        if bytes_left < 0:
            most = f"{_MOST_BYTES >> 20} MiB, the most that a script holds"
            raise NotReplayable([f"its files are larger than {most}; use --format archive"])
        yield from _put(str(confined(name)), content)
    yield from _environment(recorded)


def _repository(recorded: Recorded, run: RunDirectory, outputs: frozenset[str]) -> Iterator[str]:
    """The commit and what was changed since; no lines where there was no repository."""
    try:
        state = sources.read_back(recorded.code, run)
    except (NotReplayable, DigestMismatch) as error:
        yield f"# The repository cannot be laid out: {shown(str(error))}."
        return
    if state is None:
        return
    if state.commit is None or re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", state.commit) is None:
        yield "# The repository cannot be laid out: its commit has no name."
        return
    address = recorded.code.get("git.remote")
    is_known = isinstance(address, str) and _REPOSITORY.fullmatch(address) is not None
    yield f"repository={_quoted(address) if is_known and isinstance(address, str) else ''}"
    yield "repository=${REPOSITORY-$repository}"
    yield 'if [ -n "$repository" ]; then'
    yield 'git clone --quiet --no-checkout -- "$repository" "$project"'
    yield 'cd -- "$project"'
    yield f"git -c advice.detachedHead=false checkout --quiet --detach {state.commit}"
    yield from _changes(state, outputs)
    yield "else"
    yield f'echo "{_NO_REPOSITORY}" >&2'
    yield "fi"


def _changes(state: SourceState, outputs: frozenset[str]) -> Iterator[str]:
    if state.patch:
        yield f"base64 -d <<'{_END}' | git apply --index --whitespace=nowarn -"
        yield from _encoded(state.patch)
    # A file that nobody tracks may have been written while the state was read.
    untracked = [file for file in state.untracked if os.fsdecode(file.path) not in outputs]
    links = [file for file in untracked if file.mode == LINK]
    for file in untracked:
        if file.mode != LINK:
            name = str(confined(os.fsdecode(file.path)))
            yield from _put(name, file.content)
            if file.mode == "100755":
                yield f"chmod 755 -- {_quoted(name)}"
    for file in links:  # last, so that nothing is written through one
        name = str(confined(os.fsdecode(file.path)))
        target = os.fsdecode(file.content)
        if "\0" not in target:
            yield f"ln -s -- {_quoted(target)} {_quoted(name)}"
    for left_out in state.left_out:
        yield f"# not kept: {shown(os.fsdecode(left_out.path))}"
    if state.submodules:
        yield "# As they were committed; changes within them are not made again."
        yield "git submodule --quiet update --init --recursive"


def _environment(recorded: Recorded) -> Iterator[str]:
    version = python_version(recorded)
    yield 'if [ -n "${ENVIRONMENT-}" ]; then'
    yield 'ln -s -- "$ENVIRONMENT" "$folder/environment"'
    yield "return"
    yield "fi"
    yield f"""cat > "$folder/requirements.txt" <<'{_END}'"""
    yield requirements_text(recorded).rstrip("\n")
    yield _END
    yield "if command -v uv > /dev/null; then"
    wanted = f" --python {version}" if version else ""
    yield f'uv venv --quiet --no-project{wanted} "$folder/environment"'
    yield (
        "uv pip install --quiet --no-deps --index-strategy unsafe-best-match "
        '--python "$folder/environment" -r "$folder/requirements.txt"'
    )
    yield "else"
    python = "python" + (version.rpartition(".")[0] if version else "3")
    yield f'{python} -m venv "$folder/environment"'
    yield (
        '"$folder/environment/bin/python" -m pip install --quiet --no-deps '
        '-r "$folder/requirements.txt"'
    )
    yield "fi"


def _start(recorded: Recorded) -> Iterator[str]:
    folder = confined(recorded.command.cwd)
    yield f'mkdir -p -- "$project"/{_quoted(str(folder))}'
    yield f'cd -- "$project"/{_quoted(str(folder))}'
    yield "PATH=$folder/environment/bin:$PATH"
    yield "export PATH"
    if (version := python_version(recorded)) is not None:
        yield f"found=$(python -c '{_TELL_VERSION}')"
        told = f"this is Python $found; the run was recorded with {version}"
        yield f'[ "$found" = {version} ] || echo "{told}" >&2'
    for name, value in given_variables(recorded).items():
        yield f"unset {name}" if value is None else f"export {name}={_quoted(value)}"
    mask = given.mask(recorded.environment)
    if mask is not None:
        yield f"umask {mask:04o}"
    words = " ".join(_words(recorded))
    kept = recorded.standard_input
    is_nothing = kept is not None and kept.kind != "terminal"
    if is_nothing and kept is not None and kept.kind != "nothing":
        yield f"# Standard input was a {shown(kept.kind)[:40]}, which is not given again."
    yield f"exec {words} < /dev/null" if is_nothing else f"exec {words}"


def given_variables(recorded: Recorded) -> dict[str, str | None]:
    """The variables that a manifest may set, with their values; None for one that was not set."""
    is_launched = restarting.starts_with_launcher(recorded)
    environment = launcher.as_given(recorded.environment) if is_launched else recorded.environment
    found: dict[str, str | None] = {}
    for prefix, is_restorable in (
        ("env.", variables.is_restorable),
        ("asked.", asked.is_restorable),
    ):
        for key, value in environment.items():
            name = key.removeprefix(prefix)
            if name != key and value == ABSENT and is_restorable(name):
                found[name] = None
    found |= asked.restore_asked(environment, variables.restore_variables(environment, {}))
    return dict(sorted(found.items()))


def _words(recorded: Recorded) -> Iterator[str]:
    command = recorded.command
    first, *rest = command.argv
    if program.is_python(recorded):
        yield "python"
        if isinstance(first, str) and first.endswith(".py"):
            yield _word(first, recorded)
    elif isinstance(first, str):
        # Of the environment, wherever that was.
        is_elsewhere = os.path.isabs(first) and not is_below(first, recorded.root)
        yield _word(os.path.basename(first) if is_elsewhere else first, recorded)
    for number, argument in enumerate(rest, 1):
        if isinstance(argument, str):
            yield _word(argument, recorded)
        else:
            name = f"ARGUMENT_{number}"
            yield f'"${{{name}:?argument {number} was not stored: set {name}}}"'


def _word(argument: str, recorded: Recorded) -> str:
    if not is_below(argument, recorded.root):
        return _quoted(argument)
    inside = os.path.relpath(argument, recorded.root)
    return '"$project"' if inside == "." else f'"$project"/{_quoted(inside)}'


def _put(name: str, content: bytes) -> Iterator[str]:
    yield f"put {_quoted(f'./{PurePosixPath(name)}')} <<'{_END}'"
    yield from _encoded(content)


def _encoded(content: bytes) -> Iterator[str]:
    yield from textwrap.wrap(base64.b64encode(content).decode("ascii"), 76)
    yield _END


def _blob(run: RunDirectory, digest: str) -> bytes:
    try:
        return run.get_blob(checked_digest(digest))
    except KeyError:
        raise NotReplayable([f"the run does not hold its {digest}"]) from None


def _quoted(text: str) -> str:
    return shlex.quote(text)
