"""The command line: answers, exit codes, and what it must never print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import pytest

from manifest.models import Diff, Manifest, RunSummary, Verdict
from manifest.rundir import RunDirectory

Record = Callable[..., RunDirectory]


class Answer(NamedTuple):
    """What a command answered; the fixture `call` gives one of this shape."""

    code: int
    out: str
    err: str


Call = Callable[..., Answer]

COMMANDS = ["run", "ls", "show", "diff", "verify", "replay", "check"]
HOSTILE = "\x1b[31m[red]\u202eevil\n\x9b0m\r"
MANIFEST = str(Path(sys.executable).with_name("manifest"))


def test_ls_without_runs_teaches_the_first_command_and_leaves_no_trace(
    call: Call, base: Path
) -> None:
    answer = call("ls")
    assert answer.code == 0
    assert "manifest run -- python train.py" in answer.out
    assert not base.exists()


def test_ls_shows_the_newest_runs_first(call: Call, record: Record) -> None:
    runs = [record(name=f"run {number}") for number in range(3)]
    record(replay_of=runs[0].id)
    lines = call("ls", "--limit", "3").out.splitlines()
    assert [line[:13] for line in lines[1:4]] == [
        "0199c3f2-0004",
        "0199c3f2-0003",
        "0199c3f2-0002",
    ]
    assert "replay of 0199c3f2-0001" in lines[1]
    assert "manifest ls -n" in lines[4]


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_ls_cuts_long_commands_and_nothing_else(
    columns: int, call: Call, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    record(command=["python", "train.py"])
    record(command=["python", "train.py", "--words", "a" * 60, "b" * 300])
    lines = call("ls").out.splitlines()
    assert all(len(line) <= columns for line in lines)
    heads = [line.partition("python")[0].split() for line in lines[1:]]
    assert [head[0] for head in heads] == ["0199c3f2-0002", "0199c3f2-0001"]
    assert {len(head) for head in heads} == {4}
    assert all("…" not in "".join(head) for head in heads)
    assert lines[1].rstrip().endswith("…")
    assert lines[2].rstrip().endswith("python train.py")


def test_ls_as_json_is_a_list_of_summaries(call: Call, record: Record) -> None:
    run = record(exit_code=1)
    record()
    answer = call("ls", "--status", "failed", "--json")
    (summary,) = json.loads(answer.out)
    assert RunSummary.model_validate(summary).id == run.id
    assert call("ls", "--project", "none such", "--json").out == "[]\n"


def test_show_begins_with_what_came_of_the_run(call: Call, record: Record) -> None:
    run = record(exit_code=7, notes=["the clock stood still"], sections={"config": {"lr": 0.1}})
    lines = call("show", "@latest").out.splitlines()
    assert run.id in lines[0]
    assert lines[1].startswith("failed with exit code 7")
    assert "$ python train.py" in lines[2]
    assert any("the clock stood still" in line for line in lines)
    assert any(line.split() == ["lr", "0.1"] for line in lines)


def test_show_as_json_holds_the_whole_manifest(call: Call, record: Record) -> None:
    run = record(sections={"config": {"lr": 0.1}})
    replay = record(replay_of=run.id)
    found = json.loads(call("show", run.id, "--json").out)
    assert found["manifest"] == json.loads((run.path / "manifest.json").read_text())
    assert Manifest.model_validate(found["manifest"]).id == run.id
    assert [item["id"] for item in found["replays"]] == [replay.id]
    assert found["verdict"] is None


def test_show_can_give_one_section(call: Call, record: Record) -> None:
    record(sections={"config": {"lr": 0.1}})
    assert call("show", "@latest", "--section", "config", "--json").out == '{"lr":0.1}\n'
    answer = call("show", "@latest", "--section", "nothing")
    assert answer.code == 2
    assert "config" in answer.err


def test_diff_says_with_its_exit_code_whether_runs_differ(call: Call, record: Record) -> None:
    record(sections={"settings": {"torch.num_threads": 2}})
    record(sections={"settings": {"torch.num_threads": 2}})
    record(sections={"settings": {"torch.num_threads": 1}})
    assert call("diff", "@prev", "@latest").code == 0
    assert call("diff", "@prev", "@latest", "--exit-code").code == 1
    assert call("diff", "@latest~2", "@prev", "--exit-code").code == 0


def test_diff_shows_the_key_both_values_and_the_impact_in_words(call: Call, record: Record) -> None:
    record(sections={"settings": {"torch.num_threads": 2}})
    record(sections={"settings": {"torch.num_threads": 1}})
    out = call("diff", "@prev", "@latest").out
    assert "torch.num_threads  2 → 1" in out
    assert "CHANGES RESULTS" in out or "CAN CHANGE RESULTS" in out


def test_diff_only_names_what_one_run_did_not_capture_and_nobody_can_judge(
    call: Call, record: Record
) -> None:
    record(sections={"settings": {"torch.num_threads": 2}})
    record(sections={"settings": {"torch.num_threads": 2, "some.new.setting": "a" * 99}})
    out = call("diff", "@prev", "@latest").out
    assert "Not captured in the first run:\n    settings some.new.setting" in out
    assert "aaa" not in out
    assert "aaa" in call("diff", "@prev", "@latest", "--all").out


def test_diff_as_json_is_a_diff_with_the_comparison_of_the_trails(
    call: Call, record: Record
) -> None:
    record(sections={"settings": {"torch.num_threads": 2}})
    record(sections={"settings": {"torch.num_threads": 1}})
    found = json.loads(call("diff", "@prev", "@latest", "--json").out)
    assert found.pop("trail") is None
    keys = [(item.section, item.key) for item in Diff.model_validate(found).differences]
    assert ("settings", "torch.num_threads") in keys


def test_diff_can_be_narrowed(call: Call, record: Record) -> None:
    record(sections={"settings": {"torch.num_threads": 2}, "config": {"lr": 0.1}})
    record(sections={"settings": {"torch.num_threads": 1}, "config": {"lr": 0.2}})
    out = call("diff", "@prev", "@latest", "--section", "config").out
    assert "0.1 → 0.2" in out
    assert "num_threads  2 → 1" not in out
    assert out.endswith("Only section config is shown; the first line is about all.\n")
    assert call("diff", "@prev", "@latest", "--impact", "grave").code == 2


def test_where_a_dense_recording_begins_is_asked_only_of_one(call: Call, record: Record) -> None:
    run = record()
    answer = call("replay", run.id, "--from", "3")
    assert answer.code == 2
    assert "add --dense" in answer.err
    answer = call("replay", run.id, "--dense", "--from", "3", "--until", "3")
    assert answer.code == 3
    assert "it would end at step 3, before step 3 is recorded" in answer.err


def test_verify_without_anything_to_compare_is_not_a_success(call: Call, record: Record) -> None:
    before, after = record(), record()
    answer = call("verify", before.id, after.id, "--json")
    verdict = Verdict.model_validate_json(answer.out)
    assert (answer.code, verdict.outcome) == (3, "not replayable")


@pytest.mark.parametrize("reference", ["ffff", "0199c3f2", "@latest~9", HOSTILE])
def test_a_wrong_reference_is_one_sentence_and_code_2(
    call: Call, record: Record, reference: str
) -> None:
    record(), record()
    answer = call("show", reference)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("manifest: ")
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize("command", ["show", "replay"])
def test_a_reference_where_nothing_was_recorded_leaves_no_trace(
    call: Call, base: Path, command: str
) -> None:
    assert call(command, "@latest").code == 2
    assert not base.exists()


def test_a_replay_of_what_cannot_be_run_ends_with_3_before_anything_ran(
    call: Call, record: Record
) -> None:
    record(command=["no-such-program-anywhere"], sections={"command": {"executable": "/gone"}})
    answer = call("replay", "@latest")
    assert (answer.code, answer.out) == (3, "")
    assert "no-such-program-anywhere" in answer.err
    plan = call("replay", "@latest", "--plan", "--json")
    assert plan.code == 3
    assert json.loads(plan.out)["is_replayable"] is False


def test_what_another_user_recorded_is_not_run_unasked(
    call: Call, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(command=[sys.executable, "-c", "pass"])
    monkeypatch.setattr("os.getuid", lambda: 4242)
    answer = call("replay", "@latest", "--best-effort")
    assert answer.code == 2
    assert "--yes" in answer.err


@pytest.mark.parametrize(
    ("name", "fault"), [("none.tar", "No such file or directory"), ("", "Is a directory")]
)
def test_an_error_of_the_system_names_the_file_and_no_number(
    name: str, fault: str, call: Call, tmp_path: Path
) -> None:
    answer = call("import", str(tmp_path / name))
    assert (answer.code, answer.err) == (2, f"manifest: {tmp_path / name}: {fault}\n")


def test_hostile_text_in_a_run_is_shown_harmlessly(call: Call, record: Record) -> None:
    nested = {HOSTILE: {HOSTILE: HOSTILE}, "plain": HOSTILE}
    for value in (nested, {HOSTILE: [HOSTILE, 1]}):
        record(
            name=HOSTILE,
            project=HOSTILE,
            command=["python", HOSTILE],
            notes=[HOSTILE],
            sections={"config": value, "settings": value, HOSTILE: {"key": HOSTILE}},
        )
    for arguments in (
        ["ls"],
        ["show", "@latest", "--all"],
        ["show", "@latest"],
        ["show", "@latest", "--section", "nothing"],
        ["diff", "@prev", "@latest", "--all"],
        ["diff", "@latest~2", "@prev", "@latest", "--all"],
        ["verify", "@prev", "@latest"],
        ["replay", "@latest", "--plan"],
    ):
        answer = call(*arguments)
        for line in (answer.out + answer.err).splitlines():
            assert line.isprintable(), arguments
    assert "[red]" in call("show", "@latest").out


@pytest.mark.parametrize(
    "arguments",
    [
        ["ls"],
        ["show", "@latest"],
        ["show", "@latest", "--all"],
        ["diff", "@prev", "@latest"],
        ["diff", "@latest", *["@prev"] * 12],
        ["diff", "@latest", *["@prev"] * 12, "--all"],
    ],
)
def test_everything_fits_80_columns_without_colours(
    call: Call, record: Record, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for value in ("a" * 300, "b " * 300):
        record(
            name="n" * 100,
            command=["python", "train.py", value],
            sections={"config": {"key": value, value[:60].strip(): 1, "other": [value]}},
            notes=[value],
        )
    answer = call(*arguments)
    assert "\x1b" not in answer.out
    assert [line for line in answer.out.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_examples_of_the_command(call: Call, command: str) -> None:
    answer = call(command, "--help")
    assert answer.code == 0
    examples = answer.out.partition("Examples:\n")[2].splitlines()
    assert examples
    assert all(line.strip().startswith(f"manifest {command}") for line in examples)


def test_a_call_that_makes_no_sense_ends_with_2(call: Call, base: Path) -> None:
    assert call("fly").code == 2
    assert call("diff", "one").code == 2
    assert call("run").code == 2
    assert call("ls", "--limit", "0").code == 2


def test_a_program_that_is_not_there_ends_with_2(call: Call, base: Path) -> None:
    answer = call("run", "--", "no-such-program-anywhere")
    assert answer.code == 2
    assert "no-such-program-anywhere" in answer.err


def test_a_fault_of_ours_never_reads_as_diverged(
    call: Call, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    record()
    monkeypatch.setattr("manifest_client.references.resolve", lambda *_: 1 // 0)
    answer = call("verify", "@latest", "@latest")
    assert answer.code == 70


def manifest(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command as a user does."""
    return subprocess.run(
        [MANIFEST, *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_run_ends_with_the_code_of_its_program_and_keeps_its_output_apart(base: Path) -> None:
    program = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
    answer = manifest("run", "--name", "seven", "--", sys.executable, "-c", program)
    assert (answer.returncode, answer.stdout) == (7, "out\n")
    assert answer.stderr.splitlines()[-1].startswith("manifest: run it again")
    (run,) = json.loads(manifest("ls", "--json").stdout)
    assert (run["name"], run["status"]) == ("seven", "failed")


def test_quiet_prints_nothing_of_ours(base: Path) -> None:
    answer = manifest("run", "--quiet", "--", sys.executable, "-c", "print('out')")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "out\n", "")


def test_options_behind_the_program_are_its_own(base: Path) -> None:
    show_arguments = Path("arguments.py")
    show_arguments.write_text("import sys; print(sys.argv[1:])")
    answer = manifest("run", "-q", "arguments.py", "--name", "x", "--json", "--", "-q")
    assert answer.stdout == "['--name', 'x', '--json', '--', '-q']\n"


def test_replay_as_json_prints_the_verdict_alone(base: Path) -> None:
    Path("draw.py").write_text("import random; print(random.random())")
    manifest("run", "draw.py")
    answer = manifest("replay", "@latest", "--json")
    verdict = Verdict.model_validate_json(answer.stdout)
    assert verdict.original == json.loads(manifest("ls", "--json").stdout)[1]["id"]
    assert "running the program again" in answer.stderr


def test_a_reader_that_leaves_early_hears_nothing_more(base: Path, record: Record) -> None:
    record(sections={"config": {"key": "x" * 300_000}})
    answer = subprocess.run(
        f"'{MANIFEST}' show @latest --json | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (answer.stdout, answer.stderr) == ("{", "")


def test_a_shell_completes_ids_and_names(base: Path, record: Record) -> None:
    record(name=HOSTILE), record()
    completed = {
        word: manifest(
            _MANIFEST_COMPLETE="complete_bash", COMP_WORDS=f"manifest show {word}", COMP_CWORD="2"
        ).stdout.split()
        for word in ("01", "0199c3f2-0002", "@l", "ff")
    }
    assert completed == {
        "01": ["0199c3f2-0002", "0199c3f2-0001"],
        "0199c3f2-0002": ["0199c3f2-0002"],
        "@l": ["@latest"],
        "ff": [],
    }


PROGRAM = [sys.executable, "-c", "import sys; print('done'); sys.exit(7)"]


def assert_is_recorded_as_alone(base: Path, stderr: IO[str] | int) -> None:
    done = subprocess.run(
        [MANIFEST, "run", "--", *PROGRAM],
        stdout=subprocess.PIPE,
        stderr=stderr,
        cwd=base.parent,
        check=False,
    )
    assert (done.stdout, done.returncode) == (b"done\n", 7)


@pytest.fixture
def without_reader() -> Iterator[int]:
    """The end to write to of a pipe whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def test_a_full_disk_under_standard_error_changes_nothing_of_a_recorded_program(
    base: Path,
) -> None:
    with open("/dev/full", "w") as full:
        assert_is_recorded_as_alone(base, full)


def test_a_reader_that_has_left_changes_nothing_of_a_recorded_program(
    base: Path, without_reader: int
) -> None:
    assert_is_recorded_as_alone(base, without_reader)


def test_a_list_without_a_reader_does_not_say_that_runs_differ(
    record: Record, base: Path, without_reader: int
) -> None:
    record()
    done = subprocess.run(
        [MANIFEST, "ls"],
        stdout=without_reader,
        stderr=subprocess.PIPE,
        cwd=base.parent,
        check=False,
    )
    assert (done.stderr, done.returncode) == (b"", 141)


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_a_command_goes_on_where_a_standard_stream_is_closed(
    stream: int, record: Record, base: Path
) -> None:
    record()
    for command, code in (
        (["ls"], 0),
        (["ls", "--json"], 0),
        (["replay", "@latest", "--json"], 3),
        (["run", "--", *PROGRAM], 7),
    ):
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {stream}>&-', "sh", MANIFEST, *command],
            capture_output=True,
            text=True,
            cwd=base.parent,
            check=False,
        )
        assert done.returncode == code, (command, done.stderr)
        assert "Traceback" not in done.stderr
