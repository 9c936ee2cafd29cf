"""Manifests from strangers: sealed as they should be, and out to do harm."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from manifest.canonical import Digest, canonical_bytes
from manifest.errors import NotAgreed
from manifest.journal import encode_entry, entries
from manifest.launching import launch
from manifest.replaying import replay
from manifest.rundir import RunDirectory
from manifest.sealing import seal_document
from manifest_client.cli.main import main
from manifest_migrations.upgrade import open_store
from manifest_server.database import sqlite_url

PROGRAM = """
import json, os, random, sys
open(sys.argv[1], "a").write(json.dumps([dict(os.environ), sys.path, random.random()]) + "\\n")
"""
EVIL = "import os; open({marker!r}, 'w')\n"


@dataclass
class Kit:
    """What an attacker works with."""

    run: RunDirectory
    folder: Path
    """Of the victim."""
    outside: Path
    """A folder that nothing may be written to."""
    marker: Path
    """Is there once a payload has run."""

    def blob(self, content: bytes) -> Digest:
        return self.run.put_blob(content)

    @property
    def evil(self) -> Digest:
        return self.blob(EVIL.format(marker=str(self.marker)).encode())


@dataclass(frozen=True)
class Recording:
    folder: Path
    run_id: str
    said: Path


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """One real run, in a repository with a change, that all of these tests begin with."""
    top = tmp_path_factory.mktemp("hostile")
    folder = top / "project"
    folder.mkdir()
    (folder / "program.py").write_text(PROGRAM)
    (folder / "config.json").write_text("1\n")

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
        subprocess.run(["git", "-C", folder, *who, *arguments], capture_output=True, check=True)

    git("init", "--quiet")
    git("add", "-A")
    git("commit", "--quiet", "-m", "first")
    (folder / "config.json").write_text("2\n")
    (folder / "untracked.txt").write_text("3\n")
    here = os.getcwd()
    os.chdir(folder)
    try:
        said = top / "said"
        launched = launch([sys.executable, "program.py", str(said)], base=folder / ".manifest")
    finally:
        os.chdir(here)
    assert launched.exit_code == 0
    open_store(sqlite_url(folder / ".manifest" / "store.db")).close()  # else each would make one
    return Recording(folder, launched.run.id, said)


@pytest.fixture
def kit(recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kit:
    """A copy of that run, in its project, to be made hostile."""
    base = tmp_path / "base"
    shutil.copytree(recording.folder / ".manifest", base)
    outside, scratch = tmp_path / "outside", tmp_path / "scratch"
    outside.mkdir()
    scratch.mkdir()
    monkeypatch.chdir(recording.folder)
    monkeypatch.setenv("MANIFEST_DIR", str(base))
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    run = RunDirectory(base / "runs" / recording.run_id)
    return Kit(run, recording.folder, outside, tmp_path / "marker")


@pytest.fixture
def unharmed(kit: Kit, recording: Recording, tmp_path: Path) -> Iterator[None]:
    """Whatever was tried, nothing of the victim's changed and nothing was left behind."""
    before = contents(recording.folder)
    yield
    assert not kit.marker.exists(), "the payload ran"
    assert list(kit.outside.iterdir()) == []
    assert list((tmp_path / "scratch").iterdir()) == []
    assert contents(recording.folder) == before
    allowed = {"base", "outside", "scratch", "said"}
    assert {path.name for path in tmp_path.iterdir()} <= allowed


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".manifest" not in path.parts
    }


def write(kit: Kit, change: Callable[[dict[str, Any], Kit], None]) -> None:
    """Change the sealed manifest and seal it again, as an attacker can."""
    path = kit.run.path / "manifest.json"
    document = json.loads(path.read_bytes())
    for name in ("digests", "digest"):
        del document[name]
    change(document, kit)
    seal_document(document)
    path.write_bytes(canonical_bytes(document) + b"\n")


def call(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["manifest", *arguments])
    capfd.readouterr()
    with pytest.raises(SystemExit) as ending:
        main()
    out, err = capfd.readouterr()
    return int(ending.value.code or 0), out + err


def section(name: str, **values: Any) -> Callable[[dict[str, Any], Kit], None]:
    def change(document: dict[str, Any], kit: Kit) -> None:
        document["sections"].setdefault(name, {}).update(values)

    return change


