"""The tour behind `make demo`: record, replay, change something, and see what changed.

Ends with exit code 1 if the replay is not identical or the diff does not show both changes.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
FOLDER = CHECKOUT / ".demo"
LOOP = "    for epoch in range(args.epochs):\n"
DECAY = '        optimizer.param_groups[0]["lr"] = args.lr * 0.8**epoch\n'
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


def main() -> None:
    """Play the five acts."""
    started = time.monotonic()
    prepare()

    act(1, "Record", "A training with dropout, augmentation and two workers. It sets no seed.")
    run("manifest run -- python digits.py --epochs 2")

    act(2, "Replay", "From that record alone: the same bits again, at every step?")
    expect("identical" in run("manifest replay @latest").lower(), "the replay is not identical")

    act(3, "Change", "The learning rate now decays, and one thread is used instead of all.")
    decay_the_learning_rate()
    run("git diff --unified=1 digits.py")
    say("`--like` gives the new run the randomness of the old one: only the change acts.")
    run("OMP_NUM_THREADS=1 manifest run --like @latest -- python digits.py --epochs 2")

    act(4, "Compare", "What is different, can it change results, and where did it begin?")
    found = run("manifest diff @prev @latest")
    expect("num_threads" in found, "the diff does not show the setting")
    expect("0.8**epoch" in found, "the diff does not show the line")

    act(5, "Tell apart", "Which of the two did it? The same again, but with all threads.")
    run("manifest run --like @latest -- python digits.py --epochs 2")
    found = run("manifest diff @latest~2 @latest")
    expect("0.8**epoch" in found, "the diff does not show the line")
    expect("step 30" in found, "the diff does not show the first step that differs")
    say(
        "The line acts from step 30 on, where the second epoch begins. What differed before "
        "was the work of the threads."
    )

    heading("Everything lies in one folder; nothing was sent anywhere")
    run("manifest ls")
    farewell(time.monotonic() - started)


def prepare() -> None:
    """Make a small git repository with the training script in it."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    shutil.copy(CHECKOUT / "examples" / "digits.py", FOLDER)
    (FOLDER / ".gitignore").write_text("__pycache__/\n")
    author = ["-c", "user.name=Demo", "-c", "user.email=demo@example.org"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "Train on digits"]):
        subprocess.run(["git", *command], cwd=FOLDER, check=True)


def decay_the_learning_rate() -> None:
    """Change one line of the training script, with an effect from the second epoch on."""
    script = FOLDER / "digits.py"
    source = script.read_text()
    expect(LOOP in source, f"{script} has no training loop to change")
    script.write_text(source.replace(LOOP, LOOP + DECAY))


def run(line: str) -> str:
    """Show a command as it is typed, run it, show and return what it prints."""
    print(f"\n{bold('$ ' + line)}", flush=True)
    variables, command = split_variables(line)
    process = subprocess.Popen(
        command,
        cwd=FOLDER,
        env=environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    for text in process.stdout:
        print(text, end="", flush=True)
        lines.append(_STYLE.sub("", text))
    code = process.wait()
    expect(code == 0, f"`{line}` ended with exit code {code}")
    return "".join(lines)


def split_variables(line: str) -> tuple[dict[str, str], list[str]]:
    """Split `NAME=value program argument` as a shell does."""
    words = shlex.split(line)
    count = next(index for index, word in enumerate(words) if "=" not in word)
    return dict(word.split("=", 1) for word in words[:count]), words[count:]


def environment() -> dict[str, str]:
    """The user's environment, with this Python first and nothing that would lead elsewhere."""
    names = [name for name in os.environ if not name.startswith(("MANIFEST_", "GIT_"))]
    environ = {name: os.environ[name] for name in names if name != "OMP_NUM_THREADS"}
    environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", "")])
    environ["GIT_PAGER"] = "cat"
    if is_coloured():
        git_colours = {"COUNT": "1", "KEY_0": "color.ui", "VALUE_0": "always"}
        environ |= {f"GIT_CONFIG_{name}": value for name, value in git_colours.items()}
        environ["FORCE_COLOR"] = "1"
    return environ


def act(number: int, title: str, what: str) -> None:
    """Announce what comes."""
    heading(f"{number}  {title}")
    say(what)


def heading(text: str) -> None:
    """Begin a part."""
    print(f"\n\n{bold(f'── {text} '.ljust(76, '─'))}")


def say(what: str) -> None:
    """Speak to the reader."""
    print("\n" + textwrap.fill(what, 76), flush=True)


def farewell(seconds: float) -> None:
    """Say where to go next."""
    heading("Done")
    say(f"Five acts in {seconds:.0f} s. Try it on your own training, with no change to it:")
    print("\n    manifest run -- python train.py\n    manifest replay @latest\n")
    say(f"The runs of this tour: cd {os.path.relpath(FOLDER)} && manifest show @latest")


def expect(fact: object, otherwise: str) -> None:
    """Stop the tour where it does not show what it promises."""
    if not fact:
        sys.exit(f"\ndemo: {otherwise}")


def bold(text: str) -> str:
    """Set off a line, where there is a terminal to do so."""
    return f"\x1b[1m{text}\x1b[0m" if is_coloured() else text


def is_coloured() -> bool:
    """Whether colours will be seen and are wanted."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


if __name__ == "__main__":
    main()
