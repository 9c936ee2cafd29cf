"""What a replayed program finds: the project as it was, and nothing of the user's to spoil."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from manifest import replaying
from manifest.changing import read_changes
from manifest.errors import NotReplayable
from manifest.launching import Launched, launch
from manifest.models import Verdict
from manifest.planning import Wish
from manifest.replaying import plan, replay
from manifest.rundir import RunDirectory, run_directories

Script = Callable[[str, str], Path]
Recorded = Callable[..., Launched]

SAY = """
import json, os, subprocess, sys
def text(path):
    return open(path).read() if os.path.exists(path) else None
head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
found = {name: text(name) for name in sys.argv[2:]}
found |= {"cwd": os.getcwd(), "head": head, "names": sorted(os.listdir("."))}
open(sys.argv[1], "a").write(json.dumps(found) + "\\n")
"""


# What another program reads is not recorded, so that it is not laid out for that reason.
CAT = "import os, sys; os.system(f'cat {sys.argv[2]}.* >> {sys.argv[1]}')"


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.fixture
def repository(
    project: Path, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The project as a repository with a commit, a change, and files that git does not track."""
    (tmp_path / "config").write_text("[user]\nname = Ada\nemail = ada@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    script("say.py", SAY)
    script("rates.json", "committed")
    script("sub/keep.txt", "kept")
    script(".gitignore", "data/\n.manifest/\n")
    git(project, "init", "--quiet", "--initial-branch=main")
    git(project, "add", "-A")
    git(project, "commit", "--quiet", "-m", "first")
    script("rates.json", "changed")
    script("notes.txt", "not tracked")
    script("data/small.csv", "1,2")
    (project / "data" / "large.bin").write_bytes(bytes(2 << 20))
    old = time.time() - 100
    for path in (project / "data").iterdir():
        os.utime(path, (old, old))
    return project


def said(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file of a folder with its time and content, those of git included."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and ".manifest" not in path.parts:
            status = path.stat()
            found[str(path)] = (status.st_mtime_ns, status.st_mode, path.read_bytes())
    return found


NAMES = ("rates.json", "notes.txt", "data/small.csv", "late.txt")


def test_a_project_is_laid_out_from_its_commit_and_nothing_of_the_users_is_touched(
    repository: Path, recorded: Recorded, base: Path, tmp_path: Path, script: Script
) -> None:
    out = tmp_path / "said"
    run = recorded("say.py", str(out), *NAMES).run
    head = git(repository, "rev-parse", "HEAD")
    script("rates.json", "edited since")
    script("late.txt", "brought since")
    os.utime(repository / "late.txt", (1, 1))
    (repository / "notes.txt").unlink()
    git(repository, "commit", "--quiet", "-am", "second")
    script("rates.json", "edited again")
    status = git(repository, "status", "--porcelain=v2")  # itself refreshes the index
    before = snapshot(repository)

    made = plan(run)
    (source,) = [item for item in made.items if item.what == "source"]
    assert source.state == "restorable"
    assert f"commit {head[:12]} and" in source.why
    assert "1 untracked files" in source.why
    replay(run, base=base)

    first, again = said(out)
    assert {name: again[name] for name in NAMES} == {name: first[name] for name in NAMES}
    assert again["rates.json"] == "changed"
    assert again["head"] == first["head"] == head
    assert again["cwd"] != first["cwd"]
    assert snapshot(repository) == before
    assert git(repository, "status", "--porcelain=v2") == status
    assert git(repository, "worktree", "list").count("\n") == 0


def test_a_program_below_its_root_runs_at_the_same_place_of_the_copy(
    repository: Path,
    recorded: Recorded,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(repository / "sub")
    run = recorded("../say.py", str(tmp_path / "said"), "../rates.json").run
    replay(run, base=base)
    first, again = said(tmp_path / "said")
    assert str(again["cwd"]).endswith("/project/sub")
    assert again["names"] == first["names"] == ["keep.txt"]
    newest, oldest = (found.document()["sections"]["command"] for found in run_directories(base))
    assert newest["cwd"] == oldest["cwd"] == "sub"


def test_a_commit_that_is_gone_is_said_and_what_ran_is_still_there(
    repository: Path, recorded: Recorded, base: Path, tmp_path: Path, script: Script
) -> None:
    run = recorded("say.py", str(tmp_path / "said"), *NAMES).run
    subprocess.run(["rm", "-rf", repository / ".git"], check=True)
    git(repository, "init", "--quiet")
    script("say.py", "raise SystemExit('edited since')")
    (source,) = [item for item in plan(run).items if item.what == "source"]
    assert source.state == "approximate"
    assert "does not have this commit" in source.why
    verdict = replay(run, base=base)
    assert any("does not have this commit" in reason for reason in verdict.reasons)
    assert len(said(tmp_path / "said")) == 2


def test_without_its_commit_a_program_below_its_root_still_runs_at_the_same_place(
    repository: Path,
    recorded: Recorded,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(repository / "sub")
    run = recorded("../say.py", str(tmp_path / "said")).run
    subprocess.run(["rm", "-rf", repository / ".git"], check=True)
    replay(run, base=base)
    newest, oldest = (found.document()["sections"] for found in run_directories(base))
    assert newest["command"]["cwd"] == oldest["command"]["cwd"] == "sub"
    assert newest["code"]["files"] == oldest["code"]["files"]


def test_source_that_ran_with_another_content_than_its_commit_wins(
    repository: Path, recorded: Recorded, base: Path, tmp_path: Path, script: Script
) -> None:
    # Written by the program itself after git was asked: what ran is what counts.
    script(
        "own.py",
        "import sys\nopen('made.py', 'w').write('X = 1')\nimport made\n"
        "open(sys.argv[1], 'a').write(str(made.X))\nopen('made.py', 'w').write('X = 2')\n",
    )
    script("made.py", "X = 0")
    git(repository, "add", "made.py")
    git(repository, "commit", "--quiet", "-m", "made")
    run = recorded("own.py", str(tmp_path / "said")).run
    items = [item for item in plan(run).items if item.what.startswith("source")]
    assert any("made.py" in item.what and "another content" in item.why for item in items)
    replay(run, base=base)
    assert (tmp_path / "said").read_text() == "11"


def test_a_clean_submodule_is_laid_out(
    repository: Path, recorded: Recorded, base: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    (other / "lib.txt").write_text("of the library")
    git(other, "add", "-A")
    git(other, "commit", "--quiet", "-m", "lib")
    git(
        repository,
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "--quiet",
        "add",
        str(other),
        "lib",
    )
    git(repository, "commit", "--quiet", "-am", "lib")
    run = recorded("say.py", str(tmp_path / "said"), "lib/lib.txt").run
    (repository / "lib" / "lib.txt").write_text("edited since")
    replay(run, base=base)
    first, again = said(tmp_path / "said")
    assert again["lib/lib.txt"] == first["lib/lib.txt"] == "of the library"


def test_a_filter_of_the_users_is_not_run_and_its_files_are_those_of_the_user(
    repository: Path, recorded: Recorded, base: Path, tmp_path: Path, script: Script
) -> None:
    ran = tmp_path / "filter ran"
    filters = {"clean": "sed s/data/pointer/", "smudge": f"touch '{ran}'; sed s/pointer/data/"}
    for name, command in filters.items():
        git(repository, "config", "--global", f"filter.lfs.{name}", command)
    script(".gitattributes", "*.big filter=lfs\n")
    script("model.big", "data")
    git(repository, "add", "-A")
    git(repository, "commit", "--quiet", "-m", "big")
    assert git(repository, "show", "HEAD:model.big") == "pointer"
    ran.unlink(missing_ok=True)
    run = recorded("-c", CAT, str(tmp_path / "said"), "model").run
    replay(run, base=base)
    assert (tmp_path / "said").read_text() == "datadata"
    assert not ran.exists()


def test_a_relative_link_out_of_the_project_still_leads_there(
    repository: Path, recorded: Recorded, base: Path, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "a.csv").write_text("shared")
    (repository / "shared").symlink_to("../shared")
    git(repository, "add", "shared")
    git(repository, "commit", "--quiet", "-m", "link")
    run = recorded("-c", CAT, str(tmp_path / "said"), "shared/a").run
    replay(run, base=base)
    assert (tmp_path / "said").read_text() == "sharedshared"


def test_a_project_that_was_moved_is_replayed_from_where_it_is(
    repository: Path,
    recorded: Recorded,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = recorded("say.py", str(tmp_path / "said"), *NAMES).run
    moved = tmp_path / "moved"
    repository.rename(moved)
    monkeypatch.chdir(moved)
    run = RunDirectory(moved / ".manifest" / "runs" / run.id)
    replay(run, base=moved / ".manifest")
    first, again = said(tmp_path / "said")
    assert {name: again[name] for name in NAMES} == {name: first[name] for name in NAMES}


def test_what_the_program_changes_in_data_of_the_users_is_said_or_done_to_a_copy(
    repository: Path, recorded: Recorded, base: Path, tmp_path: Path, script: Script
) -> None:
    script(
        "spoil.py",
        "import os, sys\n"
        "if os.path.exists(sys.argv[1]):\n"  # not the first time
        "    for name in ('data/small.csv', 'data/large.bin'):\n"
        "        open(name, 'r+').write('spoilt')\n"
        "open(sys.argv[1], 'w')\n",
    )
    run = recorded("spoil.py", str(tmp_path / "marker")).run
    verdict = replay(run, base=base)
    assert (repository / "data" / "small.csv").read_text() == "1,2"
    (reason,) = [reason for reason in verdict.reasons if "files of yours" in reason]
    assert "large.bin" in reason
    assert "small.csv" not in reason
    assert "files of yours" in json.dumps(run_directories(base)[0].verdict())


def test_spaces_and_other_alphabets_in_names_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mein Projekt – 実験"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "lauf ü.py").write_text(SAY)
    (folder / "größe 1.txt").write_text("x")
    git(folder, "init", "--quiet")
    base = folder / ".manifest"
    command = [sys.executable, "lauf ü.py", str(tmp_path / "said"), "größe 1.txt"]
    replay(launch(command, base=base).run, base=base)
    first, again = said(tmp_path / "said")
    assert again["größe 1.txt"] == first["größe 1.txt"] == "x"


def test_the_workspace_goes_unless_it_is_to_be_kept(
    project: Path,
    script: Script,
    recorded: Recorded,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script(
        "write.py",
        "import os\nos.makedirs('out/deep')\nopen('out/deep/a', 'w')\nos.chmod('out', 0o500)\n",
    )
    run = recorded("write.py").run
    os.chmod(project / "out", 0o700)
    subprocess.run(["rm", "-r", project / "out"], check=True)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    replay(run, base=base)
    assert list((tmp_path / "scratch").iterdir()) == []
    assert not (project / "out").exists()
    heard: list[str] = []
    replay(run, base=base, keep_workspace=True, on_progress=heard.append)
    (kept,) = (tmp_path / "scratch").iterdir()
    assert (kept / "project" / "out" / "deep" / "a").exists()
    assert f"the workspace is {kept / 'project'}" in heard


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_replay_that_is_stopped_leaves_nothing_behind(
    number: int, project: Path, script: Script, recorded: Recorded, base: Path, tmp_path: Path
) -> None:
    script(
        "wait.py",
        "import os, sys, time\nopen(sys.argv[1], 'a').write('x')\n"
        "if os.path.getsize(sys.argv[1]) > 1: time.sleep(60)\n",
    )
    marker, scratch = tmp_path / "marker", tmp_path / "scratch"
    run = recorded("wait.py", str(marker)).run
    scratch.mkdir()
    command = [str(Path(sys.executable).with_name("manifest")), "replay", run.id]
    environ = {**os.environ, "TMPDIR": str(scratch)}
    process = subprocess.Popen(command, env=environ, start_new_session=True, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while marker.stat().st_size < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(scratch.iterdir()) != []
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_replay_that_is_stopped_between_two_programs_leaves_nothing_behind(number: int) -> None:
    folders: list[Path] = []

    def lay_out() -> None:
        with replaying._folder(keep=False) as folder:
            folders.append(folder)
            (folder / "file").touch()
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ending:
        lay_out()
    assert ending.value.code == 128 + number
    assert not folders[0].exists()
    assert signal.getsignal(number) == before


def test_a_file_on_standard_input_is_given_again(
    script: Script, base: Path, tmp_path: Path, project: Path
) -> None:
    script("read.py", "import sys\nopen(sys.argv[1], 'a').write(sys.stdin.read() + '|')\n")
    script("words.txt", "one two")
    with standard_input_from(project / "words.txt"):
        run = launch([sys.executable, "read.py", str(tmp_path / "said")], base=base).run
    script("words.txt", "edited since")
    items = {item.what: item for item in plan(run).items}
    assert items["standard input"].state == "restorable"
    replay(run, base=base)
    assert (tmp_path / "said").read_text() == "one two|one two|"


def test_a_program_read_from_a_file_on_standard_input_repeats(
    script: Script, base: Path, tmp_path: Path, project: Path
) -> None:
    script("program.txt", f"open({str(tmp_path / 'said')!r}, 'a').write('ran ')\n")
    with standard_input_from(project / "program.txt"):
        run = launch([sys.executable, "-"], base=base).run
    (project / "program.txt").unlink()
    replay(run, base=base)
    assert (tmp_path / "said").read_text() == "ran ran "


def test_a_pipe_on_standard_input_is_not_kept_and_that_is_said(
    script: Script,
    base: Path,
    tmp_path: Path,
    standard_input: Callable[[bytes], AbstractContextManager[None]],
) -> None:
    script("read.py", "import sys\nopen(sys.argv[1], 'a').write(sys.stdin.read() + '|')\n")
    with standard_input(b"piped"):
        run = launch([sys.executable, "read.py", str(tmp_path / "said")], base=base).run
    items = {item.what: item for item in plan(run).items}
    assert (items["standard input"].state, items["standard input"].impact) == (
        "approximate",
        "possible",
    )
    with standard_input(b"of another time"):
        replay(run, base=base)
    assert (tmp_path / "said").read_text() == "piped||"


def test_the_program_is_given_the_recorded_processors_and_mask(
    script: Script, base: Path, tmp_path: Path
) -> None:
    available = sorted(os.sched_getaffinity(0))
    script(
        "ask.py",
        "import os, sys\nmask = os.umask(0)\n"
        "open(sys.argv[1], 'a').write(f'{sorted(os.sched_getaffinity(0))} {mask:o}\\n')\n",
    )
    os.sched_setaffinity(0, available[:1])
    mask = os.umask(0o027)
    try:
        run = launch([sys.executable, "ask.py", str(tmp_path / "said")], base=base).run
    finally:
        os.sched_setaffinity(0, available)
        os.umask(mask)
    replay(run, base=base)
    first, again = (tmp_path / "said").read_text().splitlines()
    assert first == again == f"{available[:1]} 27"
    assert sorted(os.sched_getaffinity(0)) == available


CHANGED = """
import json, os, random, sys
names = ["OMP_NUM_THREADS", "MANIFEST_SET", "MANIFEST_REPLAY", "MANIFEST_REPLAY_CHANGED"]
found = {name: os.environ.get(name) for name in [*names, "PYTHONHASHSEED"]}
found |= {"drawn": random.random(), "arguments": sys.argv[2:], "python": sys.executable}
open(sys.argv[1], "a").write(json.dumps(found) + "\\n")
"""


def test_a_replay_can_differ_on_purpose_and_says_so_first(
    script: Script, recorded: Recorded, base: Path, tmp_path: Path
) -> None:
    script("changed.py", CHANGED)
    out = tmp_path / "said"
    run = recorded("changed.py", str(out)).run
    replay(run, base=base)
    pairs = [
        "env.OMP_NUM_THREADS=1",
        "torch.num_threads=1",
        "entropy=fresh",
        "env.HF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz012345",
    ]
    verdict = replay(run, base=base, changes=read_changes(pairs), extra_args=["--epochs"])
    replay(run, base=base, changes=read_changes(["hash_seed=7"]))
    first, same, changed, seeded = said(out)

    assert same["drawn"] == first["drawn"] == seeded["drawn"] != changed["drawn"]
    assert same["PYTHONHASHSEED"] == first["PYTHONHASHSEED"] != changed["PYTHONHASHSEED"]
    assert seeded["PYTHONHASHSEED"] == "7"
    assert same["MANIFEST_REPLAY"] == str(run.path)
    assert (same["MANIFEST_REPLAY_CHANGED"], same["MANIFEST_SET"]) == (None, None)
    assert changed["OMP_NUM_THREADS"] == "1"
    assert changed["MANIFEST_REPLAY_CHANGED"] == "1"
    assert json.loads(str(changed["MANIFEST_SET"])) == {"torch.num_threads": 1}
    assert changed["arguments"] == ["--epochs"]
    assert verdict.changed == (
        "env.OMP_NUM_THREADS=1",
        "env.HF_TOKEN=<redacted>",
        "torch.num_threads=1",
        "entropy=fresh",
        "argument --epochs",
    )
    kept = run_directories(base)[1].verdict()
    assert Verdict.model_validate(kept).changed == verdict.changed


def test_another_interpreter_can_be_asked_for(
    script: Script, recorded: Recorded, base: Path, tmp_path: Path
) -> None:
    script("changed.py", CHANGED)
    run = recorded("changed.py", str(tmp_path / "said")).run
    environment = tmp_path / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    changes = read_changes([f"python={environment / 'bin' / 'python'}"])
    made = plan(run, wish=Wish(changes=changes))
    assert [item.state for item in made.items if item.what == "interpreter"] == ["changed"]
    assert made.blocking == ()
    replay(run, base=base, changes=changes)
    assert said(tmp_path / "said")[1]["python"] == str(environment / "bin" / "python")


def test_a_session_is_not_replayable_and_says_why(base: Path, project: Path) -> None:
    code = "import manifest\nrun = manifest.record()\nprint(run.path)\n"
    done = subprocess.run(
        [sys.executable, "-i", "-q"], input=code, capture_output=True, text=True, check=True
    )
    run = RunDirectory(Path(done.stdout.strip().splitlines()[-1]))
    (command,) = [item for item in plan(run).items if item.what == "command"]
    assert (command.state, command.impact) == ("impossible", "certain")
    assert "interactive session" in command.why
    with pytest.raises(NotReplayable, match="interactive session"):
        replay(run, base=base)


class standard_input_from:  # noqa: N801, used as a function
    """Let programs that are started now read a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        self.kept = os.dup(0)
        file = os.open(self.path, os.O_RDONLY)
        os.dup2(file, 0)
        os.close(file)

    def __exit__(self, *error: object) -> None:
        os.dup2(self.kept, 0)
        os.close(self.kept)


GOING_ON = """
import sys, time
import manifest, torch
run = manifest.record()
torch.manual_seed(1)
weight = torch.nn.Parameter(torch.ones(2))
optimizer = torch.optim.SGD([weight], lr=0.1)
step = 0
while True:
    optimizer.zero_grad(); (weight * torch.rand(2)).sum().backward(); optimizer.step()
    step += 1
    if step == 5:
        print("five", flush=True)
    time.sleep(0.001 if step < 5 else 0.05)
"""


def test_a_run_that_goes_on_is_repeated_as_far_as_it_is_only_if_asked(
    script: Script, base: Path
) -> None:
    command = [sys.executable, str(script("program.py", GOING_ON).name)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "five\n"
        (run,) = run_directories(base)
        (item,) = (each for each in plan(run).blocking if each.what == "end")
        assert "the run still goes on; wait for its end" in item.why
        with pytest.raises(NotReplayable, match="still goes on"):
            replay(run, base=base)
        verdict = replay(run, base=base, best_effort=True)
        program.kill()
    assert verdict.outcome == "identical"
    assert "steps that both runs have" in verdict.sentence
    assert plan(run).blocking == ()
