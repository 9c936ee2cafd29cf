"""Secrets of sixty shapes, put wherever a run looks, are in no byte that is kept or printed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

MANIFEST = "from manifest_client.cli.main import main; main()"
DIGITS = "0123456789"
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
HEX = "0123456789abcdef"
ANY = LETTERS + DIGITS

Script = Callable[[str, str], Path]


def made(what: str, length: int, alphabet: str = ANY) -> str:
    """A text that looks random, and is the same at each run of the tests."""
    stream = b"".join(hashlib.sha256(f"{what}{i}".encode()).digest() for i in range(8))
    return "".join(alphabet[byte % len(alphabet)] for byte in stream[:length])


def word(what: str) -> str:
    """A secret that someone made up: short, and not random."""
    return f"swordfish{made(what, 8, DIGITS)}"


# Known by their shape wherever they stand.
SHAPES = {
    "aws": "AKIA" + made("aws", 16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
    "github": "ghp_" + made("github", 36),
    "github app": "ghs_" + made("github app", 36),
    "github fine": "github_pat_" + made("github fine", 40),
    "gitlab": "glpat-" + made("gitlab", 20),
    "hugging face": "hf_" + made("hf", 34),
    "openai": "sk-proj-A1" + made("openai", 40),
    "anthropic": "sk-ant-api03-A1" + made("anthropic", 40),
    "openrouter": "sk-or-v1-" + made("openrouter", 64, HEX),
    "stripe": "sk_live_" + made("stripe", 24),
    "slack": "xoxb-" + made("slack", 12, DIGITS) + "-" + made("slack2", 24),
    "jwt": ".".join(("eyJ" + made("j1", 20), "eyJ" + made("j2", 40), made("j3", 43))),
    "google": "AIza" + made("google", 35),
    "google oauth": "ya29." + made("oauth", 40),
    "npm": "npm_" + made("npm", 36),
    "pypi": "pypi-AgE" + made("pypi", 60),
    "docker": "dckr_pat_" + made("docker", 27),
    "digital ocean": "dop_v1_" + made("do", 64, HEX),
    "sendgrid": "SG." + made("sg", 22) + "." + made("sg2", 43),
    "nvidia": "nvapi-" + made("nvidia", 64),
    "replicate": "r8_" + made("replicate", 37),
    "groq": "gsk_" + made("groq", 52),
    "wandb": "wandb_v1_" + made("wandb", 40),
    "random": "q7" + made("random", 38),
}

ARGUMENTS = {
    "--password": word("a1"),
    "--api-key": word("a2"),
    "--hf_token": word("a3"),
    "--wandb-api-key": made("a4", 40, HEX),
    "--secret": word("a5"),
    "--auth": made("a6", 24),
    "--db-password": word("a7"),
    "--access_token": word("a8"),
}
JOINED = {
    "--token=": word("j1"),
    "trainer.logger.api_key=": word("j2"),
    "+secrets.password=": word("j3"),
    "--dsn=postgresql://u:": word("j4"),
}
VARIABLES = {  # not on the list, not looked up
    "DATABASE_URL": "postgresql://me:{}@db/x",
    "PGPASSWORD": "{}",
    "AWS_SECRET_ACCESS_KEY": "{}",
    "SENTRY_DSN": "https://{}@sentry.example/4",
}
LISTED = {  # on the list by their prefix
    "TORCH_HUB_TOKEN": "{}",
    "SLURM_JWT": "{}",
    "NCCL_AUTH_KEY": "{}",
    "HF_HOME": "https://me:{}@host/home",
}
ASKED = {  # looked up by the program
    "MY_API_KEY": "{}",
    "SERVICE_TOKEN": "{}",
    "MY_DSN": "{}",
    "MY_DATABASE_URL": "mysql://me:{}@db/x",
    "SLACK_WEBHOOK": "https://hooks.slack.com/services/T0/B0/{}",
    "ADMIN_PWD": "{}",
    "CRED": "{}",
    "LOGIN_COOKIE": "{}",
    "PASSPHRASE": "{}",
    "PLAIN_NAME": "{}",
}
CONFIG = {"password": word("c1"), "api_key": word("c2"), "auth": {"client_secret": word("c3")}}
REMOTES = {"origin": word("r1"), "mirror": "ghp_" + made("r2", 36)}
PATHS = {"file name": "hf_" + made("p1", 34), "output": "ghp_" + made("p2", 36)}
FILES = {".env": word("f1"), "settings.yaml": word("f2"), "service.pem": made("f3", 60)}
RAISED = {"error": "hf_" + made("e1", 34), "address": word("e2")}


def variables() -> tuple[dict[str, str], list[str]]:
    """The environment, and the secrets in it."""
    secrets: list[str] = []
    environ: dict[str, str] = {}
    for name, form in {**VARIABLES, **LISTED, **ASKED}.items():
        secret = SHAPES["random"] if name == "PLAIN_NAME" else word(name)
        secrets.append(secret)
        environ[name] = form.format(secret)
    return environ, secrets


PROGRAM = f"""
import json, os, sys
import manifest
manifest.record(config=json.loads(sys.stdin.read()))
for name in {list(ASKED)}: os.environ[name]
for i in range({len(SHAPES)}): os.environ.get("SHAPE_%d" % i)
for name in sorted(os.listdir("data")): open("data/" + name).read()
for name in {list(FILES)}: open(name).read()
open("out/" + sys.argv[-1], "w").write("1")
raise ValueError("cannot log in with " + os.environ["RAISED"])
"""


def test_no_secret_is_in_any_byte_of_a_run_or_of_what_is_printed(
    script: Script, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ, secrets = variables()
    environ |= {f"SHAPE_{i}": secret for i, secret in enumerate(SHAPES.values())}
    environ["RAISED"] = f"{RAISED['error']} at https://me:{RAISED['address']}@host"
    secrets += [*SHAPES.values(), *ARGUMENTS.values(), *JOINED.values(), *REMOTES.values()]
    secrets += [*PATHS.values(), *FILES.values(), *RAISED.values()]
    secrets += [CONFIG["password"], CONFIG["api_key"], CONFIG["auth"]["client_secret"]]  # type: ignore[list-item,index]
    assert len(set(secrets)) >= 60

    script("program.py", PROGRAM)
    script(f"data/{PATHS['file name']}.txt", "1")
    script(".env", f"DB_PASSWORD={FILES['.env']}\n")
    script("settings.yaml", f"db:\n  host: x\n  password: {FILES['settings.yaml']}\n")
    script("service.pem", f"-----BEGIN PRIVATE KEY-----\n{FILES['service.pem']}\n")
    (project / "out").mkdir()
    git(project, "init", "-q")
    git(project, "remote", "add", "origin", f"https://me:{REMOTES['origin']}@host/x.git")
    git(project, "remote", "add", "mirror", f"https://{REMOTES['mirror']}@host/x.git")
    git(project, "add", "program.py")
    git(project, "commit", "-qm", "first")

    arguments = [part for pair in ARGUMENTS.items() for part in pair]
    arguments += [
        name + value + ("@db/x" if "dsn" in name else "") for name, value in JOINED.items()
    ]
    arguments += [value for name, value in SHAPES.items()] + [PATHS["output"]]
    said = manifest(
        "run", "--", sys.executable, "program.py", *arguments, stdin=json.dumps(CONFIG), **environ
    )
    # The program's own traceback is the program's affair.
    ours = "".join(line for line in said.splitlines(keepends=True) if line.startswith("manifest:"))
    assert ours.count("\n") >= 3
    printed = [
        ours,
        manifest("show", "@latest", "--all"),
        manifest("show", "@latest", "--json"),
        manifest("ls"),
        manifest("replay", "@latest", "--plan"),
        manifest("diff", "@latest", "@latest", "--all", "--json"),
    ]
    places = {f"printed {i}": text.encode() for i, text in enumerate(printed)}
    for path in (project / ".manifest").rglob("*"):
        places[str(path)] = path.read_bytes() if path.is_file() else b""
        places[f"name of {path}"] = os.fsencode(path.name)
    places.pop(str(project / ".manifest" / "salt"))
    found = {
        (secret, place)
        for place, content in places.items()
        for secret in secrets
        if secret.encode() in content
    }
    assert found == set()


def test_a_secret_that_changed_still_shows_as_a_change(script: Script, project: Path) -> None:
    script("program.py", "import os\nos.environ['MY_API_KEY']\n")
    for secret in (word("one"), word("one"), word("two")):
        manifest("run", "-q", "program.py", MY_API_KEY=secret)
    same = json.loads(manifest("diff", "@latest~2", "@latest~1", "--json"))
    other = json.loads(manifest("diff", "@latest~1", "@latest", "--json"))
    assert "asked.MY_API_KEY" not in {item["key"] for item in same["differences"]}
    assert "asked.MY_API_KEY" in {item["key"] for item in other["differences"]}


def manifest(*arguments: str, stdin: str = "", **variables: str) -> str:
    """What `manifest` prints, on both streams."""
    done = subprocess.run(
        [sys.executable, "-c", MANIFEST, *arguments],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **variables},
        check=False,
    )
    return done.stdout


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)