def whole(name: str, value: Any) -> Callable[[dict[str, Any], Kit], None]:
    return lambda document, kit: document["sections"].update({name: value})


def source(name: str) -> Callable[[dict[str, Any], Kit], None]:
    def change(document: dict[str, Any], kit: Kit) -> None:
        document["sections"]["code"].setdefault("files", {})[name] = kit.evil

    return change


def untracked(name: str, mode: str = "100755") -> Callable[[dict[str, Any], Kit], None]:
    def change(document: dict[str, Any], kit: Kit) -> None:
        code = document["sections"]["code"]
        code["git.untracked"] = {"out": kit.blob(os.fsencode(kit.outside)), name: kit.evil}
        code["git.untracked_modes"] = {"out": "120000", name: mode}
        code["git.left_out"] = ["x"]  # else it is the tree that does not fit

    return change


def patch(text: str) -> Callable[[dict[str, Any], Kit], None]:
    def change(document: dict[str, Any], kit: Kit) -> None:
        data = text.format(outside=kit.outside, marker=kit.marker).encode()
        document["sections"]["code"]["git.patch"] = kit.blob(data)
        document["sections"]["code"]["git.left_out"] = ["x"]

    return change


def new_file(path: str, mode: str = "100644", line: str = "evil") -> str:
    return (
        f"diff --git a/{path} b/{path}\nnew file mode {mode}\n--- /dev/null\n+++ b/{path}\n"
        f"@@ -0,0 +1 @@\n+{line}\n\\ No newline at end of file\n"
    )


def binary(size: int, said: int) -> str:
    """A file of zeros in a patch, which says how large it is."""
    squeezed = zlib.compress(bytes(size), 9)
    lines = []
    for start in range(0, len(squeezed), 52):
        piece = squeezed[start : start + 52]
        letter = chr(ord("A") + len(piece) - 1 if len(piece) <= 26 else ord("a") + len(piece) - 27)
        lines.append(letter + base64.b85encode(piece + bytes(-len(piece) % 4)).decode())
    return f"literal {said}\n" + "\n".join(lines) + "\n\nliteral 0\nHcmV?d00001\n\n"


def bomb(content: str, count: int) -> Callable[[dict[str, Any], Kit], None]:
    text = "".join(
        f"diff --git a/bomb{n} b/bomb{n}\nnew file mode 100644\nindex {'0' * 40}..{'1' * 40}\n"
        f"GIT binary patch\n{content}"
        for n in range(count)
    )
    return patch(text.replace("{", "{{").replace("}", "}}"))


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


SECTIONS = ("command", "code", "seeds", "packages", "environment", "hardware", "inputs", "outputs")

