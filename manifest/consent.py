"""Whether a run was recorded here, by this user; else whoever replays it is asked first.

A replay runs what a manifest says. What a manifest says of where it comes from is no proof: it
tells a run that someone sent from one's own, not from one that someone forged.
"""

from __future__ import annotations

import os
import shlex

from manifest.describing import shown
from manifest.environment.machine import identify_machine
from manifest.errors import DamagedRun, NotAgreed
from manifest.needs import program
from manifest.needs.items import Wish, shortened
from manifest.recorded import Recorded
from manifest.rundir import RunDirectory


def stranger(run: RunDirectory) -> str | None:
    """Who recorded a run, if it was not this user on this machine."""
    if (sender := run.sender()) is not None:
        return sender
    if (owner := run.path.stat().st_uid) != os.getuid():
        return f"user {owner}"
    try:
        told = run.origin()
    except DamagedRun:
        return "someone"
    here = identify_machine()
    if told.get("machine") != here["machine"]:
        return "someone on another machine" if "machine" in told else "someone"
    if told.get("uid") != here["uid"]:
        return f"user {shortened(told.get('uid'))}"
    return None


def question(run: RunDirectory, recorded: Recorded, wish: Wish) -> str | None:
    """What to ask before this run is replayed, in lines; None where nobody need be asked."""
    who = stranger(run)
    if who is None:
        return None
    executable = program.executable(recorded, wish) or "a program that is not here"
    words = [word if isinstance(word, str) else "<not stored>" for word in recorded.command.argv]
    place = recorded.home if wish.in_place else "a copy of " + str(recorded.home)
    lines = (
        f"{who} recorded this run; replaying it executes their code, with your rights:",
        f"  {shlex.join(words)}",
        f"  program  {executable}",
        f"  folder   {place}",
    )
    return "\n".join(map(shown, lines))  # else what they wrote could pass for a line of ours


def check(run: RunDirectory, recorded: Recorded, wish: Wish, *, is_agreed: bool) -> None:
    """Stop unless this user recorded the run or agreed to replay it.

    Raises:
        NotAgreed: Neither is so.
    """
    asked = None if is_agreed else question(run, recorded, wish)
    if asked is not None:
        raise NotAgreed(f"{asked}\nRead it, then add --yes (`is_agreed=True` in a program).")
