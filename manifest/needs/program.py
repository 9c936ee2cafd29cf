"""The program that is started again: command, standard input, randomness, variables, ranks."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from manifest.canonical import digest_bytes
from manifest.environment import asked
from manifest.filefacts import content_digest
from manifest.needs.items import PlanItem, Wish, impossible, item, shortened
from manifest.recorded import FileFacts, Recorded, StandardInput

_SESSIONS: Final = {
    "notebook": "it was recorded in a notebook, whose cells have no order that could be run again",
    "interactive": "it was recorded in an interactive session, which nobody can type again",
}
_TAKES_A_PROGRAM: Final = ("-c", "-m")
_TAKES_A_VALUE: Final = ("-W", "-X", "--check-hash-based-pycs")


def executable(recorded: Recorded, wish: Wish) -> str | None:
    """The interpreter or program to start, if it is there and fits the command."""
    argv = recorded.command.arguments
    if not argv:
        return None
    if wish.changes.python is not None and is_python(recorded):
        return wish.changes.python
    known = recorded.command.executable
    if os.access(known, os.X_OK) and os.path.isfile(known) and _fits(known, argv[0]):
        return known
    return shutil.which("python" if argv[0].endswith(".py") else argv[0])


def is_python(recorded: Recorded) -> bool:
    """Whether the command starts Python itself."""
    argv = recorded.command.arguments
    return bool(argv) and (argv[0].endswith(".py") or is_python_name(argv[0]))


def is_from_manifest(path: str, recorded: Recorded) -> bool:
    """Whether a manifest alone says that this program is one to start."""
    argv = recorded.command.arguments
    is_named_alone = bool(argv) and os.sep not in argv[0]
    return not (is_named_alone and path == shutil.which(argv[0]))


def command(recorded: Recorded, wish: Wish) -> Iterator[PlanItem]:
    """The arguments: whole, and those of something that can be started."""
    argv, kept = recorded.command.argv, recorded.standard_input
    if recorded.command.kind in _SESSIONS:
        why = f"{_SESSIONS[recorded.command.kind]}; `show` and `diff` work, and a script can be run"
        yield impossible("command", why)
        return
    if not argv:
        yield impossible("command", "no command was recorded")
        return
    hidden = [index for index, argument in enumerate(argv) if not isinstance(argument, str)]
    if hidden:
        yield impossible("command", f"argument {hidden[0]} looked like a secret and was not stored")
    elif _reads_program(recorded.command.arguments) and not (kept and kept.blob):
        was_typed = kept is not None and kept.kind == "terminal"
        where = "typed in" if was_typed else "read from standard input"
        yield impossible("command", f"the program was {where}, and is not kept")
    else:
        why = "the same arguments, in a fresh process"
        yield item("command", "restorable", why, "certain")
    if wish.changes.arguments:
        why = f"with {len(wish.changes.arguments)} further arguments, on purpose"
        yield item("arguments", "changed", why, "certain")


def standard_input(recorded: Recorded, wish: Wish) -> Iterator[PlanItem]:
    """What the program was given to read."""
    kept = recorded.standard_input
    if kept is None or kept.kind in ("terminal", "nothing"):
        return
    if kept.kind != "file":
        why = f"it was given by a {kept.kind}, which was not kept; the replay finds nothing there"
        yield item("standard input", "approximate", why, "possible")
    elif (problem := input_problem(kept, recorded)) is not None:
        yield impossible("standard input", f"{kept.path} {problem}")
    else:
        why = f"{os.path.basename(kept.path)}, as it was"
        yield item("standard input", "restorable", why, "certain")


def input_problem(kept: StandardInput, recorded: Recorded) -> str | None:
    """Why the file that stood on standard input cannot be given again; None where it can."""
    if kept.blob is not None:
        return None
    facts = FileFacts(size=kept.size, mtime_us=kept.mtime_us)
    return changed(recorded.here(kept.path), facts)


def randomness(recorded: Recorded, wish: Wish) -> Iterator[PlanItem]:
    """Where random numbers come from."""
    seeds, is_run = recorded.seeds, recorded.mode == "run"
    if wish.changes.is_entropy_fresh:
        yield item("randomness", "changed", "unseeded sources draw anew, on purpose", "certain")
    else:
        why = (
            "unseeded sources and the hash seed start from the recorded entropy"
            if is_run
            else "generator states are put back where `record()` captured them"
        )
        yield item("randomness", "restorable", why, "certain")
    if wish.changes.hash_seed is not None:
        yield item("hash seed", "changed", f"{wish.changes.hash_seed}, on purpose", "certain")
    elif not is_run and not str(seeds.hash_seed or "").isdigit():
        why = (
            "PYTHONHASHSEED was not set, so the order of sets of strings was random; "
            "`manifest run` pins it"
        )
        yield item("hash seed", "approximate", why, "possible")
    if seeds.os_entropy_uses and not seeds.pinned_os_entropy:
        why = (
            f"{shortened(next(iter(seeds.os_entropy_uses)), most=200)} drew from the operating "
            "system, which is not repeated; record with --pin-entropy to repeat it"
        )
        yield item("os entropy", "approximate", why, "possible")


def ranks(recorded: Recorded, wish: Wish) -> Iterator[PlanItem]:
    """Whether all processes that trained together can be started together."""
    count = recorded.environment.get("launcher.world_size")
    if recorded.mode == "record" and isinstance(count, int) and count > 1:
        yield _ranks_that_recorded_themselves(recorded, count)
    machines = recorded.environment.get("launcher.nodes")
    if isinstance(machines, int) and machines > 1:
        yield impossible(
            "ranks",
            f"they ran on {machines} machines, and a replay starts those of one; start it on all "
            "at once, with --best-effort",
        )


def _ranks_that_recorded_themselves(recorded: Recorded, count: int) -> PlanItem:
    found = recorded.rank_count
    if recorded.command.ranks != count:
        return impossible(
            "ranks",
            f"{found} of {count} ranks recorded themselves, and what started them is not known; "
            "`manifest run -- torchrun …` records and repeats all of them",
        )
    if found != count:
        return impossible(
            "ranks",
            f"{found} of {count} ranks recorded themselves, so the others cannot be put back where "
            "they were; call `record()` in each",
        )
    why = f"all {count} are started again by the launcher that started them"
    return item("ranks", "restorable", why, "certain")


def variables(recorded: Recorded, wish: Wish) -> Iterator[PlanItem]:
    """Environment variables that the program asked for by name."""
    environment, changed_names = recorded.environment, wish.changes.variables
    reasons = asked.not_restored(environment, os.environ)
    for name in changed_names:
        yield item(f"variable {name}", "changed", "set on purpose", "possible")
    for name, reason in reasons.items():
        if name not in changed_names:
            why = f"the program asked for it; {reason}: set it as it was, then replay"
            yield item(f"variable {name}", "impossible", why, "possible")
    restored = sum(key.startswith("asked.") for key in environment) - len(reasons)
    if restored > 0:
        why = f"{restored} that the program asked for by name"
        yield item("variables", "restorable", why, "certain")


def settings(recorded: Recorded, wish: Wish) -> Iterator[PlanItem]:
    """Settings of libraries that are set otherwise."""
    for key, value in wish.changes.settings.items():
        yield item(key, "changed", f"{shortened(value)}, on purpose", "certain")


def changed(path: str, facts: FileFacts) -> str | None:
    """How a file differs from what was recorded of it; None where it does not."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        return f"cannot be read any more: {getattr(error, 'strerror', None) or error}"
    if not stat.S_ISREG(status.st_mode):  # a device has no end
        return "is no regular file any more"
    if status.st_size != facts.size:
        return f"had {facts.size} bytes, has {status.st_size}"
    if status.st_mtime_ns // 1000 == facts.mtime_us:
        return None
    if facts.blob is not None and is_same(Path(path), facts.blob):
        return None
    if facts.digest is not None and content_digest(Path(path)) == facts.digest:
        return None
    return "was changed since"


def is_same(path: Path, digest: str) -> bool:
    """Whether a file holds the bytes of a digest."""
    try:
        return path.is_file() and digest_bytes(path.read_bytes()) == digest
    except (OSError, ValueError):
        return False


def _fits(known: str, first: str) -> bool:
    # Else a manifest could show one program and start another.
    name = os.path.basename(known)
    return name == os.path.basename(first) or (first.endswith(".py") and is_python_name(name))


def is_python_name(path: str) -> bool:
    """Whether a program is an interpreter of Python, by its name."""
    name = os.path.basename(path)
    return name.startswith("python") and set(name.removeprefix("python")) <= set("0123456789.t")


def _reads_program(argv: Sequence[str]) -> bool:
    if not is_python_name(argv[0]):
        return False
    arguments = iter(argv[1:])
    for argument in arguments:
        if argument in _TAKES_A_VALUE:
            next(arguments, None)
        elif argument[:2] in _TAKES_A_PROGRAM:
            return False
        elif argument == "-" or not argument.startswith("-"):
            return argument == "-"
    return True