SEALED: dict[str, Callable[[dict[str, Any], Kit], None]] = {
    # Source that leaves the workspace.
    "source above": source("../evil.py"),
    "source far above": source("a/../../../evil.py"),
    "source at an absolute place": lambda d, k: source(str(k.outside / "evil.py"))(d, k),
    "source in a repository": source(".git/hooks/post-checkout"),
    "source in a repository of another case": source(".GIT/hooks/post-checkout"),
    "source in a repository with a dot": source("sub/.git./hooks/pre-commit"),
    "source with a null": source("a\0b"),
    "source with a name of ten thousand bytes": source("a" * 10_000),
    "source below ten thousand folders": source("a/" * 2_000 + "a"),
    "source without a name": source(""),
    "source that is a folder too": lambda d, k: (source("a")(d, k), source("a/b")(d, k))[0],
    "source behind a link": lambda d, k: (untracked("x")(d, k), source("out/evil.py")(d, k))[0],
    "source without bytes": section("code", files={"program.py": "sha256:" + "0" * 64}),
    "source under no digest": section("code", files={"program.py": "../../etc/passwd"}),
    "source of a hundred thousand files": section(
        "code", files={f"f{n}.py": "sha256:" + "0" * 64 for n in range(100_001)}
    ),
    # Untracked files and patches.
    "untracked above": untracked("../evil"),
    "untracked at an absolute place": lambda d, k: untracked(str(k.outside / "x"))(d, k),
    "untracked in a repository": untracked(".git/hooks/post-checkout"),
    "untracked behind a link": untracked("out/evil"),
    "untracked of a mode of its own": untracked("device", "060000"),
    "untracked of wrong types": section("code", **{"git.untracked": [1, 2]}),
    "patch above": patch(new_file("../evil")),
    "patch at an absolute place": patch(new_file("/tmp/evil")),
    "patch in a repository": patch(new_file(".git/hooks/post-checkout", "100755")),
    "patch behind a link that it makes": patch(
        new_file("out", "120000", "{outside}") + new_file("out/evil")
    ),
    "patch that renames into a repository": patch(
        "diff --git a/program.py b/.git/hooks/post-checkout\nsimilarity index 100%\n"
        "rename from program.py\nrename to .git/hooks/post-checkout\n"
    ),
    "patch of a deep path": patch(new_file("a/" * 1_500 + "a")),
    "patch that is none": patch("evil"),
    "patch that names a submodule": patch(
        "diff --git a/sub b/sub\nnew file mode 160000\n--- /dev/null\n+++ b/sub\n"
        f"@@ -0,0 +1 @@\n+Subproject commit {'1' * 40}\n"
    ),
    "patch that is a bomb": bomb(binary(8 << 20, 8 << 20), 20),
    "patch that lies about a size": bomb(binary(1 << 20, 64 << 30), 1),
    "commit that is an option": section("code", **{"git.commit": "--upload-pack=touch evil"}),
    "commit that is a number": section("code", **{"git.commit": 7}),
    "submodule above": section("code", **{"git.submodules": {"../x": "1" * 40}}),
    "left out above": section("code", **{"git.left_out": ["../../x"]}),
    # The command.
    "no command": whole("command", {}),
    "no arguments": section("command", argv=[]),
    "arguments that are numbers": section("command", argv=[1, 2]),
    "arguments that are a text": section("command", argv="rm -rf /"),
    "arguments with a null": section("command", argv=["python", "a\0b"]),
    "a program that is not there": section("command", argv=["/nowhere/python", "x"]),
    "a program that is another than shown": lambda d, k: section(
        "command", argv=["python3-of-nobody", "program.py"], executable=script_of(k)
    )(d, k),
    "a program that is a folder": section("command", argv=["/tmp"], executable="/tmp"),
    "a folder outside": section("command", cwd="../../.."),
    "a folder at an absolute place": section("command", cwd="/etc"),
    "a folder behind a link": lambda d, k: (
        untracked("x")(d, k),
        section("command", cwd="out/made")(d, k),
    )[0],
    "a root that is relative": section("command", root="."),
    "a root with a null": section("command", root="/a\0b"),
    "a root that is a number": section("command", root=7),
    # Seeds and surroundings.
    "entropy of the wrong length": section("seeds", entropy="00"),
    "entropy that is no number": section("seeds", entropy="zz" * 32),
    "no seeds": whole("seeds", {}),
    "standard input that is a device": section(
        "environment", **{"given.stdin": {"kind": "file", "path": "/dev/zero", "size": 0}}
    ),
    "standard input at a place before the first": section(
        "environment", **{"given.stdin": {"kind": "file", "path": "/x", "offset": -5}}
    ),
    "processors without end": section("environment", **{"given.affinity": "0-99999"}),
    "processors that are words": section("environment", **{"given.affinity": "all"}),
    "a mask of letters": section("environment", **{"given.umask": "rwx"}),
    "a search path of numbers": section("environment", **{"python.path": [1, None, {}]}),
    "a section that is a list": whole("command", [1]),
    "sections that are deep": whole("config", {"a": deep(900)}),
    "huge integers": whole("config", {"a": 10**4000}),
    "inputs without end": section(
        "inputs", **{"/dev/zero": {"size": 0, "mtime_us": 0, "digest": "x"}}
    ),
    "inputs of wrong types": section("inputs", **{"/etc/passwd": "x"}),
    "sizes that are texts": section("inputs", **{"/etc/passwd": {"size": "large"}}),
    "a moment that is none": lambda d, k: d.update(started_at="yesterday"),
    "a moment before all": lambda d, k: d.update(started_at="0001-01-01T00:00:00Z"),
    "a project with a null": lambda d, k: d.update(project="a\0b"),
    **{
        f"{name} full of numbers": whole(name, {"1": 1, "2": [2], "3": {"4": 5}})
        for name in SECTIONS
    },
}


def script_of(kit: Kit) -> str:
    path = kit.run.path / "python-evil"
    path.write_text(f"#!/bin/sh\ntouch '{kit.marker}'\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("name", SEALED)
def test_a_hostile_manifest_does_no_harm(
    name: str,
    kit: Kit,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(kit, SEALED[name])
    for arguments in (["check"], ["replay", "--yes", "--best-effort"]):
        code, said = call(capfd, monkeypatch, *arguments, kit.run.id)
        assert code in ((0, 2, 3) if arguments == ["check"] else (1, 2, 3)), said
        assert "Traceback" not in said
        assert said.strip()


def rewrite(change: Callable[[list[dict[str, Any]], Kit], None]) -> Callable[[Kit], None]:
    """Change the journals that the manifest is folded from, and let them be folded again."""

    def apply(kit: Kit) -> None:
        (kit.run.path / "manifest.json").unlink()
        path = kit.run.path / "journal" / "run.jsonl"
        found = list(entries(path))
        change(found, kit)
        path.write_bytes(b"".join(encode_entry({**entry, "n": n}) for n, entry in enumerate(found)))

    return apply


def of_origin(**fields: Any) -> Callable[[Kit], None]:
    return rewrite(lambda found, kit: found[0].update(fields))


def added(**entry: Any) -> Callable[[Kit], None]:
    return rewrite(lambda found, kit: found.append({"at": 1, **entry}))


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Kit], None]:
    def apply(kit: Kit) -> None:
        path = next(iter(sorted(kit.run.path.glob(name))), kit.run.path / name)
        path.unlink(missing_ok=True)
        make(path)

    return apply


def raw(text: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(text)


DIRECTORIES: dict[str, Callable[[Kit], None]] = {
    "origin without an id": of_origin(id=None),
    "origin of a newer schema": of_origin(schema=10**6),
    "origin of a schema that is a text": of_origin(schema="new"),
    "origin without a mode": of_origin(mode={"a": 1}),
    "origin at the end of time": of_origin(at=10**30),
    "origin at no time": of_origin(at="now"),
    "origin of a process that is a text": of_origin(pid="x", boot=[1]),
    "a section that is a list": added(kind="section", section="command", values=[1]),
    "a section of no name": added(kind="section", section=None, values={"a": 1}),
    "an entry of no kind": added(what="x"),
    "an exit without a code": added(kind="exit"),
    "text that has no bytes": added(kind="section", section="config", values={"a": "\ud800"}),
    "a journal that never ends": replaced("journal/run.jsonl", lambda p: p.symlink_to("/dev/zero")),
    "a journal that waits": replaced("journal/x.jsonl", os.mkfifo),
    "a trail that waits": replaced("trail/main.bin", os.mkfifo),
    "a manifest that never ends": replaced("manifest.json", lambda p: p.symlink_to("/dev/zero")),
    "a manifest that waits": replaced("manifest.json", os.mkfifo),
    "a manifest of no text": replaced("manifest.json", raw(b"\xff\xfe\x00")),
    "a manifest that is deep": replaced("manifest.json", raw(b"[" * 200_000)),
    "a manifest with a huge number": replaced(
        "manifest.json", raw(b'{"schema":' + b"9" * 9999 + b"}")
    ),
    "a manifest that is a list": replaced("manifest.json", raw(b"[1]")),
    "blobs that never end": replaced("blobs/*/*", lambda p: p.symlink_to("/dev/zero")),
    "blobs that wait": replaced("blobs/*/*", os.mkfifo),
    "a blob of other bytes": replaced("blobs/*/*", raw(b"import os; os.abort()")),
    "a verdict that is deep": replaced("verdict.json", raw(b"[" * 200_000)),
}


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_hostile_run_directory_does_no_harm(
    name: str,
    kit: Kit,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    DIRECTORIES[name](kit)
    for arguments in (["check"], ["replay", "--yes"], ["ls"]):
        wanted = [] if arguments == ["ls"] else [kit.run.id]
        code, said = call(capfd, monkeypatch, *arguments, *wanted)
        assert code in (0, 1, 2, 3), said
        assert "Traceback" not in said


VARIABLES = """
    BASH_ENV ENV GIT_SSH_COMMAND HTTPS_PROXY IFS LD_LIBRARY_PATH LD_PRELOAD MANIFEST_RUN_DIR
    NODE_OPTIONS PATH PERL5OPT PROMPT_COMMAND PYTHONHOME PYTHONPATH PYTHONSTARTUP VIRTUAL_ENV
""".split()  # noqa: SIM905, read more easily


@pytest.mark.usefixtures("unharmed")
def test_only_harmless_variables_are_taken_over(
    kit: Kit, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        if name not in ("PATH", "PYTHONPATH"):
            monkeypatch.delenv(name, raising=False)
    evil = {f"{kind}.{name}": "evil" for name in VARIABLES for kind in ("env", "asked", "given")}
    harmless = {"env.OMP_NUM_THREADS": "3", "asked.LEVEL": "hard"}
    paths = {"python.path": [f"{kit.folder}/../../evil", f"{kit.folder}/..", "/evil"]}
    argv = [sys.executable, "program.py", str(tmp_path / "said")]

    def change(document: dict[str, Any], kit: Kit) -> None:
        section("environment", **evil, **harmless, **paths)(document, kit)
        section("command", argv=argv)(document, kit)

    write(kit, change)
    code, said = call(capfd, monkeypatch, "replay", "--yes", "--best-effort", kit.run.id)
    assert code == 3, said
    environ, search_path, _ = json.loads((tmp_path / "said").read_text())
    assert (environ["OMP_NUM_THREADS"], environ["LEVEL"]) == ("3", "hard")
    assert [name for name, value in environ.items() if value == "evil"] == []
    assert [path for path in search_path if "evil" in path] == []


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("who", [{"machine": "0" * 32}, {"uid": 12345}, {"machine": None}])
def test_what_a_stranger_recorded_is_run_only_after_consent(
    who: dict[str, Any],
    kit: Kit,
    recording: Recording,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = kit.run.path / "journal" / "run.jsonl"
    found = list(entries(path))
    found[0] |= who
    path.write_bytes(b"".join(map(encode_entry, found)))
    program = script_of(kit)

    def change(document: dict[str, Any], kit: Kit) -> None:
        section("command", argv=[program, "--evil"], executable=program)(document, kit)

    write(kit, change)
    assert call(capfd, monkeypatch, "check", kit.run.id)[0] in (0, 3)
    code, said = call(capfd, monkeypatch, "replay", "--best-effort", kit.run.id)
    assert code == 2
    assert f"{program} --evil" in " ".join(said.split())
    assert "--yes" in said
    assert "a copy of" in said
    assert f"  program  {program}" in said.splitlines()
    with pytest.raises(NotAgreed):
        replay(kit.run, base=kit.run.path.parent.parent, best_effort=True)


def test_what_a_stranger_wrote_cannot_pass_for_a_line_of_the_question(
    kit: Kit, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kit.run.path / "journal" / "run.jsonl"
    found = list(entries(path))
    found[0]["uid"] = 12345
    path.write_bytes(b"".join(map(encode_entry, found)))
    program, lie = script_of(kit), "x\n  program  /usr/bin/true"

    def change(document: dict[str, Any], kit: Kit) -> None:
        section("command", argv=[program, lie], executable=program)(document, kit)

    write(kit, change)
    said = call(capfd, monkeypatch, "replay", "--best-effort", kit.run.id)[1]
    told = [line for line in said.splitlines() if line.startswith("  program")]
    assert told == [f"  program  {program}"]
    assert "\\n  program  /usr/bin/true" in said


def test_a_run_of_ones_own_asks_nobody(
    kit: Kit, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = call(capfd, monkeypatch, "replay", kit.run.id)
    assert code == 3
    assert "nothing to compare" in said


def test_the_id_of_the_machine_is_never_written(kit: Kit) -> None:
    try:
        raw_id = Path("/etc/machine-id").read_text().strip()
    except OSError:
        pytest.skip("this machine has no id")
    if not raw_id:
        pytest.skip("this machine has no id")
    for path in kit.run.path.rglob("*"):
        if path.is_file() and stat.S_ISREG(path.stat().st_mode):
            assert raw_id.encode() not in path.read_bytes()
